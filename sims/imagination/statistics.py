"""How sure we are: intervals and tests for matrices of question and answer models.

Letters: Q question models, A answer models (the same M models in the same order), n questions, B resamplings.
"""

import math
from functools import cache
from itertools import combinations

import numpy as np
from jaxtyping import Bool, Float, Int

from sims.intervals import Interval

RELATIONS = ("self", "in_family", "cross_family")
_MOST_LABELINGS = 50_000  # all of them up to here; beyond, so many at random


def relation_masks(family: Int[np.ndarray, " M"]) -> dict[str, Bool[np.ndarray, "M M"]]:
    """Which cells of a matrix are a model with itself, with another one of its family, with one of another family."""
    same, itself = family[:, None] == family[None, :], np.eye(len(family), dtype=bool)
    return {"self": itself, "in_family": same & ~itself, "cross_family": ~same}


def relation_means(matrix: Float[np.ndarray, "Q A"], family: Int[np.ndarray, " M"]) -> dict[str, float]:
    """Mean over the cells of each relation; NaN cells and relations without cells are left out."""
    return {
        name: float(np.nanmean(matrix[mask])) if np.isfinite(matrix[mask]).any() else math.nan
        for name, mask in relation_masks(family).items()
    }


def two_way_bootstrap(
    values: Float[np.ndarray, "Q A n"],
    family: Int[np.ndarray, " M"],
    seed: int = 0,
    resamplings: int = 1000,
    level: float = 0.95,
) -> dict[str, Interval]:
    """Means of each relation with percentile intervals that resample models and questions independently (Owen 2007).

    Models are resampled within their family, as question and answer model at once; copies of one model are not a pair.
    Questions are resampled by their number. NaN (an abstention) is left out of both sums. One world: how it would
    vary between worlds is not in these intervals.
    """
    generator = np.random.default_rng(seed)
    models, count = len(family), values.shape[-1]
    kept = np.isfinite(values)
    of_questions = generator.multinomial(count, np.full(count, 1 / count), resamplings).astype(np.float64)
    of_models = np.zeros((resamplings, models))
    for one in np.unique(family):
        members = np.flatnonzero(family == one)
        of_models[:, members] = generator.multinomial(
            len(members), np.full(len(members), 1 / len(members)), resamplings
        )
    sums, counts = (
        part.reshape(-1, count).astype(float) @ of_questions.T for part in (np.where(kept, values, 0.0), kept)
    )
    of_pairs = (of_models[:, :, None] * of_models[:, None, :]).reshape(resamplings, -1).T
    found = {}
    for name, mask in relation_masks(family).items():
        weights = mask.reshape(-1, 1) * (of_models.T.repeat(models, axis=0) if name == "self" else of_pairs)
        below = (weights * counts).sum(axis=0)
        means = np.divide((weights * sums).sum(axis=0), below, out=np.full(resamplings, np.nan), where=below > 0)
        total = kept[mask].sum()
        mean = float(np.where(kept, values, 0.0)[mask].sum() / total) if total else math.nan
        tail = 100 * (1 - level) / 2
        low, high = np.nanpercentile(means, [tail, 100 - tail]) if np.isfinite(means).any() else (math.nan, math.nan)
        found[name] = Interval(mean, float(low), float(high))
    return found


def model_bootstrap(
    matrix: Float[np.ndarray, "M M"], family: Int[np.ndarray, " M"], seed: int = 0, resamplings: int = 400
) -> dict[str, Interval]:
    """The same for a matrix whose questions cannot be told apart any more: models alone are resampled."""
    return two_way_bootstrap(matrix[..., None], family, seed, resamplings)


def permutation_test(matrix: Float[np.ndarray, "M M"], family: Int[np.ndarray, " M"], seed: int = 0) -> float:
    """p-value of "families mean nothing": share of the labelings whose families agree at least as much as ours.

    The statistic is the mean over pairs of one family (of the matrix and its transpose). All labelings into families of
    these sizes are tried where they are at most 50 000 (12 models in 4 families: 15 400), else so many at random.
    Under the null, where models are exchangeable, Pr[p <= a] <= a, with equality at the multiples of 1 / labelings.
    """
    sizes = tuple(sorted(np.unique(family, return_counts=True)[1].tolist()))
    pairs = matrix + matrix.T
    if labelings(sizes) <= _MOST_LABELINGS:
        labels = _all_labelings(sizes)
    else:
        generator = np.random.default_rng(seed)
        labels = np.stack([family, *(generator.permutation(family) for _ in range(_MOST_LABELINGS))])
    found = _in_family_sums(pairs, labels)
    ours = _in_family_sums(pairs, family[None])[0]
    slack = 1e-9 * max(1.0, float(np.abs(pairs).sum()))  # equal sums in another order are equal
    return float((found >= ours - slack).mean())


def labelings(sizes: tuple[int, ...]) -> int:
    """Ways to divide sum(sizes) models into unnamed families of these sizes.

    >>> labelings((3, 3, 3, 3))
    15400
    """
    ways = math.factorial(sum(sizes))
    for size in sizes:
        ways //= math.factorial(size)
    for repeated in set(sizes):
        ways //= math.factorial(sizes.count(repeated))
    return ways


def _in_family_sums(pairs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    found = np.zeros(len(labels))
    for first, second in combinations(range(len(pairs)), 2):
        found += (labels[:, first] == labels[:, second]) * pairs[first, second]
    return found


@cache
def _all_labelings(sizes: tuple[int, ...]) -> np.ndarray:
    """Every division into families of these sizes, as labels [labelings, models]."""
    found: list[list[int]] = []

    def extend(labels: list[int], left: tuple[int, ...], family: int) -> None:
        free = [model for model, label in enumerate(labels) if label < 0]
        if not free:
            found.append(labels)
            return
        for size in sorted(set(left)):  # the first free model's family: one of each size that is left
            rest = list(left)
            rest.remove(size)
            for others in combinations(free[1:], size - 1):
                labeled = labels.copy()
                for model in (free[0], *others):
                    labeled[model] = family
                extend(labeled, tuple(rest), family + 1)

    extend([-1] * sum(sizes), sizes, 0)
    return np.array(found, dtype=np.int8)
