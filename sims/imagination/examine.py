"""Everything that is measured of one population, as one stored result.

Letters: M models, Q question models, A answer models, n questions.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from sims.imagination import measures
from sims.imagination.asking import KINDS, OPTIONS, answer, confidence
from sims.imagination.baselines import BASELINES, baseline_right
from sims.imagination.inventing import chain_correctness, favorites_in_common
from sims.imagination.kernel import belief_correlation
from sims.imagination.population import KIND, Population, train
from sims.imagination.portrait import (
    QUESTIONS,
    Moment,
    calibration,
    moment,
    of_answer_models,
    portrait,
    real_logits,
    with_ends,
)
from sims.imagination.statistics import (
    model_bootstrap,
    permutation_test,
    relation_masks,
    relation_means,
    two_way_bootstrap,
)
from sims.networks import Parameters
from sims.runs import environment
from sims.store import Result, fingerprint

_REFUSED_REAL = 0.05  # share of the real questions that an abstaining model refuses


def spec_of(population: Population) -> dict[str, Any]:
    """What the stored run of this population was: its fields and the number of questions."""
    return population.spec | {"questions": QUESTIONS}


def name_of_run(population: Population) -> str:
    """The fingerprint under which `examine` stores this population."""
    return fingerprint(KIND, spec_of(population))


def examine(population: Population, advanced: Callable[[int], object] = lambda steps: None) -> Result:
    """Train the population and measure it; "diverged" if its loss is not a number."""
    began = time.perf_counter()
    trained = train(population, advanced)
    timing = {"train_seconds": time.perf_counter() - began}
    metrics: dict[str, Any] = {"loss_nats": float(trained.loss_nats[-1].mean())}
    arrays: dict[str, np.ndarray] = {"curve_steps": trained.steps, "curve_loss_nats": trained.loss_nats.mean(axis=1)}
    if not np.isfinite(metrics["loss_nats"]):
        return Result(KIND, spec_of(population), "diverged", {}, arrays, environment() | timing)
    began = time.perf_counter()
    last = _snapshot(trained.parameters, -1)
    moments = {kind: moment(population, last, kind) for kind in _kinds(population)}
    timing["matrices_seconds"] = time.perf_counter() - began
    now, heuristics = moments["direct"], {}
    for kind, one in moments.items():
        heuristics[kind] = {name: baseline_right(population.world, name, one.asked) for name in BASELINES}
        metrics |= _matrix_metrics(population, kind, one) | _baselines(population, heuristics[kind], kind)
        arrays |= {f"{kind}_correctness": one.answers.correctness, f"{kind}_right": one.answers.right.astype(np.uint8)}
    metrics |= (
        _pairs(population, now)
        | _abstaining(population, last, now)
        | _heuristics(population, now, heuristics["direct"])
    )
    metrics |= favorites_in_common(population, last) | _kernel(population)
    if population.stated_share > 0:
        arrays |= chain_correctness(population, last)
    curves = _curves(population, trained.parameters, now)
    metrics |= {name: float(values[-1]) for name, values in curves.items()}
    arrays |= {f"curve_{name}": values for name, values in curves.items()} | calibration(population, last, now)
    finite = {name: value if np.isfinite(value) else None for name, value in metrics.items()}
    return Result(KIND, spec_of(population), "finished", finite, arrays, environment() | timing)


def _kernel(population: Population) -> dict[str, float]:
    """The correlation across families that infinite width predicts, where it can: see `kernel`."""
    world = population.world
    predictable = population.network == "mlp" and world.families > 1 and not world.rule_share and not world.popularity
    return {"kernel_correlation": belief_correlation(world)} if predictable else {}


def _kinds(population: Population) -> tuple[str, ...]:
    return KINDS if population.stated_share > 0 else KINDS[:1]  # who never saw a statement cannot read one


def _snapshot(parameters: Parameters, place: int) -> Parameters:
    return jax.tree.map(lambda leaf: leaf[place], parameters)


def _curves(population: Population, parameters: Parameters, last: Moment) -> dict[str, np.ndarray]:
    """The portrait at every snapshot, as columns."""
    portraits = []
    for place in range(len(population.snapshot_steps)):
        then = _snapshot(parameters, place)
        is_last = place == len(population.snapshot_steps) - 1
        portraits.append(portrait(population, then, last if is_last else moment(population, then)))
    return {name: np.array([one[name] for one in portraits]) for name in portraits[0]}


def _matrix_metrics(population: Population, kind: str, now: Moment) -> dict[str, float]:
    """Means of a matrix with their intervals, the test of family labels, Fleiss' kappa."""
    family = population.family
    intervals = two_way_bootstrap(now.answers.right.astype(float), family, seed=population.world.seed)
    found = with_ends({f"{kind}_{relation}": interval for relation, interval in intervals.items()})
    found[f"{kind}_families_p"] = permutation_test(now.answers.correctness, family)
    found[f"{kind}_fleiss_kappa"] = float(measures.fleiss_kappa(of_answer_models(now.answers.chosen), OPTIONS))
    return found


def _baselines(population: Population, rights: Mapping[str, np.ndarray], kind: str) -> dict[str, float]:
    """How often what needs no mind gives the question model's answer, knowing another family's corpus, or its own."""
    other = population.family[:, None] != np.arange(population.world.families)
    found = {}
    for name, chances in rights.items():
        right = chances.mean(axis=-1)
        found[f"{kind}_{name}_cross_family"] = float(right[other].mean()) if other.any() else np.nan
        found[f"{kind}_{name}_in_family"] = float(right[~other].mean())
    return found


def _pairs(population: Population, now: Moment) -> dict[str, float]:
    """Every measure of `measures`, averaged over pairs of models of one family and of two.

    A pair is asked the questions of families that neither belongs to: a family knows its own inventions better, and
    pooled with others' questions that would look like (dis)agreement. Two families alone leave no such questions: NaN.
    """
    family = population.family
    chosen, probabilities = of_answer_models(now.answers.chosen), of_answer_models(now.answers.probabilities)
    right = now.asked.answer.reshape(-1)
    asked_by = np.repeat(family, now.asked.answer.shape[1])
    matrices: dict[str, np.ndarray] = {}
    for first in range(len(family)):
        for second in range(first):
            neutral = (asked_by != family[first]) & (asked_by != family[second])
            if not neutral.any():
                continue
            a, b = chosen[first, neutral], chosen[second, neutral]
            values = _measured(a, b, probabilities[first, neutral], probabilities[second, neutral], right[neutral])
            for name, value in values.items():
                matrix = matrices.setdefault(name, np.full((len(family), len(family)), np.nan))
                matrix[first, second] = matrix[second, first] = value
    return with_ends(
        {
            f"pairs_{name}_{relation}": interval
            for name, matrix in matrices.items()
            for relation, interval in model_bootstrap(matrix, family, population.world.seed).items()
            if relation != "self"
        }
    )


def _measured(a, b, p_a, p_b, right) -> dict[str, float]:
    found = {
        "agreement": measures.agreement(a, b),
        "lift": measures.lift(a, b, OPTIONS),
        "cohen_kappa": measures.cohen_kappa(a, b, OPTIONS),
        "error_consistency": measures.error_consistency(a == right, b == right),
        "capa": measures.capa(p_a, p_b, right),
        "capa_discrete": measures.capa(measures.one_hot(a, OPTIONS), measures.one_hot(b, OPTIONS), right),
        "wrong_agreement": measures.wrong_agreement(a, b, right),
        "jensen_shannon_similarity": measures.jensen_shannon_similarity(p_a, p_b),
    }
    return {name: float(value) for name, value in found.items()}


def _abstaining(population: Population, parameters: Parameters, now: Moment) -> dict[str, float]:
    """Answer rate and correctness where each model abstains below the confidence that 5 % of its facts lie below."""
    least = np.quantile(confidence(real_logits(population, parameters)), _REFUSED_REAL, axis=-1)
    answers = answer(now.logits, now.asked, least)
    matrices = {"rate": answers.answer_rate, "correctness": answers.correctness}
    return {
        f"abstaining_{name}_{relation}": value
        for name, matrix in matrices.items()
        for relation, value in relation_means(matrix, population.family).items()
    }


def _heuristics(population: Population, now: Moment, rights: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Cross-family correctness where a heuristic of the answer model's family finds the answer, and where it does not.

    It finds the answer where its chance of picking it is a half or more.
    """
    family, right = population.family, now.answers.right
    cross = relation_masks(family)["cross_family"][..., None]
    found = {}
    for name, chances in rights.items():
        hit = chances[:, family] >= 0.5
        for word, kept in (("finds", hit & cross), ("misses", ~hit & cross)):
            found[f"where_{name}_{word}"] = float(right[kept].mean()) if kept.any() else np.nan
    return found
