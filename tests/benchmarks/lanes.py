"""Rate against the number of lanes: where the constants of sims.networks.LANES come from.

    python tests/benchmarks/lanes.py [--quick] [--markdown]

The number of lanes is part of a run's identity, so it is chosen once, here, and written down.
"""

import click
from processes import Measured, Spread, alternate, machine, print_table
from tasks import Task

COUNTS = (1, 2, 4, 8, 16)
RUNS = 32  # fills 16 lanes on two workers, and divides evenly for fewer
TASKS = {
    "linear": Task(network="linear", width=1, runs=RUNS),
    "mlp": Task(network="mlp", width=64, runs=RUNS),
    "transformer": Task(network="transformer", width=32, size=512, exposures=10, runs=RUNS),
}


@click.command()
@click.option("--networks", default=",".join(TASKS), show_default=True)
@click.option("--minibatch", default=256, show_default=True, type=click.IntRange(1))
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(1))
@click.option("--quick", is_flag=True, help="Tiny, to see that it works; not to be quoted.")
@click.option("--markdown", is_flag=True, help="Tables for a README.")
@machine()
def main(networks: str, minibatch: int, rounds: int, quick: bool, markdown: bool) -> None:
    """Fact-steps a second of training alone, by network and number of lanes."""
    from sims.networks import LANES

    rows = []
    for name in networks.split(","):
        spec = {**TASKS[name].spec, "minibatch": minibatch} | ({"exposures": 2, "size": 256} if quick else {})
        peers = {f"{name}, {count} lanes": Measured("engine:sweep", {**spec, "lanes": count}) for count in COUNTS}
        rates = {
            count: Spread(tuple(one["fact_steps"] / (one["seconds"] - one["measuring_seconds"]) for (one,) in answers))
            for count, answers in zip(COUNTS, alternate(peers, rounds).values(), strict=True)
        }
        best = max(rate.median for rate in rates.values())
        rows.append((name, *(f"{rate.median:,.0f} ({rate.median / best:.0%})" for rate in rates.values()), LANES[name]))
    headings = ("network", *(f"{count} lanes" for count in COUNTS), "constant")
    print_table(f"fact-steps/s (share of the best), minibatch {minibatch}", headings, rows, markdown=markdown)


if __name__ == "__main__":
    main()
