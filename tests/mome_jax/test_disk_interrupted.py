"""Writes to a bank on disk that are killed, torn or do not fit."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mome_jax import disk, journal
from mome_jax.disk import DiskBank
from mome_jax.saving import load, save

IDS = np.array([2, 3, 11, 7, 499])
OLD, NEW = np.full((5, 4), 1, np.float32), np.full((5, 4), 2, np.float32)

# A child is forked for every place where a write can be killed, and what it leaves is opened by the parent.
_KILLED = """
import itertools, json, os, random, signal, sys, time, warnings
warnings.simplefilter("ignore")
import numpy as np
from mome_jax import disk, journal
path, ids = sys.argv[1], np.array([2, 3, 11, 7, 499])

def dies_at(number, function):
    calls = itertools.count(1)
    return lambda *given: os.kill(os.getpid(), signal.SIGKILL) if next(calls) == number else function(*given)

def left_by(child):
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    with disk.DiskBank.open(path, writable=True) as bank:
        bank.verify()
        return bank.read_rows(ids)

generation = 1.0
points = [(journal, "as_bytes", 2), (journal, "as_bytes", 3), (journal, "_head", 1), (journal.os, "fsync", 1)]
points += [(disk, "_write_all", number) for number in range(1, 10)]  # two for each of four runs of rows, and the sum
points += [(disk.os, "fsync", 2), (journal, "clear", 1)]
for place, name, number in points:
    generation += 1
    child = os.fork()
    if not child:
        bank = disk.DiskBank.open(path, writable=True)
        setattr(place, name, dies_at(number, getattr(place, name)))
        bank.write_rows(ids, np.full((5, 4), generation, np.float32))
        bank.close()
        os._exit(0)
    print(json.dumps([name, number, generation, left_by(child).tolist()]))

for _ in range(10):  # and at any moment
    child = os.fork()
    if not child:
        bank = disk.DiskBank.open(path, writable=True)
        while True:
            generation += 1
            bank.write_rows(ids, np.full((5, 4), generation, np.float32))
    time.sleep(random.random() / 20)
    os.kill(child, signal.SIGKILL)
    rows = left_by(child)
    generation = float(rows.max())
    print(json.dumps(["any", 0, generation, rows.tolist()]))
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with DiskBank.create(tmp_path / "bank", 500, 4) as bank:
        bank.write_rows(IDS, OLD)
    return tmp_path / "bank"


def _rows(path: Path, *, writable: bool) -> np.ndarray:
    with DiskBank.open(path, writable=writable) as bank:
        bank.verify()
        return bank.read_rows(IDS)


def test_a_kill_leaves_all_of_a_write_or_nothing(path):
    command = [sys.executable, "-c", _KILLED, str(path)]
    program = subprocess.run(command, capture_output=True, text=True, check=False)
    assert program.returncode == 0, program.stderr
    found = [json.loads(line) for line in program.stdout.splitlines()]
    assert len(found) == 25
    before = 1.0
    for name, number, generation, rows in found:
        # Until the journal is complete nothing is kept; from then on everything is.
        wanted = before if name in ("as_bytes", "_head") else generation
        assert rows == np.full((5, 4), wanted).tolist(), (name, number)
        before = wanted


@pytest.fixture
def interrupted(path, monkeypatch) -> Path:
    """A bank whose journal is complete, with none of its rows put in place."""
    bank = DiskBank.open(path, writable=True)

    def fail(*_):
        raise OSError("no room")

    with monkeypatch.context() as patched:
        patched.setattr(disk, "_write_all", fail)
        with pytest.raises(ValueError, match=r"cannot be written \(no room\); make room and open it again"):
            bank.write_rows(IDS, NEW)
        with pytest.raises(ValueError, match="a write to it was interrupted"):
            bank.write_rows(IDS, NEW)
    bank.close()
    return path


def test_an_interrupted_write_is_completed_by_the_next_writer(interrupted):
    with pytest.raises(ValueError, match="interrupted; open it once with writable=True"):
        DiskBank.open(interrupted)
    np.testing.assert_array_equal(_rows(interrupted, writable=True), NEW)
    np.testing.assert_array_equal(_rows(interrupted, writable=False), NEW)
    np.testing.assert_array_equal(load(interrupted)[0]["values"][IDS], NEW)


def test_a_torn_or_changed_journal_is_discarded(interrupted):
    file = journal.journal_of(interrupted)
    whole = file.read_bytes()
    torn = [whole[:length] for length in range(0, len(whole), 3)] + [whole[:-1], whole + b"\0"]
    changed = [whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :] for at in range(0, len(whole), 2)]
    for content in torn + changed:
        file.write_bytes(content)
        np.testing.assert_array_equal(_rows(interrupted, writable=False), OLD)
    file.write_bytes(changed[0])
    np.testing.assert_array_equal(_rows(interrupted, writable=True), OLD)
    assert not file.stat().st_size
    file.write_bytes(whole)
    np.testing.assert_array_equal(_rows(interrupted, writable=True), NEW)


def test_a_journal_of_another_bank_is_not_put_here(interrupted, tmp_path):
    DiskBank.create(tmp_path / "other", 500, 4).close()
    journal.journal_of(tmp_path / "other").write_bytes(journal.journal_of(interrupted).read_bytes())
    with pytest.raises(ValueError, match="holds a write to another bank"):
        DiskBank.open(tmp_path / "other", writable=True)
    interrupted.unlink()
    with pytest.raises(ValueError, match="is the journal of a bank that is gone"):
        DiskBank.create(interrupted, 500, 4)


def test_loading_an_interrupted_bank_tells_of_damaged_rows_or_gives_the_old(interrupted):
    np.testing.assert_array_equal(load(interrupted)[0]["values"][IDS], OLD)


def test_a_bank_in_use_is_replaced_by_saving_without_harm(path):
    with DiskBank.open(path) as bank:
        save(path, {"values": np.zeros((1, 1), np.float32)}, {}, overwrite=True)
        np.testing.assert_array_equal(bank.read_rows(IDS), OLD)


_FULL = """
import resource, signal, sys, numpy as np
from mome_jax.disk import DiskBank
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
bank = DiskBank.open(sys.argv[1], writable=True)
resource.setrlimit(resource.RLIMIT_FSIZE, (64, 64))  # as a full disk: the journal cannot grow
try:
    bank.write_rows(np.array([2, 3, 11, 7, 499]), np.full((5, 4), 2, np.float32))
except ValueError as error:
    print(error)
print(bank.read_rows(np.array([2, 499])).tolist())
"""


def test_a_journal_that_does_not_fit_leaves_everything(path):
    program = subprocess.run([sys.executable, "-c", _FULL, str(path)], capture_output=True, text=True, check=True)
    assert "its journal cannot be written" in program.stdout
    assert "nothing was; make room and write again" in program.stdout
    assert program.stdout.endswith("[[1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0]]\n")
    np.testing.assert_array_equal(_rows(path, writable=False), OLD)


_LIMITED = """
import resource, sys, numpy as np
from mome_jax.disk import DiskBank

def peak_bytes():
    return next(1024 * int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))

path, limit, ids = sys.argv[1], int(sys.argv[2]), np.load(sys.argv[3])
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
random = np.random.default_rng(1)
for mapped in (False, True):
    with DiskBank.open(path, mapped=mapped) as bank:
        for lookup in range(1000):
            experts = random.integers(0, bank.experts, 32)
            experts[0] = ids[lookup % ids.size]
            rows = bank.read_rows(experts)
            assert (rows[0] == experts[0] + 1).all()
        assert (bank.read_rows(ids) == ids[:, None] + 1).all()
    print(peak_bytes())
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system does not tell a process's peak memory")
def test_a_bank_of_eight_times_the_limit_is_read_within_it(tmp_path):
    limit = 256 * 2**20
    experts = 8 * limit // 256
    ids = np.unique(np.random.default_rng(0).integers(0, experts, 4000))
    with DiskBank.create(tmp_path / "bank", experts, 64) as bank:
        bank.write_rows(ids, np.repeat(ids[:, None] + 1, 64, axis=1).astype(np.float32))
    np.save(tmp_path / "ids.npy", ids)
    command = [sys.executable, "-c", _LIMITED, str(tmp_path / "bank"), str(limit), str(tmp_path / "ids.npy")]
    program = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ})
    assert program.returncode == 0, program.stderr
    limited, mapped = map(int, program.stdout.split())
    assert limited < limit < mapped  # the second reading is the control: it would be seen
