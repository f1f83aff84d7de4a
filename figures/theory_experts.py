"""Loads at which memory experts hold arbitrary facts: thresholds computed, and random mixtures measured."""

import numpy as np
from matplotlib.figure import Figure
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import structural_rank

from figures import style
from figures.theory_pictures import COLORS, picture
from theory import experts

_EXPERTS, _TRIALS = 1000, 40
_PER_FACT = (2, 3, 4, 5)


@picture(
    "load-thresholds",
    caption="How many arbitrary facts fit into memory experts: the computed thresholds and random mixtures.",
    claims=("T21", "T21b"),
)
def load_thresholds() -> Figure:
    """Share of random mixtures in which all facts fit, against the load, for 2 to 5 experts a fact."""
    drawn = style.new_figure(style.PAGE, 3.1)
    axes = drawn.subplots()
    axes.set_label("share that fits")
    entries = []
    for place, k in enumerate(_PER_FACT):
        threshold = experts.load_threshold(k)
        onset = np.sort(_onsets(k)) / _EXPERTS
        still = 1.0 - np.arange(len(onset)) / len(onset)
        style.vertical(
            axes, threshold, f"computed threshold, k = {k}", color=COLORS[place], linewidth=1.0, linestyle=(0, (4, 2))
        )
        line = style.line(
            axes, np.concatenate([[0.0], onset, onset[-1:]]), np.concatenate([[1.0], still, [0.0]]),
            f"measured, k = {k}, share", color=COLORS[place], drawstyle="steps-post", linewidth=1.3,
        )  # fmt: skip
        entries.append((line, f"{k} experts a fact: {threshold:.4f}"))
    style.percent_axis(axes, "mixtures that hold all facts")
    axes.set(xlabel="facts per expert", xlim=(0.3, 1.03))
    caption = (
        f"{_TRIALS} random mixtures for each line: a fact draws its experts from {_EXPERTS:,}; all fit if the "
        "matrix of facts and experts has full structural rank. Dashed: the limit for many experts, the load of "
        "cuckoo hashing, computed (T21). With two experts a fact the transition is wide, about M$^{-1/3}$; with "
        "more it is sharp."
    )
    style.below(drawn, caption, entries, columns=4)
    return drawn


def _onsets(k: int) -> np.ndarray:
    """For each random mixture the largest number of facts, the first of a list, that fits."""
    rng = np.random.default_rng(k)
    return np.array([_onset(_chosen(rng, k)) for _ in range(_TRIALS)])


def _chosen(rng: np.random.Generator, k: int) -> np.ndarray:
    """The experts of each fact, shape (facts, k), all different; more facts than fit."""
    chosen = rng.integers(_EXPERTS, size=(_EXPERTS + 1, k))
    while (again := np.array([len(set(row)) < k for row in chosen])).any():
        chosen[again] = rng.integers(_EXPERTS, size=(again.sum(), k))
    return chosen


def _onset(chosen: np.ndarray) -> int:
    fits, fails = 0, len(chosen)
    while fails - fits > 1:
        middle = (fits + fails) // 2
        fits, fails = (middle, fails) if _fit(chosen[:middle]) else (fits, middle)
    return fits


def _fit(chosen: np.ndarray) -> bool:
    facts, k = chosen.shape
    matrix = csr_matrix((np.ones(chosen.size), chosen.ravel(), np.arange(facts + 1) * k), shape=(facts, _EXPERTS))
    return bool(structural_rank(matrix) == facts)
