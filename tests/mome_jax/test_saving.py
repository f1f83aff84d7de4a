import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

from mome_jax import container
from mome_jax.saving import fingerprint, load, peek, save

_TYPES = ("float32", "bfloat16", "float16", "float64", "int8", "int32", "int64", "uint8", "uint32", "uint64", "bool")
_HEADER = {"facts": 3, "names": ["a", "ü"], "nested": {"none": None, "share": 0.1}}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "bank.safetensors"
    save(
        path, {"values": jnp.arange(12, dtype=jnp.float32).reshape(4, 3), "ids": np.arange(4, dtype=np.uint32)}, _HEADER
    )
    return path


@given(st.lists(st.sampled_from(_TYPES), min_size=1, max_size=5), st.lists(st.integers(0, 3), max_size=3), st.data())
def test_every_type_and_shape_returns_bit_for_bit(tmp_path_factory, types, shape, data):
    dtypes = [np.dtype(getattr(ml_dtypes, name, None) or name) for name in types]
    arrays = {}
    for dtype in dtypes:
        size = int(np.prod(shape)) * dtype.itemsize
        raw = np.frombuffer(data.draw(st.binary(min_size=size, max_size=size)), np.uint8)
        raw = raw % 2 if dtype.kind == "b" else raw
        arrays[f"{len(arrays)} {dtype}"] = raw.view(dtype).reshape(shape)
    path = tmp_path_factory.mktemp("saved") / "file"
    save(path, arrays, _HEADER)
    returned, header = load(path)
    assert header == _HEADER == peek(path)
    assert returned.keys() == arrays.keys()
    for name, array in arrays.items():
        assert (returned[name].dtype, returned[name].shape) == (array.dtype, array.shape)
        assert returned[name].tobytes() == array.tobytes()


def test_jax_arrays_and_arrays_in_any_order_of_memory(tmp_path):
    turned, big = np.arange(6.0).reshape(2, 3).T, np.arange(3, dtype=">i4")
    save(
        tmp_path / "a",
        {"jax": jnp.ones((2, 2), jnp.bfloat16), "turned": turned, "big": big, "every other": big[::2]},
        {},
    )
    arrays, _ = load(tmp_path / "a")
    assert arrays["jax"].dtype == jnp.bfloat16
    np.testing.assert_array_equal(arrays["turned"], turned)
    np.testing.assert_array_equal(arrays["big"], [0, 1, 2])
    np.testing.assert_array_equal(arrays["every other"], [0, 2])


def test_any_reader_of_safetensors_reads_it(saved):
    arrays = safetensors.numpy.load_file(saved)
    np.testing.assert_array_equal(arrays["values"], np.arange(12, dtype=np.float32).reshape(4, 3))
    np.testing.assert_array_equal(arrays["ids"], np.arange(4))


def test_loaded_arrays_begin_where_jax_takes_them_over(saved):
    assert all(array.ctypes.data % 64 == 0 for array in load(saved)[0].values())


def test_every_flipped_byte_and_every_truncation_is_refused(saved, tmp_path):
    good, bad = saved.read_bytes(), tmp_path / "bad"
    text = 8 + int.from_bytes(good[:8], "little")
    unchanged = 0
    for place in range(len(good)):
        bad.write_bytes(good[:place] + bytes([good[place] ^ 0x10]) + good[place + 1 :])
        try:
            arrays, header = load(bad)
        except ValueError:
            continue
        unchanged += 1  # only where the bytes mean the same in JSON
        assert place < text
        assert header == _HEADER
        np.testing.assert_array_equal(arrays["ids"], np.arange(4))
    assert unchanged <= 2
    for length in range(len(good)):
        bad.write_bytes(good[:length])
        with pytest.raises(ValueError, match="truncated"):
            load(bad)
    bad.write_bytes(good + b"\0")
    with pytest.raises(ValueError, match="damaged"):
        peek(bad)


def test_a_damaged_tensor_is_named(saved):
    content = bytearray(saved.read_bytes())
    content[-1] ^= 1
    saved.write_bytes(content)
    with pytest.raises(ValueError, match="values does not have its checksum; restore it from a copy"):
        load(saved)
    assert peek(saved) == _HEADER


@pytest.mark.parametrize(
    "content",
    [b"", b"\0" * 8, b"PK\3\4" + b"x" * 99, b"\xff" * 200, b"\x02" + b"\0" * 7 + b"[]", b"\x02" + b"\0" * 7 + b"{}"],
)
def test_a_foreign_file_is_refused(tmp_path, content):
    (tmp_path / "foreign").write_bytes(content)
    with pytest.raises(ValueError, match="foreign: is"):
        load(tmp_path / "foreign")


def test_a_file_of_others_or_of_a_later_format_is_refused(tmp_path, monkeypatch):
    safetensors.numpy.save_file({"x": np.ones(3)}, tmp_path / "other")
    with pytest.raises(ValueError, match="not one that mome_jax saved"):
        load(tmp_path / "other")
    monkeypatch.setattr(container, "FORMAT", container.FORMAT + 1)
    save(tmp_path / "later", {"x": np.ones(3)}, {})
    monkeypatch.undo()
    with pytest.raises(ValueError, match="has format 2, and this version reads format 1"):
        load(tmp_path / "later")


def test_what_is_not_a_file_is_refused(tmp_path):
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(ValueError, match="cannot be read"):
            load(path)
    with pytest.raises(ValueError, match="cannot be written"):
        save(tmp_path / "absent" / "file", {"x": np.ones(1)}, {})


def test_an_existing_file_is_left_unless_told(saved):
    before = saved.read_bytes()
    with pytest.raises(ValueError, match="exists and was left as it is"):
        save(saved, {"x": np.ones(1)}, {})
    assert saved.read_bytes() == before
    save(saved, {"x": np.ones(1)}, {"new": True}, overwrite=True)
    assert peek(saved) == {"new": True}
    assert os.listdir(saved.parent) == [saved.name]


def test_a_file_that_appears_meanwhile_is_left(saved, monkeypatch):
    before = saved.read_bytes()
    monkeypatch.setattr(Path, "exists", lambda _: False)
    with pytest.raises(ValueError, match="appeared meanwhile"):
        save(saved, {"x": np.ones(1)}, {})
    assert saved.read_bytes() == before
    assert os.listdir(saved.parent) == [saved.name]


@pytest.mark.parametrize(
    "header", [{"a": (1, 2)}, {"a": float("nan")}, {"a": {1: "b"}}, {"a": {1}}, {"a": np.float32(1)}, {"a": b"x"}]
)
def test_a_header_that_json_changes_is_refused(tmp_path, header):
    with pytest.raises(ValueError, match="JSON"):
        save(tmp_path / "a", {"x": np.ones(1)}, header)
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({}, "nothing to save"),
        ({"key": jax.random.key(0)}, "save jax.random.key_data"),
        ({"__metadata__": np.ones(1)}, "cannot be the name"),
        ({"": np.ones(1)}, "cannot be the name"),
        ({"text": np.array(["a"])}, "text: type <U1 cannot be saved; convert it"),
        ({"objects": np.array([{}])}, "type object cannot be saved"),
    ],
)
def test_what_cannot_be_saved_is_refused_before_writing(tmp_path, arrays, message):
    with pytest.raises(ValueError, match=message):
        save(tmp_path / "a", arrays, {})
    assert not os.listdir(tmp_path)


_KILLED = """
import json, os, signal, sys, numpy as np
from mome_jax import saving

def kill(*_, **__): os.kill(os.getpid(), signal.SIGKILL)
def kill_at_last_array(array, calls=[]):
    calls.append(array)
    return kill() if len(calls) == 4 else memoryview(array.tobytes())  # twice for checksums, twice for writing
points = [("as_bytes", kill_at_last_array), ("os.fsync", kill), ("_give_name", kill), ("sync_folder", kill)]
for name, deadly in points:
    child = os.fork()
    if not child:
        owner = saving.os if name.startswith("os.") else saving
        setattr(owner, name.split(".")[-1], deadly)
        saving.save(sys.argv[1], {"values": np.ones((4, 3)), "a": np.ones(2)}, {"new": True}, overwrite=True)
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    print(json.dumps(saving.peek(sys.argv[1])))
    saving.load(sys.argv[1])
"""


def test_a_kill_leaves_the_old_file_or_the_new_one(saved):
    program = subprocess.run([sys.executable, "-c", _KILLED, str(saved)], check=True, capture_output=True, text=True)
    headers = [json.loads(line) for line in program.stdout.splitlines()]
    assert headers == [_HEADER, _HEADER, _HEADER, {"new": True}]


def test_two_that_save_at_once_leave_one_whole_file(tmp_path):
    path, refused = tmp_path / "a", []

    def one(number: int) -> None:
        try:
            save(path, {"x": np.full(1 << 16, number)}, {"number": number})
        except ValueError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=one, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    arrays, header = load(path)
    assert len(refused) == 7
    assert set(arrays["x"]) == {header["number"]}
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="the most memory a program had is read in /proc")
def test_large_arrays_on_the_host_are_not_copied(tmp_path):
    program = f"""
import numpy as np, jax
from mome_jax.saving import save
def most_kib():
    return int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])
values = np.ones(1 << 27, np.uint8)
before = most_kib()
save({str(tmp_path / "large")!r}, {{"values": values}}, {{}})
print(most_kib() - before)
"""
    grown_kib = int(subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout)
    assert grown_kib < (1 << 17) / 4


def test_libraries_and_their_versions_are_stated(saved):
    with safetensors.safe_open(saved, framework="np") as file:
        statement = json.loads(file.metadata()["mome_jax"])
    assert set(statement["libraries"]) == {"jax", "numpy", "safetensors"}
    assert statement["format"] == container.FORMAT


def test_a_fingerprint_is_that_of_what_was_saved(tmp_path):
    arrays, header = {"values": np.arange(6, dtype=np.float32)}, {"steps": 1}
    other = {"values": np.array([0, 1, 2, 3, 4, 6], np.float32)}
    made = [
        (arrays, header),
        (arrays, header),
        (other, header),
        (arrays, {"steps": 2}),
        ({"x": arrays["values"]}, header),
    ]
    for number, (one, stated) in enumerate(made):
        save(tmp_path / str(number), one, stated)
    first, again, *others = (fingerprint(tmp_path / str(number)) for number in range(len(made)))
    assert first == again
    assert len({first, *others}) == 4
    with pytest.raises(ValueError, match="cannot be read"):
        fingerprint(tmp_path / "none")
