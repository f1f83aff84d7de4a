"""The command construct through its runner, and the file it writes."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from safetensors import safe_open
from safetensors.numpy import save_file

from theory import explicit_networks
from theory.console import Refusal
from theory.construct_command import construct, read_construction


def run(path, *arguments):
    return CliRunner().invoke(construct, [*map(str, arguments), "--out", str(path)])


@pytest.mark.parametrize("form", ["table", "keys", "next-token"])
@pytest.mark.parametrize(
    "kind", [("--decoding", "greedy"), ("--decoding", "sampled", "--loss-cap", 4), ("--calibrated",)]
)
def test_builds_evaluates_saves_and_reads_back(form, kind, tmp_path):
    path = tmp_path / "new" / "network.safetensors"
    result = run(path, "--facts", 120, "--answers", 9, "--form", form, "--json", *kind)
    assert result.exit_code == 0, result.output
    shown = json.loads(result.output)
    assert shown["reached"] is True
    assert shown["evaluations"]["JAX float64"]["miss"] < 1e-12 < shown["evaluations"]["JAX float32"]["miss"]
    network, labels, frequencies, header = read_construction(path)
    again = explicit_networks.evaluate(network, labels, frequencies)
    assert again.mean_loss_nats == header["evaluation"]["mean_loss_nats"]
    assert abs(again.mean_loss_nats - 0.9) < 1e-12
    assert header["form"] == form
    assert header["calibrated"] == ("--calibrated" in kind)
    assert all(array.dtype == np.float64 for array in network)


def test_the_same_point_is_the_same_file(tmp_path):
    for name in ("a", "b"):
        assert run(tmp_path / name, "--facts", 50, "--answers", 8, "--form", "keys", "--seed", 3).exit_code == 0
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_prints_what_was_wanted_and_reached(tmp_path):
    result = run(tmp_path / "a.safetensors", "--facts", 50, "--answers", 8)
    assert result.exit_code == 0
    assert "H_greedy" in result.output
    assert "JAX float32" in result.output
    assert "H_map" in run(tmp_path / "a.safetensors", "--facts", 90, "--answers", 8, "--calibrated").output
    with safe_open(tmp_path / "a.safetensors", framework="numpy") as file:
        assert json.loads(file.metadata()["construction"])["error_rate"] == 0.4


def test_refusals_write_nothing(tmp_path):
    path = tmp_path / "a.safetensors"
    for arguments in (
        ("--hallucination", 0.4004),
        ("--loss", 0.1),
        ("--loss", "nan"),
        ("--hallucination", "nan"),
        ("--loss", "inf"),
        ("--loss-cap", "nan"),
        ("--form", "keys", "--facts", 5000),
        ("--calibrated", "--loss-cap", 3),
    ):
        result = run(path, *arguments)
        assert isinstance(result.exception, Refusal) or result.exit_code == 2, arguments
        assert not path.exists()
    (tmp_path / "file").write_text("x")
    assert isinstance(run(tmp_path / "file" / "a.safetensors", "--facts", 50).exception, Refusal)


def test_rounding_that_breaks_a_tie_is_reported(tmp_path):
    """Wrong facts at exactly ln 2 are ties; random keys do not keep all of them, and the command says so."""
    loss = 100 * np.log(2) / 200
    exact = run(tmp_path / "a", "--loss", repr(float(loss)), "--hallucination", 0.5, "--facts", 200, "--json")
    assert exact.exit_code == 0
    broken = run(
        tmp_path / "a", "--loss", repr(float(loss)), "--hallucination", 0.5, "--facts", 200, "--form", "keys", "--json"
    )
    assert broken.exit_code == 1
    assert json.loads(broken.output)["reached"] is False


def test_foreign_files_are_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    with pytest.raises(Refusal, match="not a file"):
        read_construction(path)
    path.write_bytes(b"not safetensors")
    with pytest.raises(Refusal, match="not a file"):
        read_construction(path)
    for metadata in (None, {"construction": "{"}, {"construction": "[]"}, {"construction": '{"format": "other"}'}):
        save_file({"table": np.zeros((2, 2))}, path, metadata=metadata)
        with pytest.raises(Refusal, match=r"not a file|does not say"):
            read_construction(path)
    save_file(
        {"table": np.zeros((2, 2))},
        path,
        metadata={"construction": json.dumps({"format": "loss-threshold construction 1", "form": "table"})},
    )
    with pytest.raises(Refusal, match="frequencies, labels missing"):
        read_construction(path)
