"""The claim T17 and its kin: generating, judging and calibration, attacked on whole small worlds."""

# ruff: noqa: D102  (what each method of a claim does is said once, in theory/claims.py)

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

import numpy as np

from theory import unseen
from theory.claims import Bound, Identity, Published, Record, register
from theory.search import Draw

_KALAI = "arXiv 2509.04664"
_SUPPORT = "the data hold valid answers only"


@dataclass(frozen=True)
class Question:
    """How often it is asked, and for each answer its weight in the data and in the model; no ratio is ever rounded.

    `data[j]` is the weight of valid answer j; the model's weights are first those of the valid, then of the invalid.
    """

    weight: int
    data: tuple[int, ...]
    valid: tuple[int, ...]
    invalid: tuple[int, ...]

    @property
    def total(self) -> int:
        """Of the model's weights."""
        return sum(self.valid) + sum(self.invalid)

    def called_valid(self, weight: int, threshold: Fraction) -> bool:
        """Whether an answer of this model weight is more probable than `threshold`."""
        return weight > threshold * self.total


@dataclass(frozen=True)
class Validity:
    """A model that was trained on valid answers to a few questions."""

    questions: tuple[Question, ...]

    @property
    def threshold(self) -> Fraction:
        """1 / min|E_c|."""
        return Fraction(1, min(len(question.invalid) for question in self.questions))

    def mean(self, of_question) -> float:
        """The mean over questions as they are asked."""
        total = sum(question.weight for question in self.questions)
        return math.fsum(question.weight * float(of_question(question)) for question in self.questions) / total

    @property
    def error(self) -> float:
        """Probability that the model's answer is invalid."""
        return self.mean(lambda question: sum(question.invalid) / question.total)

    def classification_error(self, threshold: Fraction) -> float:
        """Of the classifier "valid iff the model gives it more than `threshold`", on half data, half uniform errors."""

        def one(question: Question) -> float:
            rejected = sum(
                seen
                for seen, weight in zip(question.data, question.valid, strict=True)
                if not question.called_valid(weight, threshold)
            )
            accepted = sum(question.called_valid(weight, threshold) for weight in question.invalid)
            return 0.5 * rejected / sum(question.data) + 0.5 * accepted / len(question.invalid)

        return self.mean(one)

    @property
    def overconfidence(self) -> float:
        """phat(A) - p(A), A being what the model gives more than 1/min|E_c|."""
        return self.mean(lambda question: self._claimed(question) - self._true(question))

    def _claimed(self, question: Question) -> float:
        weights = (*question.valid, *question.invalid)
        return sum(weight for weight in weights if question.called_valid(weight, self.threshold)) / question.total

    def _true(self, question: Question) -> float:
        pairs = zip(question.data, question.valid, strict=True)
        inside = sum(seen for seen, weight in pairs if question.called_valid(weight, self.threshold))
        return inside / sum(question.data)

    def loss(self, scale: complex) -> complex:
        """Loss in nats on the data after every probability in A was multiplied by `scale` and the rows normalized."""
        total = sum(question.weight for question in self.questions)
        loss = 0.0 + 0.0j
        for question in self.questions:
            weights = np.array((*question.valid, *question.invalid), dtype=np.complex128)
            confident = np.array([question.called_valid(int(weight.real), self.threshold) for weight in weights])
            scaled = np.where(confident, scale, 1.0) * weights
            logs = np.log(scaled[: len(question.valid)] / scaled.sum())
            seen = np.array(question.data, dtype=np.float64)
            loss -= question.weight / total * (seen @ logs) / seen.sum()
        return loss


def _validity(draw: Draw, valid: Sequence[int], invalid: Sequence[int], least: int = 0) -> Validity:
    """Questions with numbers of valid and invalid answers out of `valid` and `invalid`."""

    def question() -> Question:
        right, wrong = draw.choice(valid), draw.choice(invalid)
        data = (draw.integer(1, 5), *(draw.integer(0, 5) for _ in range(right - 1)))
        weights = tuple(draw.choice((1, 0, 2, 3, 8, 40)) for _ in range(right + wrong))
        weights = tuple(max(least, weight) for weight in weights)
        return Question(draw.integer(1, 4), data, weights[:right], weights[right:] if sum(weights) else (1,) * wrong)

    return Validity(tuple(question() for _ in range(draw.integer(1, 3))))


@register
class GenerationAndClassification(Bound[Validity]):
    """A model that answers invalidly with probability err is a classifier of validity (valid iff its probability
    exceeds 1/min|E_c|) of error err_iiv, and err >= 2 err_iiv - max|V_c| / min|E_c| - (phat(A) - p(A)), with A what the
    classifier calls valid; the last term is signed, so a diffident model has it worse.
    """

    name, title, status, source = "T17", "Generating is harder than judging", "proved", f"{_KALAI}, sharpened"
    assumptions = (_SUPPORT, "every question has an invalid answer", "half data, half uniform invalid answers")
    proof = (
        "2 err_iiv = 1 - p(A) + mean of |E_c in A|/|E_c|. The right side becomes phat(not A) + that mean - max|V_c|/"
        "min|E_c|. Invalid answers in A have more than 1/min|E_c| each, so they carry at least the mean; valid ones "
        "outside A at most 1/min|E_c| each, so phat(not A) is at most |V_c|/min|E_c| plus the invalid rest."
    )
    dropped = "the model is taken for calibrated: phat(A) - p(A) is left out"
    tolerance = 1e-14

    def cases(self, draw: Draw) -> Validity:
        return _validity(draw, (1, 2, 3), (1, 2, 3, 5, 8))

    def slack(self, case: Validity) -> float:
        return self._room(case, case.overconfidence)

    def control_slack(self, case: Validity) -> float:
        return self._room(case, 0.0)

    def _room(self, case: Validity, overconfidence: float) -> float:
        most = max(len(question.valid) for question in case.questions)
        fewest = min(len(question.invalid) for question in case.questions)
        error = case.classification_error(case.threshold)
        return case.error - float(unseen.error_lower_from_classification(error, most, fewest, overconfidence))

    def witnesses(self) -> list[Validity]:
        """Valid answers exactly at the threshold, invalid ones below."""
        return [
            Validity((Question(1, (1,), (3,), (2, 2, 2)),)),
            Validity((Question(1, (1, 1), (2, 2), (1, 1, 1, 1)), Question(2, (1, 3), (4, 4), (2, 2, 2, 2)))),
        ]


@register
class CalibrationIsASlope(Identity[Validity]):
    """The price of miscalibration in T17, phat(A) - p(A), is the slope at s = 1 of the loss after all probabilities in
    A are multiplied by s: a model at a minimum of the loss has none.
    """

    name, title, status, source = "T17b", "Miscalibration is a slope of the loss", "proved", _KALAI
    assumptions = (_SUPPORT, "a finite loss")
    proof = (
        "The scaled row has -ln p = -1{in A} ln s - ln phat + ln(1 + (s - 1) phat(A)); its slope is phat(A) - 1{in A}."
    )
    dropped = "the sign is dropped, |phat(A) - p(A)|"

    def cases(self, draw: Draw) -> Validity:
        return _validity(draw, (1, 2, 3), (1, 2, 3, 5, 8), least=1)

    def left(self, case: Validity) -> float:
        return case.overconfidence

    def right(self, case: Validity) -> float:
        """By a complex step, which has no cancellation."""
        return case.loss(1.0 + 1e-30j).imag / 1e-30

    def perturbed(self, case: Validity) -> float:
        return abs(case.overconfidence)

    def error_bound(self, case: Validity) -> float:
        return 1e-14


@register
class MultipleChoice(Identity[Validity]):
    """For multiple choice with C options of which one is right, err = 2 (1 - 1/C) E_t[err_iiv(f_t)], where f_t calls an
    option valid iff its probability exceeds t, and t is uniform on [0, 1].
    """

    name, title, status, source = "T17c", "Multiple choice is classification", "proved", f"{_KALAI}, sharpened"
    assumptions = (_SUPPORT, "one option of each question is right", "as many options for every question")
    proof = (
        "The mean over t of 1{phat > t} is phat. So 2 E_t err_iiv = 1 - phat(right) + phat(wrong)/(C - 1) = "
        "err (1 + 1/(C - 1))."
    )
    dropped = "the number of options varies with the question; C is the smallest"

    def cases(self, draw: Draw) -> Validity:
        return _validity(draw, (1,), (draw.integer(1, 5),))

    def control_cases(self, draw: Draw) -> Validity:
        return _validity(draw, (1,), (1, 2, 5))

    def left(self, case: Validity) -> float:
        """The mean over t is a sum over the steps between the probabilities that occur."""
        options = 1 + min(len(question.invalid) for question in case.questions)
        levels = {Fraction(0), Fraction(1)}
        for question in case.questions:
            levels |= {Fraction(weight, question.total) for weight in (*question.valid, *question.invalid)}
        steps = sorted(levels)
        mean = math.fsum(float(high - low) * case.classification_error(low) for low, high in pairwise(steps))
        return float(unseen.error_from_classification(mean, options))

    def right(self, case: Validity) -> float:
        return case.error

    def perturbed(self, case: Validity) -> float:
        return self.left(case)

    def error_bound(self, case: Validity) -> float:
        return 1e-14


@dataclass(frozen=True)
class Arbitrary:
    """N samples of questions that are equally frequent, and a learner that knows what it saw and answers the rest.

    Of unseen questions it answers `confident` with one answer and `even` with all answers evenly; else it abstains.
    """

    samples: int
    questions: int
    answers: int
    confident: float
    even: float
    seed: int

    def outcome(self) -> tuple[float, float, float]:
        """Singleton share, error rate, phat(A) - p(A)."""
        drawn = np.random.default_rng(self.seed).integers(self.questions, size=self.samples, dtype=np.int32)
        counts = np.bincount(drawn, minlength=self.questions)
        unknown = float(np.mean(counts == 0))
        confident, even = unknown * self.confident, unknown * (1.0 - self.confident) * self.even
        abstained = unknown - confident - even
        guessed_right = 1.0 / self.answers
        overconfidence = confident * (1.0 - guessed_right) + abstained
        return float(np.mean(counts[drawn] == 1)), (confident + even) * (1.0 - guessed_right), overconfidence


@register
class Singletons(Bound[Arbitrary]):
    """With arbitrary facts, the error of any learner is, with probability 1 - gamma, at least the share of samples
    whose question occurs once, less 2/min|E_c| + 6 ln(3N/gamma)/sqrt(N) and less the miscalibration |phat(A) - p(A)|.
    """

    name, title, status, source = "T17d", "Facts seen once", "quoted", _KALAI
    assumptions = (
        "answers uniform and independent",
        "N independent samples",
        "checked on learners that know what they saw",
    )
    proof = "In the source; here: never violated (gamma = 1e-9). It says nothing below 10^4 samples."
    dropped = "miscalibration is not counted, and the learner may abstain"
    largest_search = 30

    def cases(self, draw: Draw) -> Arbitrary:
        samples = draw.choice((10**5, 3 * 10**5, 10**6))
        questions = int(samples * draw.real(0.2, 3.0))
        shares = draw.real(0.0, 1.0), draw.real(0.0, 1.0)
        return Arbitrary(samples, questions, draw.choice((365, 10**6)), *shares, draw.integer(0, 10**6))

    def slack(self, case: Arbitrary) -> float:
        return self._room(case, 1.0)

    def control_slack(self, case: Arbitrary) -> float:
        return self._room(case, 0.0)

    def _room(self, case: Arbitrary, counted: float) -> float:
        singletons, error, gap = case.outcome()
        bound = unseen.error_lower_from_singletons(singletons, case.samples, case.answers - 1, counted * abs(gap), 1e-9)
        return error - float(bound)


@register
class Penalties(Record):
    """If a wrong answer costs t/(1 - t) points, answering pays iff confidence exceeds t: 1 point at .5, 3 at .75 and 9
    at .9. The paper prints 2 at .75, which is the penalty of t = 2/3.
    """

    name, title, status, source = "T17e", "Penalties for wrong answers", "quoted", _KALAI
    assumptions = ("a right answer earns 1 point, an abstention none",)
    proof = "Answering with confidence q earns q - (1 - q) t/(1 - t), which is (q - t)/(1 - t)."
    largest_search = 10

    def published(self) -> list[Published]:
        return [
            Published("penalty at t = .5", 1.0, float(unseen.wrong_answer_penalty(0.5)), 1e-12),
            Published("penalty at t = .75", 2.0, float(unseen.wrong_answer_penalty(0.75)), 1e-12, agrees=False),
            Published("penalty at t = .9", 9.0, float(unseen.wrong_answer_penalty(0.9)), 1e-12),
        ]
