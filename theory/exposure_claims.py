"""The claims T13, T13b, T14 and T14b: loss after exposures, and interference, each with the cases that attack it."""

# ruff: noqa: D102  (what each method of a claim does is said once, in theory/claims.py)

import math
from dataclasses import dataclass

import numpy as np

from theory import exposure, interference
from theory.claims import Bound, Identity, Law, register
from theory.search import Draw

_PROJECT = "this project"
_FLOW = "orthonormal keys, zero start, summed cross-entropy; no bias, momentum or decay; one exposure is a unit of time"
_STEPS = 300


@dataclass(frozen=True)
class Training:
    """A fact among `answers`, seen `exposures` times at this learning rate."""

    answers: int
    exposures: float
    learning_rate: float


@register
class GradientFlow(Identity[Training]):
    """Under gradient flow a fact that was exposed t times has the loss ln(1 + (V-1) e^-m), where e^m - 1 + (V-1) m =
    eta V t; so the loss falls like (V-1)/(eta V t), and ln 2 takes about ln V / eta exposures, whatever the number of
    facts.
    """

    name, title, status, source = "T13", "Exposures and loss", "proved", _PROJECT
    assumptions = (_FLOW,)
    proof = (
        "With orthonormal keys a fact's logits move on their own: dz/dt = eta (onehot - softmax z). The rivals stay "
        "equal, so the margin obeys dm/dt = eta V/(e^m + V - 1); separate the variables."
    )
    dropped = "the pull of the rivals, the term (V-1) m, is left out"
    tolerance = 0.0

    def cases(self, draw: Draw) -> Training:
        flow_time = 10.0 ** draw.real(-3.0, 4.0)
        learning_rate = draw.choice((1.0, 0.01, 30.0))
        return Training(draw.choice((2, 3, 32, 1000)), flow_time / learning_rate, learning_rate)

    def left(self, case: Training) -> float:
        """The loss, by Newton on the equation."""
        return float(exposure.loss_after(case.exposures, answers=case.answers, learning_rate=case.learning_rate))

    def right(self, case: Training) -> float:
        """The loss, by integrating the flow of the logits of the answer and of a rival (Runge-Kutta, 4th order)."""
        scale = 1.0 / case.learning_rate
        step = math.log1p(case.exposures / scale) / _STEPS  # even steps of s in t = scale (e^s - 1)
        answer = rival = 0.0
        for number in range(_STEPS):
            slopes: list[tuple[float, float]] = []
            for part in (0.0, 0.5, 0.5, 1.0):
                pull = slopes[-1] if slopes else (0.0, 0.0)
                speed = case.learning_rate * scale * math.exp((number + part) * step)
                slopes.append(
                    self._velocity(answer + part * step * pull[0], rival + part * step * pull[1], case, speed)
                )
            answer += step / 6 * (slopes[0][0] + 2 * slopes[1][0] + 2 * slopes[2][0] + slopes[3][0])
            rival += step / 6 * (slopes[0][1] + 2 * slopes[1][1] + 2 * slopes[2][1] + slopes[3][1])
        return math.log1p((case.answers - 1) * math.exp(rival - answer))

    def _velocity(self, answer: float, rival: float, case: Training, speed: float) -> tuple[float, float]:
        rival_probability = 1.0 / (case.answers - 1 + math.exp(answer - rival))
        return speed * (case.answers - 1) * rival_probability, -speed * rival_probability

    def perturbed(self, case: Training) -> float:
        margin = math.log1p(case.learning_rate * case.answers * case.exposures)
        return math.log1p((case.answers - 1) * math.exp(-margin))

    def error_bound(self, case: Training) -> float:
        """The integration errs by less than 1e-8 of the loss."""
        return 1e-8 * self.left(case)

    def slack(self, case: Training) -> float:
        """Also of the inverse: the loss gives back the exposures."""
        again = exposure.exposures_to_loss(self.left(case), answers=case.answers, learning_rate=case.learning_rate)
        conditioning = math.log(case.answers) / max(
            1e-300, math.log(case.answers) - self.left(case)
        )  # flat at the start
        lost = abs(float(again) / case.exposures - 1.0)
        return min(super().slack(case), 1e-13 * (1.0 + conditioning) - lost)


@dataclass(frozen=True)
class Descent:
    """Plain gradient descent on one fact."""

    answers: int
    learning_rate: float
    steps: int
    decay: float = 0.0

    def losses(self) -> np.ndarray:
        """Loss after 1, ..., steps exposures, from the logits."""
        answer = rival = 0.0
        losses = []
        for _ in range(self.steps):
            rival_probability = 1.0 / (self.answers - 1 + math.exp(min(700.0, answer - rival)))
            pull = self.learning_rate * rival_probability
            answer = (1.0 - self.decay) * answer + pull * (self.answers - 1)
            rival = (1.0 - self.decay) * rival - pull
            losses.append(math.log1p((self.answers - 1) * math.exp(rival - answer)))
        return np.array(losses)


@register
class DescentAheadOfFlow(Bound[Descent]):
    """Plain gradient descent, with any learning rate, is never behind the gradient flow: after k exposures its loss is
    at most that of the flow at time k.
    """

    name, title, status, source = "T13b", "Gradient descent and flow", "proved", _PROJECT
    assumptions = (_FLOW,)
    proof = (
        "The margin's speed falls with the margin, so one Euler step from the same margin ends at or above the flow; "
        "and the flow keeps the order of two margins. Induction."
    )
    dropped = "the weights decay a little at each step"
    tolerance = 1e-14

    def cases(self, draw: Draw) -> Descent:
        return self._descent(draw, 0.0)

    def control_cases(self, draw: Draw) -> Descent:
        return self._descent(draw, draw.real(0.01, 0.1))

    def _descent(self, draw: Draw, decay: float) -> Descent:
        learning_rate = 10.0 ** draw.real(-6.0, 2.0)
        return Descent(draw.choice((2, 3, 32, 1000)), learning_rate, draw.integer(1, 40), decay)

    def slack(self, case: Descent) -> float:
        """How much lower the loss of descent is, at the worst exposure, relative to ln V."""
        flow = exposure.loss_after(
            np.arange(1.0, case.steps + 1), answers=case.answers, learning_rate=case.learning_rate
        )
        return float(np.min(flow - case.losses()) / math.log(case.answers))

    def control_slack(self, case: Descent) -> float:
        return self.slack(case)

    def witnesses(self) -> list[Descent]:
        """Steps so small that descent is the flow."""
        return [Descent(32, 1e-9, 5), Descent(2, 1e-8, 3)]


@dataclass(frozen=True)
class Recall:
    """A memory with random keys that share a direction (a share 0 of their square, but in the control)."""

    answer_counts: tuple[int, ...]
    width: int
    shared: float
    seed: int


_DEVIATIONS = 5.0  # half-width of an interval, in standard deviations of independent recalls


def _interval(accuracies: np.ndarray, facts: int, crudeness: float) -> tuple[float, float]:
    """Mean accuracy, five standard deviations and the stated error of the approximation around it."""
    mean, recalls = float(np.mean(accuracies)), len(accuracies) * facts
    half = crudeness + _DEVIATIONS * math.sqrt((mean * (1.0 - mean) + 1.0 / recalls) / recalls)
    return mean - half, mean + half


@register
class HebbianRecall(Law[Recall]):
    """A Hebbian memory of n facts with random unit keys recalls a fact of class y with probability E_z prod_{c != y}
    Phi((1 + z sqrt((n_y - 1)/d)) / sqrt(n_c/d)); with equal classes this is about E_z Phi(z + 1/sigma)^(V-1) with
    sigma^2 = n/(V d).
    """

    name, title, status, source = "T14", "Interference in a Hebbian memory", "measured", _PROJECT
    assumptions = (
        "unit keys in random directions, independent of the labels",
        "n_c facts with answer c",
        "from 24 dimensions on it errs by less than .015",
    )
    proof = (
        "Approximation: the score of class c is a sum of n_c overlaps of mean 0 and variance 1/d, taken as normal, and "
        "the right class has the fact's own overlap 1 besides. Measured on memories that are built and read."
    )
    dropped = "a tenth or more of every key is a direction that all keys share"
    largest_search = 150

    def cases(self, draw: Draw) -> Recall:
        return self._recall(draw, 0.0)

    def control_cases(self, draw: Draw) -> Recall:
        return self._recall(draw, draw.real(0.1, 0.5))

    def _recall(self, draw: Draw, shared: float) -> Recall:
        counts = tuple(draw.integer(1, 40) for _ in range(draw.integer(2, 10)))
        return Recall(counts, draw.integer(24, 96), shared, draw.integer(0, 10**6))

    def predict(self, case: Recall) -> float:
        return interference.hebbian_accuracy(case.answer_counts, case.width)

    def measure(self, case: Recall) -> tuple[float, float]:
        rng = np.random.default_rng(case.seed)
        labels = np.repeat(np.arange(len(case.answer_counts)), case.answer_counts)
        accuracies = []
        for _ in range(8):
            keys = _unit(rng.normal(size=(len(labels), case.width)))
            keys = _unit(
                math.sqrt(1.0 - case.shared) * keys + math.sqrt(case.shared) * _unit(rng.normal(size=(1, case.width)))
            )
            scores = keys @ interference.hebbian_memory(keys, labels, len(case.answer_counts)).T
            accuracies.append(np.mean(scores.argmax(axis=1) == labels))
        return _interval(np.array(accuracies), len(labels), crudeness=0.015)


@dataclass(frozen=True)
class Embedded:
    """A memory of Gaussian embeddings; outputs share a direction (a share 0 of their square, but in the control)."""

    facts: int
    width: int
    shared: float
    seed: int


@register
class EmbeddingRecall(Law[Embedded]):
    """A memory sum_i u_i x_i' of Gaussian embeddings with variance 1/d per entry recalls a fact with probability E_z
    Phi((1 + z sqrt(n)/d) / sqrt(n/d^2 + 2/d))^(n-1).
    """

    name, title, status, source = "T14b", "Interference of embeddings", "measured", _PROJECT
    assumptions = (
        "outputs u and keys x independent, Gaussian, variance 1/d per entry",
        "d from 112 on; n from 200 to 500",
    )
    proof = (
        "Approximation: the truth has 1 and n/d^2 of noise, a rival n/d^2 and, from its overlap with the fact's output "
        "and key, 2/d; normal, independent, squared norms taken as 1. Measured on memories that are built and read."
    )
    dropped = "a quarter or more of every output is a direction that all outputs share"
    largest_search = 16

    def cases(self, draw: Draw) -> Embedded:
        return Embedded(draw.integer(200, 500), draw.integer(112, 128), 0.0, draw.integer(0, 10**6))

    def control_cases(self, draw: Draw) -> Embedded:
        return Embedded(draw.integer(200, 500), draw.integer(112, 128), draw.real(0.25, 0.75), draw.integer(0, 10**6))

    def predict(self, case: Embedded) -> float:
        return interference.embedding_accuracy(case.facts, case.width)

    def measure(self, case: Embedded) -> tuple[float, float]:
        rng = np.random.default_rng(case.seed)
        accuracies = []
        for _ in range(3):
            outputs, keys = rng.normal(size=(2, case.facts, case.width)) / math.sqrt(case.width)
            common = rng.normal(size=(1, case.width)) / math.sqrt(case.width)
            outputs = math.sqrt(1.0 - case.shared) * outputs + math.sqrt(case.shared) * common
            scores = outputs @ (interference.embedding_memory(outputs, keys) @ keys.T)
            accuracies.append(np.mean(scores.argmax(axis=0) == np.arange(case.facts)))
        return _interval(np.array(accuracies), case.facts, crudeness=0.03)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
