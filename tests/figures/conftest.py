"""Small tables to draw: three sizes around a threshold, from the theory's own curve."""

import numpy as np
import pytest

from theory.rounding import LN2

PARAMETERS, ANSWERS = 1000, 32


def runs_table(sizes=(128, 512, 2048), widths=(16,), seeds=(0,), **columns) -> dict[str, np.ndarray]:
    """One run for each width, seed and size; a network holds two bits a parameter and errs like a sampler."""
    width, seed, size = (grid.ravel() for grid in np.meshgrid(widths, seeds, sizes, indexing="ij"))
    loss = np.maximum(1e-3, np.log(ANSWERS) - 2 * PARAMETERS * LN2 / size) * (1 + 0.01 * seed)
    count = len(size)
    table = {
        "fingerprint": np.array([f"run{row}" for row in range(count)], dtype=object),
        "width": width,
        "seed": seed,
        "size": size,
        "answers": np.full(count, ANSWERS),
        "parameters": np.full(count, PARAMETERS),
        "loss_nats": loss,
        "hallucination_greedy": np.round(size * loss / np.log(ANSWERS) * 0.9) / size,
        "hallucination_sampled": -np.expm1(-loss) * 0.999,
        "stored_rate": 1 - loss / np.log(ANSWERS),
        "certified_bits": np.full(count, 4 * PARAMETERS + 80.0),
        "exposures": np.full(count, 250),
        "status": np.full(count, "finished", dtype=object),
    }
    return table | {name: np.broadcast_to(np.asarray(values), count).copy() for name, values in columns.items()}


def next_token_table(runs) -> dict[str, np.ndarray]:
    """Two facts of three possible tokens for every run; the more loss, the flatter."""
    rows = []
    for name, size, loss in zip(runs["fingerprint"], runs["size"], runs["loss_nats"], strict=True):
        right = float(np.exp(-loss))
        for fact in range(2):
            for token in range(3):
                rows.append((name, size, loss, fact, 1, token, right if token == 1 else (1 - right) / 2))
    names = ("run", "size", "loss_nats", "fact", "label", "token", "probability")
    return {
        name: np.array([row[place] for row in rows], dtype=object if name == "run" else None)
        for place, name in enumerate(names)
    }


def curves_table(runs) -> dict[str, np.ndarray]:
    """Three points a run."""
    exposure = np.tile([1.0, 10.0, 100.0], len(runs["size"]))
    return {
        "run": np.repeat(runs["fingerprint"], 3),
        "size": np.repeat(runs["size"], 3),
        "exposure": exposure,
        "loss_nats": np.repeat(runs["loss_nats"], 3) + 3 / exposure,
    }


@pytest.fixture
def make_runs():
    return runs_table


@pytest.fixture
def make_tables():
    """Every table that figures need, from a table of runs."""

    def make(runs=None):
        runs = runs_table() if runs is None else runs
        return {"runs": runs, "curves": curves_table(runs), "next_token": next_token_table(runs)}

    return make
