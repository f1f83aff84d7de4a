"""Results in one SQLite file: a set of runs, keyed by what was asked for.

A run's fingerprint is the hash of its canonical JSON, so a command trains what is missing and nothing else: resuming,
widening a grid and sharing runs between experiments are the same thing. Each result is one transaction.
"""

import contextlib
import hashlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from theory.console import Refusal

SCHEMA = 1
_APPLICATION = 0x4C54_4852  # "LTHR": marks the file as ours
_TABLES = """
CREATE TABLE runs(
    fingerprint TEXT PRIMARY KEY, kind TEXT NOT NULL, spec TEXT NOT NULL, metrics TEXT NOT NULL,
    status TEXT NOT NULL, environment TEXT NOT NULL
) STRICT;
CREATE TABLE arrays(
    run TEXT NOT NULL REFERENCES runs(fingerprint) ON DELETE CASCADE, name TEXT NOT NULL, dtype TEXT NOT NULL,
    shape TEXT NOT NULL, bytes BLOB NOT NULL, PRIMARY KEY(run, name)
) STRICT;
CREATE INDEX runs_by_kind ON runs(kind);
"""
_REMEDY = "name another file with --store"


def _pragma(database: sqlite3.Connection, name: str) -> Any:
    return database.execute(f"PRAGMA {name}").fetchone()[0]


def _tables_of(database: sqlite3.Connection) -> int:
    return database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]


@contextlib.contextmanager
def _transaction(database: sqlite3.Connection) -> Iterator[None]:
    """All of it happens or none."""
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
        database.execute("COMMIT")
    except BaseException:
        if database.in_transaction:  # a full disk has ended it already
            database.execute("ROLLBACK")
        raise


def canonical_json(spec: Mapping[str, Any]) -> str:
    """The one JSON text of `spec`: keys sorted, no spaces, shortest floats that round-trip, no NaN.

    >>> canonical_json({"b": 0.1, "a": 1})
    '{"a":1,"b":0.1}'
    """
    return json.dumps(spec, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=True)


def fingerprint(kind: str, spec: Mapping[str, Any]) -> str:
    """128 bits in hexadecimal that name a run of this kind and specification."""
    return hashlib.sha256(f"{kind}\n{canonical_json(spec)}".encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Result:
    """What one run gave. `metrics` and `arrays` repeat bit for bit; `environment` says where and how fast it ran."""

    kind: str
    spec: Mapping[str, Any]
    status: str  # finished, diverged
    metrics: Mapping[str, float | int | bool | str | None]
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        """The run's name."""
        return fingerprint(self.kind, self.spec)


class Store:
    """A set of results in one file; a context manager.

    Refused, and left untouched: a file that is not ours or is damaged, a newer schema, the same run with other results.
    """

    def __init__(self, path: Path | str):
        self.path = Path(path)
        with self._refusals("opened"):
            self._database = self._opened()

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; what was put is already on disk."""
        self._database.close()

    def _opened(self) -> sqlite3.Connection:
        is_new = not self.path.exists() or not self.path.stat().st_size
        if is_new:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        else:
            self._check_file()
        database = sqlite3.connect(self.path, isolation_level=None, timeout=30)
        try:
            if is_new:
                database.execute("PRAGMA journal_mode=WAL")
            if is_new or self._is_begun(database):
                self._make_tables(database)
            else:
                self._check_ours(database)
            database.execute("PRAGMA foreign_keys=ON")
            # A kill loses nothing committed; a power cut may lose the last runs.
            database.execute("PRAGMA synchronous=NORMAL")
        except BaseException:
            database.close()
            raise
        return database

    @contextlib.contextmanager
    def _refusals(self, done: str) -> Iterator[None]:
        """What the file system or SQLite cannot do is told in one line."""
        try:
            yield
        except (OSError, sqlite3.OperationalError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            raise Refusal(
                f"{self.path}: cannot be {done} ({why}); make room, check permissions, or {_REMEDY}"
            ) from error
        except sqlite3.DatabaseError as error:
            raise Refusal(f"{self.path}: damaged ({error}); restore a copy, or {_REMEDY}") from error

    def _check_file(self) -> None:
        if not self.path.is_file():
            raise Refusal(f"{self.path}: not a file; {_REMEDY}")
        with self.path.open("rb") as file:
            if file.read(16) != b"SQLite format 3\x00":
                raise Refusal(f"{self.path}: not a store of runs (not an SQLite file); {_REMEDY}")

    @staticmethod
    def _is_begun(database: sqlite3.Connection) -> bool:
        """Whether it is empty: another process has just begun to create it."""
        numbers = (_tables_of(database), _pragma(database, "application_id"), _pragma(database, "user_version"))
        return numbers == (0, 0, 0)

    @staticmethod
    def _make_tables(database: sqlite3.Connection) -> None:
        # Two processes may create the same store at once: the second waits, finds the tables made and leaves them.
        with _transaction(database):
            if not _tables_of(database):
                for statement in filter(None, map(str.strip, _TABLES.split(";"))):
                    database.execute(statement)
                database.execute(f"PRAGMA application_id={_APPLICATION}")
                database.execute(f"PRAGMA user_version={SCHEMA}")

    def _check_ours(self, database: sqlite3.Connection) -> None:
        if _pragma(database, "application_id") != _APPLICATION:
            raise Refusal(f"{self.path}: an SQLite file, but not a store of runs; {_REMEDY}")
        if (schema := _pragma(database, "user_version")) > SCHEMA:
            raise Refusal(f"{self.path}: schema {schema} is newer than {SCHEMA}; upgrade loss-threshold, or {_REMEDY}")
        if (state := _pragma(database, "quick_check(1)")) != "ok":
            raise Refusal(f"{self.path}: damaged ({state}); restore a copy, or {_REMEDY}")

    def put(self, result: Result) -> None:
        """Keep a result. The same run with the same results again changes nothing; with other results it is refused."""
        name = result.fingerprint
        metrics = canonical_json(result.metrics)
        arrays = {key: np.ascontiguousarray(value) for key, value in result.arrays.items()}
        with self._refusals("written"), _transaction(self._database):
            if name in self:
                self._refuse_if_different(name, metrics, arrays)
                return
            row = (name, result.kind, canonical_json(result.spec), metrics, result.status)
            environment = canonical_json(result.environment)
            self._database.execute("INSERT INTO runs VALUES (?, ?, ?, ?, ?, ?)", (*row, environment))
            self._database.executemany(
                "INSERT INTO arrays VALUES (?, ?, ?, ?, ?)",
                [(name, key, a.dtype.str, json.dumps(a.shape), a.tobytes()) for key, a in arrays.items()],
            )

    def _refuse_if_different(self, name: str, metrics: str, arrays: Mapping[str, np.ndarray]) -> None:
        (known,) = self._database.execute("SELECT metrics FROM runs WHERE fingerprint=?", (name,)).fetchone()
        stored = self.arrays(name)
        same = known == metrics and all(
            key in stored and stored[key].tobytes() == array.tobytes() for key, array in arrays.items()
        )
        if not same:
            raise Refusal(
                f"{self.path}: run {name} is stored with other results; another machine or other versions made them: "
                "use a store of your own (--store), or start over with --fresh"
            )

    def __contains__(self, name: object) -> bool:
        return self._database.execute("SELECT 1 FROM runs WHERE fingerprint=?", (name,)).fetchone() is not None

    def __len__(self) -> int:
        return self._database.execute("SELECT count(*) FROM runs").fetchone()[0]

    def missing(self, fingerprints: Iterable[str]) -> list[str]:
        """Those of the named runs that are not stored yet, in their order."""
        return [name for name in fingerprints if name not in self]

    def results(self, kind: str | None = None, names: Iterable[str] | None = None) -> Iterator[Result]:
        """Stored results without their arrays, ordered by fingerprint; all, or one kind, or the named ones."""
        wanted = None if names is None else set(names)
        query = "SELECT fingerprint, kind, spec, metrics, status, environment FROM runs ORDER BY fingerprint"
        for name, of_kind, spec, metrics, status, environment in self._database.execute(query).fetchall():
            if (kind is None or of_kind == kind) and (wanted is None or name in wanted):
                yield Result(of_kind, json.loads(spec), status, json.loads(metrics), {}, json.loads(environment))

    def arrays(self, name: str) -> dict[str, np.ndarray]:
        """The arrays of one run, by name."""
        query = "SELECT name, dtype, shape, bytes FROM arrays WHERE run=? ORDER BY name"
        return {
            key: np.frombuffer(data, dtype=np.dtype(dtype)).reshape(json.loads(shape))
            for key, dtype, shape, data in self._database.execute(query, (name,))
        }

    def delete(self, fingerprints: Iterable[str]) -> int:
        """Forget these runs (what `--fresh` does, for the runs that the command would reuse); returns how many went."""
        before = len(self)
        with self._refusals("written"), _transaction(self._database):
            self._database.executemany("DELETE FROM runs WHERE fingerprint=?", [(name,) for name in fingerprints])
        return before - len(self)


def table(results: Iterable[Result]) -> dict[str, np.ndarray]:
    """Results as columns: fingerprint, kind, status, then spec, metrics and environment, one row a run.

    A value that a run lacks is NaN in a column of numbers and the empty string in a column of text.
    """
    rows = [
        {"fingerprint": r.fingerprint, "kind": r.kind, "status": r.status, **r.spec, **r.metrics, **r.environment}
        for r in results
    ]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    return {name: _column([row.get(name) for row in rows]) for name in columns}


def _column(values: list[Any]) -> np.ndarray:
    present = [value for value in values if value is not None]
    if len(present) == len(values) and all(isinstance(value, bool) for value in values):
        return np.array(values, dtype=bool)
    if len(present) == len(values) and all(isinstance(value, int) for value in values):
        return np.array(values, dtype=np.int64)
    if all(isinstance(value, (int, float)) for value in present):
        return np.array([np.nan if value is None else float(value) for value in values])
    return np.array(["" if value is None else str(value) for value in values], dtype=object)
