"""Stored runs as documented tables.

runs        one row a run: what it was (fingerprint ... size), what came out (parameters ... certified_ratio), where.
per_fact    run, size, fact, loss_nats, greedy_correct, tokens, entropy_nats: the table that `judge` reads.
curves      run, size, width, exposure, loss_nats: mean training loss up to each exposure.
next_token  run, size, width, loss_nats, fact, fact_loss_nats, label, token, probability: first answer token.
"""

from collections.abc import Iterable, Mapping

import numpy as np

from sims.runs import KIND
from sims.store import Result, Store, table

Table = dict[str, np.ndarray]


def runs(store: Store, names: Iterable[str] | None = None) -> Table:
    """Every stored run, or the named ones, without their arrays."""
    return table(store.results(KIND, names))


def per_fact(store: Store, names: Iterable[str] | None = None) -> Table:
    """Losses of every fact of the runs that kept them."""

    def rows(run: Result, arrays: Mapping[str, np.ndarray]) -> Table | None:
        if "loss_nats" not in arrays:
            return None
        losses = arrays["loss_nats"]
        return _block(
            len(losses),
            run=run.fingerprint,
            size=run.spec["size"],
            fact=np.arange(len(losses)),
            loss_nats=losses,
            greedy_correct=arrays["greedy_correct"],
            tokens=arrays["tokens"],
            entropy_nats=run.metrics["entropy_floor_nats"],
        )

    return _gather(store, names, rows)


def curves(store: Store, names: Iterable[str] | None = None) -> Table:
    """Training curves."""

    def rows(run: Result, arrays: Mapping[str, np.ndarray]) -> Table:
        exposures = arrays["curve_exposures"]
        return _block(
            len(exposures),
            run=run.fingerprint,
            size=run.spec["size"],
            width=run.spec["width"],
            learning_rate=run.spec["learning_rate"],
            seed=run.spec["seed"],
            exposure=exposures,
            loss_nats=arrays["curve_loss_nats"],
        )

    return _gather(store, names, rows)


def next_token(store: Store, names: Iterable[str] | None = None) -> Table:
    """Distributions over the first answer token of the first few facts of each run."""

    def rows(run: Result, arrays: Mapping[str, np.ndarray]) -> Table | None:
        if "shown_probabilities" not in arrays:
            return None
        probabilities, labels = arrays["shown_probabilities"], arrays["shown_labels"]
        facts, answers = probabilities.shape
        with np.errstate(divide="ignore"):
            losses = -np.log(probabilities[np.arange(facts), labels])
        return _block(
            probabilities.size,
            run=run.fingerprint,
            size=run.spec["size"],
            width=run.spec["width"],
            loss_nats=run.metrics["loss_nats"],
            fact=np.repeat(np.arange(facts), answers),
            fact_loss_nats=np.repeat(losses, answers),
            label=np.repeat(labels, answers),
            token=np.tile(np.arange(answers), facts),
            probability=probabilities.reshape(-1),
        )

    return _gather(store, names, rows)


def _block(rows: int, **columns: object) -> Table:
    return {name: np.broadcast_to(np.asarray(value), rows) for name, value in columns.items()}


def _gather(store: Store, names: Iterable[str] | None, rows) -> Table:
    blocks = [rows(run, store.arrays(run.fingerprint)) for run in store.results(KIND, names)]
    blocks = [block for block in blocks if block is not None]
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]} if blocks else {}
