"""Reading a grid of runs: the best learning rate, the critical size, and what one width says about another.

A group is every run with the same network, answers, exposures and facts, whatever its size, seed and learning rate.
Tables are columns, one row a run (see store.table).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student

from theory import decoding

Table = Mapping[str, np.ndarray]

GROUP = (
    "network", "width", "layers", "heads", "inputs", "answers", "optimizer", "schedule", "exposures", "until_stored",
    "minibatch", "facts", "labels_random",
)  # fmt: skip
STORED = 0.99  # a size is below the critical size when this share of its facts is stored
CONFIDENCE = 0.95
RESOLUTION_NATS = 1e-5  # what float32 logits say of a loss; a run is outside of a region only beyond it


def take(table: Table, rows: np.ndarray) -> dict[str, np.ndarray]:
    """The table of these rows (a mask or indices)."""
    return {name: column[rows] for name, column in table.items()}


def groups(table: Table) -> Iterator[tuple[dict[str, object], dict[str, np.ndarray]]]:
    """(what its runs share, its runs) of each group, in the order of `GROUP`."""
    keys = sorted(set(zip(*(table[name].tolist() for name in GROUP), strict=True)))
    for key in keys:
        same = np.all([table[name] == value for name, value in zip(GROUP, key, strict=True)], axis=0)
        yield dict(zip(GROUP, key, strict=True)), take(table, same)


def best_rates(table: Table) -> dict[str, np.ndarray]:
    """Only the runs at the best learning rate of their group and size: smallest mean loss over the seeds.

    A diverged run counts as an infinite loss. Column `rate_at_edge` says whether the best is the smallest or largest
    rate that was tried: then a better one may lie outside. It is False where only one rate was tried, and where all
    facts are stored, so that no other rate would show anything better.
    """
    rows, edges = [], []
    index = np.arange(len(table["size"]))
    for _, group in groups({**table, "_row": index}):
        for size in np.unique(group["size"]):
            here = take(group, group["size"] == size)
            rates = np.unique(here["learning_rate"])
            loss = np.where(here["status"] == "finished", here["loss_nats"], np.inf)
            means = [loss[here["learning_rate"] == rate].mean() for rate in rates]
            best = int(np.argmin(means))
            chosen = here["_row"][here["learning_rate"] == rates[best]]
            full = here["stored_rate"][here["learning_rate"] == rates[best]].min() == 1.0
            rows.append(chosen)
            edges.append(np.full(len(chosen), len(rates) > 1 and best in (0, len(rates) - 1) and not full))
    picked = np.concatenate(rows) if rows else np.empty(0, dtype=int)
    edge = np.concatenate(edges) if edges else np.empty(0, dtype=bool)
    return {**take(table, picked), "rate_at_edge": edge}


@dataclass(frozen=True)
class CriticalSize:
    """n_c of one group: the largest size with 99 % of its facts stored, interpolated, over the seeds."""

    group: Mapping[str, object]
    parameters: int
    bits_per_fact: float  # label bits a fact
    sizes: tuple[float, ...]  # one a seed; 0 if no size of the grid is stored, infinite if the largest one is

    @property
    def reached(self) -> bool:
        """Whether both sides of the threshold lie in the grid for every seed."""
        return all(0 < size < np.inf for size in self.sizes)

    @property
    def mean(self) -> float:
        """Geometric mean over seeds."""
        return float(np.exp(np.mean(np.log(self.sizes))))

    @property
    def interval(self) -> tuple[float, float]:
        """95 % Student interval of log n_c over the seeds; infinite for a single seed."""
        logs = np.log(self.sizes)
        if len(logs) < 2:
            return (0.0, np.inf)
        half = student.ppf(0.5 + CONFIDENCE / 2, len(logs) - 1) * logs.std(ddof=1) / np.sqrt(len(logs))
        return float(np.exp(logs.mean() - half)), float(np.exp(logs.mean() + half))

    @property
    def bits_per_parameter(self) -> float:
        """Label bits stored exactly, per parameter, at the critical size."""
        return self.mean * self.bits_per_fact / self.parameters


def critical_sizes(table: Table) -> list[CriticalSize]:
    """The critical size of every group. Give it `best_rates(table)`: one rate a size."""
    found = []
    for group, runs in groups(table):
        sizes = [_critical_size(take(runs, runs["seed"] == seed)) for seed in np.unique(runs["seed"])]
        bits = float(np.nanmean(runs["label_bits"] / runs["size"]))
        found.append(CriticalSize(group, int(np.nanmax(runs["parameters"])), bits, tuple(sizes)))
    return found


def _critical_size(runs: Table) -> float:
    """n_c of one seed, linear in log n between the last size that is stored and the next."""
    order = np.argsort(runs["size"])
    sizes = runs["size"][order].astype(float)
    stored = np.nan_to_num(runs["stored_rate"][order])
    below = np.flatnonzero(stored >= STORED)
    if len(below) == 0:
        return 0.0
    if below[-1] == len(sizes) - 1:
        return np.inf
    last = below[-1]
    share = (stored[last] - STORED) / (stored[last] - stored[last + 1])
    return float(np.exp(np.log(sizes[last]) + share * np.log(sizes[last + 1] / sizes[last])))


@dataclass(frozen=True)
class Transfer:
    """The critical size of one group, predicted from the bits per parameter of another."""

    source: CriticalSize
    target: CriticalSize

    @property
    def predicted(self) -> float:
        """n_c of the target if its parameters hold as many bits at the threshold as those of the source."""
        return self.source.bits_per_parameter * self.target.parameters / self.target.bits_per_fact

    @property
    def ratio(self) -> float:
        """Predicted over measured."""
        return self.predicted / self.target.mean


def transfers(critical: list[CriticalSize]) -> list[Transfer]:
    """Predictions from the middle width to the others and to other numbers of answers, at equal everything else."""
    reached = [one for one in critical if one.reached]
    found = []
    alike = [name for name in GROUP if name not in ("width", "answers")]
    for family in {tuple(one.group[name] for name in alike) for one in reached}:
        members = [one for one in reached if tuple(one.group[name] for name in alike) == family]
        members.sort(key=lambda one: (one.group["answers"] != 32, one.parameters))  # the usual V first
        usual = [one for one in members if one.group["answers"] == members[0].group["answers"]]
        source = usual[len(usual) // 2]
        found += [Transfer(source, target) for target in members if target is not source]
    return found


def outside_region(runs: Table, column: str) -> np.ndarray:
    """Which runs no network can be: outside of T2 or T3 for their number of facts, beyond the loss's resolution."""
    loss, rate = runs["loss_nats"].astype(float), runs[column].astype(float)
    size = np.round(runs["size"].astype(float))
    less, more = np.maximum(0.0, loss - RESOLUTION_NATS), loss + RESOLUTION_NATS
    known = np.isfinite(rate)
    if column == "hallucination_sampled":
        low, high = decoding.sampled_error_rates(less, facts=size)[0], decoding.sampled_error_rates(more, facts=size)[1]
        return known & ((rate < low - RESOLUTION_NATS) | (rate > high + RESOLUTION_NATS))
    whole = np.log2(runs["answers"].astype(float)) * np.ceil(runs["tokens_per_answer"].astype(float))
    answers = np.round(2.0 ** np.minimum(whole, 1000.0))  # so many that one more does not count, and a float64 still
    fewest = decoding.greedy_error_counts(less, facts=size, answers=answers)[0]
    most = decoding.greedy_error_counts(more, facts=size, answers=answers)[1]
    wrong = np.round(np.where(known, rate, 0.0) * size)
    return known & ((wrong < fewest) | (wrong > most))
