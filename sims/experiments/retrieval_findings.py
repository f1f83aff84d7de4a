"""What looking facts up came to: what the paper's abstract says of grounding and of memory experts, put to the test."""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from sims.experiments.experiment import Evidence, Measurements
from sims.experiments.finding import (
    PAPER,
    Finding,
    Verdict,
    exactly,
    geometric_over_seeds,
    over_seeds,
    share_over_seeds,
    within,
)
from sims.experiments.phrasing import SOURCE
from sims.intervals import Interval, wilson
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
    """Share of all questions asked by these metrics.

    Generated facts are new for every seed: Wilson's interval of all questions. Those of a file are drawn from the same
    file again and again: Student's interval over the seeds.
    """
    asked = np.array([[int(run.spec[_WRONG.get(name, "facts")]) for name in names] for run in runs])
    if not asked.sum():
        return exactly(math.nan)
    counts = asked * np.array([_metric(runs, name) for name in names]).T
    if not _new_every_seed(runs):
        return share_over_seeds(counts.sum(axis=1) / asked.sum(axis=1))
    low, high = wilson(counts.sum(), asked.sum())
    return Interval(float(counts.sum() / asked.sum()), float(low), float(high))


def _new_every_seed(runs: list[Result]) -> bool:
    return all(run.spec["source"] == SOURCE for run in runs)


def _over(runs: list[Result]) -> str:
    return "questions" if _new_every_seed(runs) else "seeds"


def _gain(more: list[Result], less: list[Result], name: str) -> Interval:
    """How much more one method has than another of the same questions: difference within each seed, over the seeds."""
    of = [
        {run.spec["seed"]: value for run, value in zip(runs, _metric(runs, name), strict=True)} for runs in (more, less)
    ]
    both = sorted(of[0].keys() & of[1].keys())
    return over_seeds(of[0][seed] - of[1][seed] for seed in both) if both else exactly(math.nan)


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
        over = _over(runs[method])
        yield Finding(claim, _ABSTRACT, "1", right, "share", verdict, over=over, at=method)
        false = _share(runs[method], "answered_unknown")
        verdict, on = within(false, -math.inf, _WANTED)
        claim = "unknown questions are answered no more often than was asked for"
        yield Finding(claim, "T20", f"at most {_WANTED:g}", false, "share", verdict, on, over=over, at=method)


def _grounding(runs: dict[str, list[Result]]) -> Iterator[Finding]:
    """Is there always something that is answered wrongly? One method without is enough to deny it."""
    for method in (name for name in _GROUNDED if name in runs):
        wrong = _share(runs[method], *_WRONG)
        verdict: Verdict = "agrees" if wrong.mean > 0 else "disagrees"
        claim = "looking up mitigates hallucination, it does not eliminate it: wrong answers"
        found = _share(runs[method], "paraphrase_right").mean
        on = f"and finds {found:.0%} of the facts asked in other words"
        over = "all questions" if _new_every_seed(runs[method]) else "seeds"
        yield Finding(claim, _ABSTRACT, "> 0", wrong, "share", verdict, on, over=over, at=method)


def _other_words(runs: dict[str, list[Result]], metric: str, words: str) -> Iterator[Finding]:
    """What only likeness can find: the best memory against the best index, and what each pays in wrong answers."""
    indexes = [name for name in _GROUNDED if name in runs]
    memories = [name for name in runs if name.startswith(_MEMORY)]
    if not indexes or not memories:
        return
    right = {name: _share(runs[name], metric) for name in (*indexes, *memories)}
    index, memory = (max(names, key=lambda name: right[name].mean) for names in (indexes, memories))
    more = _gain(runs[memory], runs[index], metric)
    wrong = [_share(runs[name], "paraphrase_wrong").mean for name in (memory, index)]
    verdict, chance = within(more, 0.0, math.inf)
    if verdict == "agrees" and metric == "paraphrase_right" and wrong[0] > wrong[1] + _WANTED:
        verdict = "depends on"  # what a wrong answer costs
    on = f"{memory} {right[memory].mean:.3f}, {index} {right[index].mean:.3f}"
    if metric == "paraphrase_right":
        on += f"; wrong answers {wrong[0]:.3f} and {wrong[1]:.3f}"
    on = f"{chance}; {on}" if chance else on
    claim = f"memory experts find more facts asked in other words than an index does, {words}"
    yield Finding(claim, "asked here", "> 0", more, "difference of shares", verdict, on)


def notes(evidence: "Evidence[Looked]") -> list[str]:
    """How methods are chosen, and where a gate cannot be set."""
    found = ["the best memory and the best index are chosen by the same numbers that are shown"]
    facts = min((int(result.spec["facts"]) for _, result in evidence.finished), default=_ENOUGH_FACTS)
    if facts < _ENOUGH_FACTS:
        found.append(
            f"of {facts} facts a memory holds out too few to set its own gate at 1 %: likeness opens it for none"
        )
    return found


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
