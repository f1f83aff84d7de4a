"""Killed at any moment, the same command again ends in the same bits as if nothing had happened."""

import json
import os
import subprocess
import sys
from pathlib import Path

from sims.fact_files import write_facts

PROGRAM = Path(__file__).parent / "memory_program.py"


def test_a_killed_command_given_again_ends_in_the_same_bits(tmp_path):
    rows = [(f"number {number}?", f"answer {number * 7919 % 1009}") for number in range(48)]
    facts, more = tmp_path / "facts.csv", tmp_path / "more.csv"
    write_facts(facts, *zip(*rows[:40], strict=True))
    write_facts(more, *zip(*rows[40:], strict=True))
    cache = {
        "JAX_ENABLE_COMPILATION_CACHE": "true",
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "programs"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "PYTHONPATH": str(PROGRAM.parents[2]),
    }
    command = [sys.executable, PROGRAM, facts, more, tmp_path / "whole", tmp_path / "interrupted"]
    done = subprocess.run(command, env=os.environ | cache, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    stages = json.loads(done.stdout)
    assert [len(killed) for killed, _, _ in stages.values()] == [12, 3, 2, 1]
    for killed, whole, interrupted in stages.values():
        assert all(killed), killed  # at every point, or the test says nothing about it
        assert whole.keys() == interrupted.keys()  # nothing is left over either
        assert whole == interrupted
    states = [whole["bank.safetensors/values"] for _, whole, _ in stages.values()]
    assert len(set(states)) == 3  # each command changed the bank, and the last one took the third one's change back
    assert states[1] == states[3]
