"""Anybody's per-fact losses, held against every claim that applies to them.

Letters as in `theory.decoding` and `theory.capacity`: n facts, V answers, L mean loss in nats, B bits that describe the
weights, t failure bits. The inputs are measurements: losses are known to a *resolution* only (float32 logits give about
1e-5 nats), and a claim counts as violated only beyond it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theory import capacity, decoding
from theory.claims import all_claims
from theory.rounding import LN2, counted, non_negative

Verdict = Literal["holds", "violated", "does not apply"]


@dataclass(frozen=True)
class Finding:
    """What one claim says of one run, with the numbers, or why it says nothing."""

    claim: str
    verdict: Verdict
    detail: str


@dataclass(frozen=True)
class Judgment:
    """One run: its loss, both hallucination rates, and a finding for every claim."""

    facts: int
    mean_loss_nats: float
    hallucination_greedy: tuple[float, float]  # the two are equal if greedy decoding was recorded; else by T1
    hallucination_sampled: float
    entropy_floor_nats: float | None
    findings: tuple[Finding, ...]

    @property
    def violated(self) -> tuple[str, ...]:
        """Names of the claims that do not hold: a bug in the measurement, or a false assumption."""
        return tuple(finding.claim for finding in self.findings if finding.verdict == "violated")


@dataclass(frozen=True)
class _Run:
    """The measurements of one run, checked."""

    losses: NDArray[np.float64]
    right: NDArray[np.bool_] | None
    answers: int | None
    tokens: NDArray[np.float64] | None
    entropy: NDArray[np.float64] | None
    described_bits: float | None
    random_labels: bool
    answer_counts: Sequence[int] | None
    all_facts: bool
    failure_bits: float
    audits: int
    resolution: float

    @property
    def facts(self) -> int:
        return len(self.losses)

    @property
    def mean_loss(self) -> float:
        return math.fsum(self.losses) / self.facts

    @property
    def mean_loss_between(self) -> tuple[float, float]:
        """Mean loss, less and more the resolution."""
        return max(0.0, self.mean_loss - self.resolution), self.mean_loss + self.resolution

    @property
    def wrong(self) -> int | None:
        return None if self.right is None else int((~self.right).sum())

    @property
    def several_tokens(self) -> bool:
        return self.tokens is not None and bool(np.any(self.tokens > 1))

    @property
    def surely_right(self) -> NDArray[np.bool_]:
        return self.losses < LN2 - self.resolution

    @property
    def surely_wrong(self) -> NDArray[np.bool_]:
        """An answer of S tokens that is decoded right has a loss below S ln V."""
        if self.answers is None:
            return np.zeros(self.facts, dtype=np.bool_)
        lengths = np.ones(self.facts) if self.tokens is None else self.tokens
        return self.losses >= lengths * math.log(self.answers) + self.resolution


def judge(
    losses_nats: ArrayLike,
    greedy_correct: ArrayLike | None = None,
    *,
    answers: int | None = None,
    tokens: ArrayLike | None = None,
    described_bits: float | None = None,
    entropy_nats: ArrayLike | None = None,
    random_labels: bool = False,
    answer_counts: Sequence[int] | None = None,
    all_facts: bool = True,
    failure_bits: float = 40.0,
    audits: int = 1,
    resolution_nats: float = 1e-5,
) -> Judgment:
    """Hold the losses of one run, shape (n,), against every claim.

    losses_nats: -ln of the probability of each fact's answer; of an answer of several tokens the *sum*, end token
    included. greedy_correct: whether greedy decoding gave exactly the answer (a tie is an error). Without it T1 gives
    an interval. answers: V, the number of possible answers; with `tokens` the size of the vocabulary. Without it no
    loss is surely wrong. tokens: tokens of each answer, end token included. described_bits: B, everything
    label-dependent that evaluation needs; with `random_labels` the labels were drawn uniformly and independently, or,
    with `answer_counts`, are a random order of a fixed collection; else T7, T8, T11, F1 are silent. entropy_nats:
    entropy of the answers that the data hold for each fact's question; 0 where there is one answer. all_facts: whether
    these are all facts of the run, or a part that was fixed beforehand.

    ValueError for NaN, negative or missing values and for lengths that differ. An infinite loss is legal.

    >>> judge([0.1, 0.2, 3.0], [True, True, False], answers=32).violated
    ()
    >>> judge([0.1, 0.2, 3.0], [False, True, False], answers=32).violated
    ('T1',)
    """
    losses = np.atleast_1d(non_negative("losses_nats", losses_nats))
    if losses.ndim != 1 or losses.size == 0:
        raise ValueError("losses_nats must be a non-empty list of numbers")
    run = _Run(
        losses=losses,
        right=None if greedy_correct is None else _same_length("greedy_correct", _booleans(greedy_correct), losses),
        answers=None if answers is None else int(counted("answers", answers, least=2)),
        tokens=None if tokens is None else _same_length("tokens", counted("tokens", tokens), losses),
        entropy=None
        if entropy_nats is None
        else _same_length("entropy_nats", non_negative("entropy_nats", entropy_nats), losses),
        described_bits=None if described_bits is None else float(non_negative("described_bits", described_bits)),
        random_labels=random_labels,
        answer_counts=answer_counts,
        all_facts=all_facts,
        failure_bits=float(non_negative("failure_bits", failure_bits)),
        audits=int(counted("audits", audits)),
        resolution=float(non_negative("resolution_nats", resolution_nats)),
    )
    known = None if run.wrong is None else (run.wrong / run.facts, run.wrong / run.facts)
    return Judgment(
        facts=run.facts,
        mean_loss_nats=run.mean_loss,
        hallucination_greedy=known or (float(run.surely_wrong.mean()), 1.0 - float(run.surely_right.mean())),
        hallucination_sampled=float(-np.expm1(-losses).mean()),
        entropy_floor_nats=None if run.entropy is None else math.fsum(run.entropy) / run.facts,
        findings=_findings(run),
    )


def _findings(run: _Run) -> tuple[Finding, ...]:
    """One finding per registered claim, in the order of the registry."""
    findings = []
    for name, claim in all_claims().items():
        test = _TESTS.get(name)
        outcome = test(run) if test else f"a table of losses does not show what it is about: {claim.title}"
        if isinstance(outcome, str):
            findings.append(Finding(name, "does not apply", outcome))
        else:
            holds, detail = outcome
            findings.append(Finding(name, "holds" if holds else "violated", detail))
    return tuple(findings)


# A test returns why its claim does not apply, or whether it holds and the numbers.
_Outcome = str | tuple[bool, str]

_NO_GREEDY = "greedy decoding was not recorded (greedy_correct)"
_NO_ANSWERS = "the number of possible answers is not given"


def _one_fact(run: _Run) -> _Outcome:
    if run.right is None:
        return f"{_NO_GREEDY}; it gives the interval of the greedy rate"
    against = (run.surely_right & ~run.right) | (run.surely_wrong & run.right)
    if against.any():
        first = int(np.flatnonzero(against)[0])
        word = "right" if run.right[first] else "wrong"
        detail = f"{int(against.sum())} facts contradict it, first number {first + 1}: "
        return False, detail + f"loss {run.losses[first]:.6g} nats and decoded {word}"
    decided = int((run.surely_right | run.surely_wrong).sum())
    return True, f"{decided} of {run.facts} verdicts follow from the loss, all as decoded"


def _mean_loss_greedy(run: _Run) -> _Outcome:
    if run.wrong is None:
        return _NO_GREEDY
    if run.several_tokens:
        return "answers have several tokens: see T4"
    low, high = run.mean_loss_between
    answers = run.answers or 2**53  # with V unknown nothing but the upper end is used
    fewest = decoding.greedy_error_counts(low, facts=run.facts, answers=answers)[0] if run.answers else 0
    most = decoding.greedy_error_counts(high, facts=run.facts, answers=answers)[1]
    return bool(fewest <= run.wrong <= most), f"{run.wrong} wrong, possible are {int(fewest)} to {int(most)}"


def _mean_loss_sampled(run: _Run) -> _Outcome:
    rate = float(-np.expm1(-run.losses).mean())
    low, high = decoding.sampled_error_rates(run.mean_loss, facts=run.facts)
    inside = bool(low - 1e-12 <= rate <= high + 1e-12)
    return inside, f"rate {rate:.4g}, possible are {float(low):.4g} to {float(high):.4g} (same losses: arithmetic only)"


def _many_tokens(run: _Run) -> _Outcome:
    if run.wrong is None:
        return _NO_GREEDY
    if not run.several_tokens:
        return "every answer has one token: see T2" if run.tokens is not None else "no token counts are given (tokens)"
    most = int(decoding.wrong_fact_count_upper(run.mean_loss_between[1], run.facts, 1))
    return run.wrong <= most, f"{run.wrong} wrong, at most {most} possible"


def _no_random_labels(run: _Run) -> str | None:
    """Why the capacity claims say nothing about this run."""
    if run.described_bits is None:
        return "the size of the weights in bits is not given (described_bits)"
    if not run.random_labels:
        return "not certifiable: the labels are not declared random (random_labels)"
    if run.several_tokens:
        return "answers have several tokens: the number of possible whole answers is not known"
    if not run.all_facts:
        return "the table holds only a part of the run's facts"
    return None if run.answers or run.answer_counts else _NO_ANSWERS


def _no_uniform_labels(run: _Run) -> str | None:
    reason = _no_random_labels(run)
    return reason or ("the labels are permuted, not independent: see T11" if run.answer_counts else None)


def _capacity_loss(run: _Run) -> _Outcome:
    if reason := _no_uniform_labels(run):
        return reason
    bits, answers = _given(run.described_bits), _given(run.answers)
    least = capacity.loss_lower_nats(run.facts, bits, answers, run.failure_bits)
    return bool(run.mean_loss_between[1] >= least), f"loss {run.mean_loss:.4g} nats, at least {float(least):.4g}"


def _capacity_errors(run: _Run) -> _Outcome:
    if reason := _no_uniform_labels(run) or (_NO_GREEDY if run.wrong is None else None):
        return reason
    bits, answers, wrong = _given(run.described_bits), _given(run.answers), _given(run.wrong)
    log2_chance = capacity.few_errors_log2_probability(int(wrong), run.facts, bits, int(answers))
    detail = f"{wrong} errors or fewer have probability at most 2^{log2_chance:.4g}"
    return log2_chance >= -run.failure_bits, detail


def _error_floor(run: _Run) -> _Outcome:
    if reason := _no_uniform_labels(run):
        return reason
    bits, answers = _given(run.described_bits), _given(run.answers)
    least = float(capacity.error_lower(run.facts, bits, answers, run.failure_bits))
    sampled = float(-np.expm1(-run.losses).mean())
    rates = [sampled + run.resolution] + ([] if run.wrong is None else [run.wrong / run.facts])
    return min(rates) >= least, f"smallest rate {min(rates):.4g}, at least {least:.4g}"


def _certified_bits(run: _Run) -> _Outcome:
    if reason := _no_random_labels(run):
        return reason
    certificate = capacity.certify(
        run.facts * run.mean_loss_between[1] / LN2,
        run.facts,
        run.answers or 2,  # not used when the answers are counted
        _given(run.described_bits),
        run.failure_bits,
        run.audits,
        answer_counts=run.answer_counts,
    )
    detail = f"{certificate.memorized_bits:.6g} bits memorized, at most {certificate.allowed_bits:.6g} allowed"
    return certificate.holds, detail


def _conflict_floor(run: _Run) -> _Outcome:
    if run.entropy is None:
        return "the entropy of each question's answers is not given (entropy_nats)"
    floor = math.fsum(run.entropy) / run.facts
    return run.mean_loss_between[1] >= floor, f"loss {run.mean_loss:.4g} nats, floor {floor:.4g}"


_TESTS = {
    "T1": _one_fact,
    "T2": _mean_loss_greedy,
    "T3": _mean_loss_sampled,
    "T4": _many_tokens,
    "F5": _conflict_floor,
    "T7": _capacity_loss,
    "T8": _capacity_errors,
    "F1": _error_floor,
    "T11": _certified_bits,
}


def _given(number: float | None) -> float:
    if number is None:
        raise TypeError("a test read a number that its reasons for not applying should have caught")
    return number


def _booleans(values: ArrayLike) -> NDArray[np.bool_]:
    flags = np.atleast_1d(np.asarray(values))
    if flags.dtype != np.bool_ and not np.all((flags == 0) | (flags == 1)):
        raise ValueError("greedy_correct must hold true and false only")
    return flags.astype(np.bool_)


def _same_length(name: str, values: NDArray, losses: NDArray) -> NDArray:
    if values.shape != losses.shape:
        raise ValueError(f"{name} must have one value per loss: {values.size} values, {losses.size} losses")
    return values
