"""The work of `loss-threshold verify`: attack claims on several processes, prove their inequalities, keep a record.

What came out of one claim is a *report*, a plain dictionary: it crosses processes and goes into JSON as it is.
"""

import hashlib
import importlib
import inspect
import json
import math
import multiprocessing
import signal
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path
from typing import Any

from theory.claims import Check, Claim, check, get
from theory.console import Refusal
from theory.proof import Inequality, Proof, inequalities, prove
from theory.search import Example

Report = dict[str, Any]


def verify(name: str, *, examples: int, seed: int, with_proofs: bool) -> Report:
    """Attack one claim, and prove its inequalities if asked; the same whatever process runs it."""
    claim, start = get(name), time.perf_counter()
    result = check(claim, examples=examples, seed=seed)
    proofs = [(one, prove(one)) for one in inequalities().get(name, [])] if with_proofs else None
    return {
        **_report(claim, result),
        "proofs": None if proofs is None else [_proof_report(one, proof) for one, proof in proofs],
        "passed": result.passed and all(proof.proved for _, proof in proofs or ()),
        "asked": {"examples": examples, "seed": seed, "proofs": with_proofs, "code": code_of(claim)},
        "seconds": time.perf_counter() - start,
    }


def _report(claim: Claim, result: Check) -> Report:
    return {
        "claim": result.claim,
        "title": claim.title,
        "kind": claim.kind,
        "status": claim.status,
        "verdict": result.verdict,
        "examples": result.examples,
        "smallest_slack": _finite(result.smallest_slack),
        "tolerance": result.tolerance,
        "sharp": result.sharp,
        "witnesses": result.witnesses,
        "witness_gap": _finite(result.witness_gap),
        "control_examples": result.control_examples,
        "counterexample": _example(result.counterexample),
        "control_counterexample": _example(result.control_counterexample),
    }


def _example(found: Example | None) -> Report | None:
    if found is None:
        return None
    tape = None if found.tape is None else [float(number) for number in found.tape]
    return {"case": repr(found.case), "slack": _finite(found.slack), "replay": tape}


def _proof_report(one: Inequality, proof: Proof) -> Report:
    return asdict(proof) | {
        "smallest_margin": _finite(proof.smallest_margin),
        "smallest_derivative": _finite(proof.smallest_derivative),
        "where": None if proof.where is None else [[str(low), str(high)] for low, high in proof.where],
        "statement": one.statement,
        "box": one.domain,
        "edges": [{"variable": e.variable, "at": str(e.at), "order": e.order, "why": e.why} for e in one.edges],
    }


def _finite(number: float) -> float | None:
    return float(number) if math.isfinite(number) else None


def code_of(claim: Claim) -> str:
    """A fingerprint of the code that states, searches and proves `claim`: its module and the modules of the theory that
    this one names.
    """
    own = type(claim).__module__
    used = {own, "theory.claims", "theory.search", "theory.proof", "theory.box_proofs"}
    for value in vars(importlib.import_module(own)).values():
        name = value.__name__ if inspect.ismodule(value) else getattr(value, "__module__", None)
        if isinstance(name, str) and name.startswith("theory."):
            used.add(name)
    digest = hashlib.sha256()
    for name in sorted(used):
        digest.update(inspect.getsource(importlib.import_module(name)).encode())
    return digest.hexdigest()[:16]


def verified(
    names: Sequence[str], *, examples: int, seed: int, with_proofs: bool, processes: int
) -> Iterator[tuple[Report, list[str]]]:
    """Reports as they are finished, each with the names that are being worked on then.

    One process, or one claim, is done here; several share a pool of fresh interpreters.
    """
    asked = {"examples": examples, "seed": seed, "with_proofs": with_proofs}
    if min(processes, len(names)) <= 1:
        for place, name in enumerate(names):
            yield verify(name, **asked), list(names[place + 1 : place + 2])
        return
    spawn = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(processes, len(names)), spawn, initializer=_end_on_interrupt)
    try:
        tasks: dict[Future[Report], str] = {pool.submit(verify, name, **asked): name for name in names}
        for task in as_completed(tasks):
            yield task.result(), [name for other, name in tasks.items() if other.running()]
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _end_on_interrupt() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a worker ends without a traceback of its own


class Record:
    """A file of reports, one JSON document a line. A line counts as long as the claim's code is what it was."""

    def __init__(self, path: Path):
        self.path = path

    def reports(self, names: Sequence[str], *, examples: int, seed: int, with_proofs: bool) -> dict[str, Report]:
        """By claim, what the record has for just this search by just this code."""
        found = {}
        for report in self._lines():
            if (name := report["claim"]) in names:
                asked = {"examples": examples, "seed": seed, "proofs": with_proofs, "code": code_of(get(name))}
                if report["asked"] == asked:
                    found[name] = report
        return found

    def add(self, report: Report) -> None:
        """Append a report. Raises Refusal if the file cannot be written."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(report, allow_nan=False) + "\n")
        except OSError as error:
            raise Refusal(f"{self.path}: cannot be written ({error.strerror}); choose another --record") from error

    def _lines(self) -> Iterator[Report]:
        if not self.path.exists():
            return
        try:
            lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
        except (OSError, UnicodeDecodeError) as error:
            raise Refusal(f"{self.path}: cannot be read as a record of verify; choose another --record") from error
        for number, line in enumerate(lines, 1):
            try:
                report = json.loads(line)
                if not {"claim", "asked", "passed", "verdict"} <= report.keys():
                    raise ValueError
            except (ValueError, AttributeError) as error:
                raise Refusal(
                    f"{self.path}, line {number}: not a report of verify; remove the line, or choose another --record"
                ) from error
            yield report
