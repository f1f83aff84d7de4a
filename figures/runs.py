"""Rows of the table `runs` put in order for drawing: one learning rate, one setting, one curve for each width.

A *setting* is what runs share when they may stand in one picture; in it a *network* is one width, and its runs differ
in size and seed. Learning rates and critical sizes are those of `sims.summary`, so that picture and report agree.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from figures.tables import TABLES, Table, rows, where
from sims import summary
from sims.summary import CriticalSize

SETTING = (*(name for name in summary.GROUP if name != "width"), "tokens_per_answer")


def complete(table: Table) -> dict[str, np.ndarray]:
    """The table with every column it is read for: a column or a number that it lacks has its documented default."""
    count = rows(table)
    full = {name: np.asarray(column) for name, column in table.items()}
    for name, column in TABLES["runs"].items():
        if name not in full:
            full[name] = np.full(count, column.default, dtype=object if column.kind == "text" else None)
        elif column.kind in ("number", "whole"):
            numbers = full[name].astype(float)
            full[name] = np.where(np.isnan(numbers), column.default, numbers)
    log_answers = np.log2(full["answers"]) * full["tokens_per_answer"] * full["size"]
    full["label_bits"] = np.where(np.isnan(full["label_bits"]), log_answers, full["label_bits"])
    saved = full["label_bits"] - full["size"] * full["loss_nats"] / np.log(2)
    full["bits_memorized"] = np.where(np.isnan(full["bits_memorized"]), saved, full["bits_memorized"])
    lost = ~np.isfinite(full["loss_nats"]) | ~np.isfinite(full["size"]) | ~np.isfinite(full["answers"])
    full["status"] = np.where(lost, "diverged", full["status"])
    return full


def finished(table: Table) -> dict[str, np.ndarray]:
    """Rows of a completed table whose runs finished with a loss."""
    return where(table, table["status"] == "finished")


def best_rates(table: Table) -> dict[str, np.ndarray]:
    """The finished runs, of a completed table, at the best learning rate of their network and size."""
    return finished(summary.best_rates(table))


def main_setting(table: Table, *, but: tuple[str, ...] = ()) -> dict[str, np.ndarray]:
    """Runs of the setting that finished for most pairs of width and size; `but` may vary within it.

    Of several that cover as many it is the one with most runs, then the first in order.
    """
    names = [name for name in SETTING if name not in but]
    keys = list(zip(*(_sortable(table[name]) for name in names), strict=True))
    cells = list(zip(table["width"].tolist(), table["size"].tolist(), (table["status"] == "finished"), strict=True))

    def weight(key: tuple) -> tuple[int, int]:
        members = [cell[:2] for cell, other in zip(cells, keys, strict=True) if other == key and cell[2]]
        return len(set(members)), len(members)

    chosen = max(sorted(set(keys)), key=weight, default=())
    return where(table, np.array([key == chosen for key in keys], dtype=bool))


def of_main_runs(tables: Mapping[str, Table], name: str, *, same_seed: bool = False) -> Table:
    """Rows of a long table that belong to the runs the main picture draws, where table `runs` is given to tell.

    With `same_seed` only runs of its smallest seed: they were shown the same facts.
    """
    table = tables[name]
    if "run" not in table or "fingerprint" not in tables.get("runs", {}):
        return table
    drawn = best_rates(main_setting(complete(tables["runs"])))
    if same_seed and rows(drawn):
        drawn = where(drawn, drawn["seed"] == drawn["seed"].min())
    belongs = np.isin(np.asarray(table["run"]).astype(str), drawn["fingerprint"].astype(str))
    return where(table, belongs) if belongs.any() else table


def _sortable(column: np.ndarray) -> list:
    # Tokens per answer are a mean over the facts, which differs a little from size to size.
    return np.round(column).tolist() if column.dtype.kind == "f" else column.tolist()


@dataclass(frozen=True)
class OverSeeds:
    """A quantity against another: its mean over seeds and its range."""

    x: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


@dataclass(frozen=True)
class Network:
    """Runs of one setting and one width, one learning rate a size: what is one curve."""

    table: Table

    @cached_property
    def width(self) -> float:
        """Width of the network."""
        return float(self.table["width"][0])

    @cached_property
    def answers(self) -> int:
        """Possible answers of a token."""
        return int(self.table["answers"][0])

    @cached_property
    def parameters(self) -> float:
        """Trained parameters; NaN if the table does not say."""
        return float(np.max(self.table["parameters"])) or np.nan

    @cached_property
    def answer_bits(self) -> float:
        """Bits of an answer."""
        return float(np.median(self.table["label_bits"] / self.table["size"]))

    def over_seeds(self, quantity: str | np.ndarray, against: str = "size") -> OverSeeds:
        """Mean and range of a column, or of one number a row, at each value of another column."""
        numbers = np.asarray(self.table[quantity] if isinstance(quantity, str) else quantity, float)
        x = self.table[against].astype(float)
        at = np.unique(x[np.isfinite(numbers)])
        groups = [numbers[(x == one) & np.isfinite(numbers)] for one in at]
        return OverSeeds(at, *(np.array([of(group) for group in groups]) for of in (np.mean, np.min, np.max)))

    @cached_property
    def full_bits(self) -> float:
        """The most bits memorized at any size (mean over seeds); NaN if none were or the largest data set still fits.

        A network that was never full says nothing of what it holds.
        """
        loss = self.over_seeds("loss_nats").mean
        if not len(loss) or loss[-1] < 0.02 * np.log(2) * self.answer_bits:
            return np.nan
        held = float(self.over_seeds("bits_memorized").mean.max())
        return held if held > 0 else np.nan

    @cached_property
    def certified_bits(self) -> float:
        """The most bits that describe any of these networks, quantized; NaN if none was or labels are not random."""
        bits = self.table["certified_bits"][self.table["labels_random"] != "given"]
        return float(bits[np.isfinite(bits)].max()) if np.isfinite(bits).any() else np.nan

    @cached_property
    def predicted_size(self) -> float:
        """Facts n* = `full_bits` / bits of an answer, from which on T7 keeps the loss from zero; NaN if it has none."""
        return self.full_bits / self.answer_bits if self.answer_bits > 0 else np.nan

    @cached_property
    def critical(self) -> CriticalSize | None:
        """The measured critical size n_c; None if the table does not say which facts were stored."""
        if not np.isfinite(self.table["stored_rate"]).any():
            return None
        return summary.critical_sizes(self.table)[0]

    @cached_property
    def critical_size(self) -> float:
        """n_c over the seeds; NaN unless every seed has sizes on both sides of it."""
        return self.critical.mean if self.critical is not None and self.critical.reached else np.nan


def spread(items: Sequence | np.ndarray, most: int) -> list:
    """At most `most` of the items, the first and the last among them, evenly spread.

    >>> spread(range(9), 3)
    [0, 4, 8]
    """
    places = np.linspace(0, len(items) - 1, min(len(items), most)).round().astype(int)
    return [items[place] for place in np.unique(places)]


def networks(table: Table) -> list[Network]:
    """The networks of one setting, by width."""
    return [Network(where(table, table["width"] == width)) for width in np.unique(table["width"])]
