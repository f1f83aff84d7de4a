"""A population of 12 models with nothing compiled, and again; a full matrix of questions and answers.

python tests/benchmarks/imagination.py [--quick] [--markdown]
"""

import statistics
import time

import click
from processes import machine, print_table

POPULATION_SECONDS, MATRIX_SECONDS = 30.0, 1.0  # wanted on two cores


@click.command()
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(1), help="Populations after the first.")
@click.option("--quick", is_flag=True, help="Few steps, to see that it works; not to be quoted.")
@click.option("--markdown", is_flag=True, help="Tables for a README.")
@machine()
def main(rounds: int, quick: bool, markdown: bool) -> None:
    """Seconds to train 4 families x 3 seeds on one core, compilation included, and to ask and answer everything."""
    import os

    os.environ.setdefault("PJRT_NPROC", "1")  # as the command runs it; without the cache of compiled programs
    import jax

    from sims.imagination.population import Population, train
    from sims.imagination.portrait import moment
    from sims.imagination.world import World

    populations = [
        Population(World(seed=seed, shared_facts=0.5), steps=50 if quick else 1000) for seed in range(rounds + 1)
    ]
    training, matrices, loss = [], [], 0.0
    for population in populations:
        began = time.perf_counter()
        trained = train(population)
        training.append(time.perf_counter() - began)
        last = jax.tree.map(lambda leaf: leaf[-1], trained.parameters)
        began = time.perf_counter()
        moment(population, last)
        matrices.append(time.perf_counter() - began)
        loss = float(trained.loss_nats[-1].mean())
    one = populations[0]
    weights = 6 * one.architecture.parameters * one.models * one.steps * one.minibatch
    later = statistics.median(training[1:])
    rows = [
        (
            "population, compilation included",
            f"{training[0]:.1f}",
            POPULATION_SECONDS,
            _met(training[0], POPULATION_SECONDS),
        ),
        ("population, compiled before", f"{later:.2f}", "", f"{weights / later / 1e9:.0f} GFLOP/s at most"),
        ("matrix, compilation included", f"{matrices[0]:.2f}", MATRIX_SECONDS, _met(matrices[0], MATRIX_SECONDS)),
        ("matrix, compiled before", f"{statistics.median(matrices[1:]):.2f}", "", ""),
    ]
    title = f"{one.models} models of {one.world.facts} facts, {one.steps} steps, loss {loss:.3f} nats"
    print_table(title, ("what", "seconds", "wanted", "verdict"), rows, markdown=markdown)


def _met(seconds: float, wanted: float) -> str:
    return "met" if seconds <= wanted else "NOT MET"


if __name__ == "__main__":
    main()
