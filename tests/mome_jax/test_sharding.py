import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mome_jax.experts import Values
from mome_jax.sharding import ShardedKeys, mesh_over, shard

_PROGRAM = Path(__file__).with_name("sharded_program.py")


def _host_is_known() -> bool:
    try:
        return bool(socket.getaddrinfo(socket.gethostname(), None))
    except OSError:
        return False


def _start(*arguments: object) -> subprocess.Popen:
    repository = str(_PROGRAM.parents[2])
    environment = {**os.environ, "PYTHONPATH": repository}
    command = [sys.executable, str(_PROGRAM), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def _json_of(output: str) -> dict:
    """The program's own line; the collectives write theirs between."""
    return json.loads(next(line for line in output.splitlines() if line.startswith("{")))


def _check(found: dict, *, devices: int, processes: int) -> None:
    assert (found["devices"], found["processes"]) == (devices, processes)
    values = found["values"]
    assert values.pop("rows_a_device") == -(-11 // devices)
    assert values.pop("partial_error") < 2e-6  # sums of four numbers of size 1, in another order
    assert values.pop("answer_error") < 1e-5
    assert values.pop("whole", True)
    assert values == dict.fromkeys(("read", "gathered", "bfloat16", "written"), True)
    assert found["keys"] == {"experts": True, "weights": True}
    assert found["low rank"] == {"read": True}


def test_eight_devices_give_what_one_gives():
    process = _start(8)
    output, error = process.communicate(timeout=300)
    assert not process.returncode, error
    found = _json_of(output)
    _check(found, devices=8, processes=1)


@pytest.mark.skipif(
    "jax_cpu_collectives_implementation" not in jax.config.values,
    reason="this JAX has no collectives between processes on a CPU",
)
@pytest.mark.skipif(not _host_is_known(), reason="the processes meet by the name of this host, which leads nowhere")
def test_two_processes_give_what_one_gives():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    processes = [_start(1, number, 2, address) for number in range(2)]
    try:
        answers = [process.communicate(timeout=300) for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, (output, error) in zip(processes, answers, strict=True):
        assert not process.returncode, error
        _check(_json_of(output), devices=2, processes=2)


def test_refusals():
    mesh = mesh_over(jax.devices()[:1])
    with pytest.raises(ValueError, match="the mesh has no axis 'rows'; name one of experts"):
        shard(Values(jnp.zeros((3, 2))), mesh, "rows")
    keys = ShardedKeys.create(jnp.zeros((3, 2)), mesh)
    with pytest.raises(ValueError, match="4 experts cannot be chosen of 3"):
        keys.select(jnp.zeros(2), 4)
    np.testing.assert_array_equal(keys.select(jnp.zeros(2), 3).experts, [0, 1, 2])
