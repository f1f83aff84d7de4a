"""What looking facts up came to: what the paper's abstract says of grounding and of memory experts, put to the test."""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from sims.experiments.experiment import Evidence, Measurements
from sims.experiments.finding import PAPER, Finding, Verdict, exactly, geometric_over_seeds, over_seeds
from sims.intervals import Interval, difference, wilson
from sims.store import Result

if TYPE_CHECKING:
    from sims.experiments.retrieval import Looked

_ABSTRACT = f"{PAPER}, abstract"
_MEMORY, _WANTED = "MoME", 0.01
_GROUNDED = ("B-tree", "TF-IDF, words", "TF-IDF, trigrams", "dense, latent", "dense, as MoME")
_ENOUGH_FACTS = 1000  # from here on the gate of a memory was seen to be finite; with 300 facts it is not
# What can go wrong, and how many questions of a run could.
_WRONG = {"stored_wrong": "facts", "paraphrase_wrong": "facts", "answered_unknown": "unknown", "answered_near": "near"}


def by_method(evidence: "Evidence[Looked]") -> dict[str, list[Result]]:
    """The runs of each method, one a seed."""
    found: dict[str, list[Result]] = {}
    for case, result in evidence.finished:
        found.setdefault(case.method, []).append(result)
    return found


def _metric(runs: list[Result], name: str) -> list[float]:
    return [float(run.metrics[name] or 0.0) for run in runs]


def _share(runs: list[Result], *names: str) -> Interval:
    """Share of all questions asked by these metrics, over the seeds, with Wilson's interval."""
    asked = [int(run.spec[_WRONG.get(name, "facts")]) for name in names for run in runs]
    if not sum(asked):
        return exactly(math.nan)
    shares = [share for name in names for share in _metric(runs, name)]
    count = float(np.dot(asked, shares))
    low, high = wilson(count, sum(asked))
    return Interval(count / sum(asked), float(low) if count else 0.0, float(high))


def findings(evidence: "Evidence[Looked]") -> list[Finding]:
    """Every line of the table."""
    runs = by_method(evidence)
    return [
        *_memorizes(runs),
        *_grounding(runs),
        *_other_words(runs, "paraphrase_right", "rejecting what seems unknown"),
        *_other_words(runs, "paraphrase_guessed", "rejecting nothing"),
    ]


def _memorizes(runs: dict[str, list[Result]]) -> Iterator[Finding]:
    for method in (name for name in runs if name.startswith(_MEMORY)):
        right = _share(runs[method], "stored_right")
        verdict: Verdict = "agrees" if right.mean == 1.0 else "disagrees"
        claim = "memory experts give every stored fact back"
        yield Finding(claim, _ABSTRACT, "1", right, "share", verdict, over="questions", at=method)
        false = _share(runs[method], "answered_unknown")
        verdict = "agrees" if false.low <= _WANTED else "disagrees"
        claim = "unknown questions are answered no more often than was asked for"
        yield Finding(claim, "T20", f"at most {_WANTED:g}", false, "share", verdict, over="questions", at=method)


def _grounding(runs: dict[str, list[Result]]) -> Iterator[Finding]:
    """Is there always something that is answered wrongly? One method without is enough to deny it."""
    for method in (name for name in _GROUNDED if name in runs):
        wrong = _share(runs[method], *_WRONG)
        verdict: Verdict = "agrees" if wrong.mean > 0 else "disagrees"
        claim = "looking up mitigates hallucination, it does not eliminate it: wrong answers"
        found = _share(runs[method], "paraphrase_right").mean
        on = f"and finds {found:.0%} of the facts asked in other words"
        yield Finding(claim, _ABSTRACT, "> 0", wrong, "share", verdict, on, over="all questions", at=method)


def _other_words(runs: dict[str, list[Result]], metric: str, words: str) -> Iterator[Finding]:
    """What only likeness can find: the best memory against the best index, and what each pays in wrong answers."""
    indexes = [name for name in _GROUNDED if name in runs]
    memories = [name for name in runs if name.startswith(_MEMORY)]
    if not indexes or not memories:
        return
    right = {name: _share(runs[name], metric) for name in (*indexes, *memories)}
    index, memory = (max(names, key=lambda name: right[name].mean) for names in (indexes, memories))
    more = difference(right[memory], right[index])
    wrong = [_share(runs[name], "paraphrase_wrong").mean for name in (memory, index)]
    verdict: Verdict = "agrees" if more.mean > 0 else "disagrees"
    if verdict == "agrees" and metric == "paraphrase_right" and wrong[0] > wrong[1] + _WANTED:
        verdict = "depends on"  # what a wrong answer costs
    on = f"{memory} {right[memory].mean:.3f}, {index} {right[index].mean:.3f}"
    if metric == "paraphrase_right":
        on += f"; wrong answers {wrong[0]:.3f} and {wrong[1]:.3f}"
    claim = f"memory experts find more facts asked in other words than an index does, {words}"
    yield Finding(claim, "asked here", "> 0", more, "difference of shares", verdict, on, over="questions")


def notes(evidence: "Evidence[Looked]") -> list[str]:
    """Where a gate cannot be set."""
    facts = min((int(result.spec["facts"]) for _, result in evidence.finished), default=_ENOUGH_FACTS)
    if facts >= _ENOUGH_FACTS:
        return []
    return [
        f"of {facts} facts a memory holds out too few to set its own gate at 1 %: likeness opens it for none of them"
    ]


def measurements(evidence: "Evidence[Looked]") -> Measurements:
    """Each method's shares, bytes and times; means over the seeds."""
    rows = []
    for method, runs in by_method(evidence).items():
        shares = [
            _share(runs, name).mean for name in ("stored_right", "paraphrase_guessed", "paraphrase_right", *_WRONG)
        ]
        size = over_seeds(_metric(runs, "bytes_per_fact")).mean
        times = [
            geometric_over_seeds([run.environment[name] for run in runs]).mean * unit
            for name, unit in (("build_seconds", 1.0), ("query_seconds", 1e6))
        ]
        texts = ["-" if math.isnan(share) else f"{share:.3f}" for share in shares]
        rows.append((method, *texts, *(f"{one:.4g}" for one in (size, *times))))
    headings = (
        "method", "stored: right", "other words, forced: right", "other words: right",
        "stored: wrong", "other words: wrong", "unknown subject: answered",
        "unknown fact: answered", "bytes a fact", "build, s", "query, µs",
    )  # fmt: skip
    title = "Shares of questions. Times are this machine's as it was (building includes compiling), all at once"
    return Measurements(title, headings, tuple(rows))
