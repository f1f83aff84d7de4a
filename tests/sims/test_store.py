"""The store: a set of runs that survives kills and refuses what is not its own."""

import sqlite3
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sims.store import SCHEMA, Result, Store, canonical_json, fingerprint, table
from theory.console import Refusal


def _result(size: int = 1, loss: float = 0.5, **more) -> Result:
    curve = np.arange(3, dtype=np.float64) * loss
    return Result("test-run", {"size": size, "rate": 0.1}, "finished", {"loss": loss, **more}, {"curve": curve})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), JSON))
def test_a_fingerprint_does_not_depend_on_the_order_of_keys(spec):
    backwards = dict(reversed(spec.items()))
    assert fingerprint("a", spec) == fingerprint("a", backwards)
    assert fingerprint("a", spec) != fingerprint("b", spec)


def test_nan_has_no_canonical_json():
    with pytest.raises(ValueError, match="JSON"):
        canonical_json({"a": float("nan")})


def test_what_is_put_comes_back_bit_for_bit(tmp_path):
    result = _result(loss=0.1 + 0.2)
    with Store(tmp_path / "runs.sqlite") as store:
        store.put(result)
    with Store(tmp_path / "runs.sqlite") as store:
        (read,) = store.results()
        arrays = store.arrays(read.fingerprint)
    assert (read.spec, read.metrics, read.status) == (result.spec, result.metrics, "finished")
    assert arrays["curve"].tobytes() == result.arrays["curve"].tobytes()


def test_the_same_again_changes_nothing_and_another_result_is_refused(tmp_path):
    with Store(tmp_path / "runs.sqlite") as store:
        store.put(_result())
        store.put(_result())
        assert len(store) == 1
        with pytest.raises(Refusal, match="other results"):
            store.put(_result(loss=0.6))
        changed = _result()
        changed.arrays["curve"][1] += 1  # the metrics agree, an array does not
        with pytest.raises(Refusal, match="other results"):
            store.put(changed)
        assert [run.metrics["loss"] for run in store.results()] == [0.5]


def test_missing_and_delete(tmp_path):
    with Store(tmp_path / "runs.sqlite") as store:
        store.put(_result(1))
        names = [_result(size).fingerprint for size in (1, 2)]
        assert store.missing(names) == names[1:]
        assert store.delete(names) == 1
        assert len(store) == 0
        assert store.arrays(names[0]) == {}


@pytest.mark.parametrize("content", [b"not a store at all", b"SQLite format 3\x00 and then nonsense" * 40])
def test_a_foreign_or_damaged_file_is_refused_and_left_alone(tmp_path, content):
    path = tmp_path / "runs.sqlite"
    path.write_bytes(content)
    with pytest.raises(Refusal, match=r"runs\.sqlite: .*--store"):
        Store(path)
    assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


def test_another_programs_database_is_refused(tmp_path):
    path = tmp_path / "runs.sqlite"
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE theirs(x)")
    other.close()
    before = path.read_bytes()
    with pytest.raises(Refusal, match="not a store of runs"):
        Store(path)
    assert path.read_bytes() == before


def test_a_newer_schema_is_refused(tmp_path):
    path = tmp_path / "runs.sqlite"
    Store(path).close()
    with sqlite3.connect(path) as newer:
        newer.execute(f"PRAGMA user_version={SCHEMA + 1}")
    newer.close()
    with pytest.raises(Refusal, match="newer"):
        Store(path)


def test_a_truncated_store_is_refused(tmp_path):
    path = tmp_path / "runs.sqlite"
    with Store(path) as store:
        for size in range(50):
            store.put(_result(size))
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(Refusal, match="damaged"):
        Store(path)


def test_a_directory_is_refused(tmp_path):
    (tmp_path / "runs.sqlite").mkdir()
    with pytest.raises(Refusal, match=r"not a file|cannot"):
        Store(tmp_path / "runs.sqlite")


@pytest.mark.parametrize("place", ["facts.csv/runs.sqlite", "facts.csv/new/runs.sqlite", "x" * 300])
def test_a_place_where_no_store_can_be_is_refused(place, tmp_path):
    (tmp_path / "facts.csv").write_text("question,answer\n")
    with pytest.raises(Refusal, match=r"cannot be opened \(.*\); make room, check permissions, or name another"):
        Store(tmp_path / place)


def test_a_full_disk_is_refused_and_loses_nothing(tmp_path):
    with Store(tmp_path / "runs.sqlite") as store:
        store.put(_result(1))
        store._database.execute("PRAGMA max_page_count=20")
        large = Result("test-run", {"size": 2}, "finished", {}, {"curve": np.ones(10**5)})
        with pytest.raises(Refusal, match=r"runs.sqlite: cannot be written \(database or disk is full\); make room"):
            store.put(large)
        store.put(_result(3))
    with Store(tmp_path / "runs.sqlite") as store:
        assert sorted(run.spec["size"] for run in store.results()) == [1, 3]
        store.put(large)


def test_a_kill_loses_only_what_was_not_put(tmp_path):
    path = tmp_path / "runs.sqlite"
    script = textwrap.dedent("""
        import sys, numpy as np
        from sims.store import Result, Store
        with Store(sys.argv[1]) as store:
            for size in range(10**6):
                store.put(Result("test-run", {"size": size}, "finished", {"loss": 1.0}, {"a": np.ones(9)}))
                print(size, flush=True)
    """)
    writer = subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    while int(writer.stdout.readline()) < 20:
        pass
    time.sleep(0.01)
    writer.kill()
    said = [20, *map(int, writer.stdout.read().split())]
    writer.stdout.close()
    writer.wait()
    with Store(path) as store:
        kept = sorted(run.spec["size"] for run in store.results())
        assert kept == list(range(len(kept)))
        assert len(kept) > said[-1]
        assert all(store.arrays(run.fingerprint)["a"].sum() == 9 for run in store.results())


def test_table_keeps_types_and_marks_what_is_missing():
    runs = [_result(1, capped=True), Result("test-run", {"size": 2, "rate": 0.3}, "diverged", {})]
    columns = table(runs)
    assert columns["size"].dtype == np.int64
    assert columns["rate"].tolist() == [0.1, 0.3]
    assert np.isnan(columns["loss"][1])
    assert columns["status"].tolist() == ["finished", "diverged"]
    assert table([]) == {}


def test_a_store_that_is_just_being_created_is_completed_once(tmp_path):
    path = tmp_path / "runs.sqlite"
    begun = sqlite3.connect(path, isolation_level=None)
    begun.execute("PRAGMA journal_mode=WAL")  # what the other process has written so far
    with Store(path) as store:
        store.put(_result())
    begun.close()
    with Store(path) as store:
        assert len(store) == 1
