"""A bank over eight virtual devices of this machine beside the same bank on one.

python tests/benchmarks/mesh.py [--devices 8] [--experts 1048576] [--quick] [--markdown]

Virtual devices share the machine's cores and memory, so nothing can be gained: what is seen is what the spreading
itself costs, the masks and the sums over devices.
"""

import click
from mesh_peers import CHOSEN, QUERIES, WIDTH
from peers import seconds_of
from processes import Measured, alternate, machine, print_table, quotients

_ONE = {"read": "read", "read_partial": "read", "add_rows": "add_rows"}  # what the one device is asked instead


@click.command()
@click.option("--devices", default=8, show_default=True, type=click.IntRange(2))
@click.option("--experts", default=2**20, show_default=True, type=click.IntRange(1))
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(1), help="How often every peer is timed.")
@click.option("--quick", is_flag=True, help="One round and 2^16 experts; not to be quoted.")
@click.option("--markdown", is_flag=True, help="Tables for a README.")
@machine()
def main(devices: int, experts: int, rounds: int, quick: bool, markdown: bool) -> None:
    """Milliseconds of reading and of adding 256 x 32 rows."""
    rounds, experts = (1, min(experts, 2**16)) if quick else (rounds, experts)
    kinds = [(what, devices) for what in _ONE] + [(what, 1) for what in set(_ONE.values())]
    peers = {
        f"{what} {count}": Measured("mesh_peers:bank", {"what": what, "devices": count, "experts": experts})
        for what, count in kinds
    }
    seconds = {name: seconds_of(answers) for name, answers in alternate(peers, rounds).items()}
    rows = []
    for what, instead in _ONE.items():
        spread, one = seconds[f"{what} {devices}"].values, seconds[f"{instead} 1"].values
        rows.append((what, *(f"{1e3 * min(times):.2f}" for times in (spread, one)), quotients(spread, one)))
    title = f"{experts:,} experts of width {WIDTH}, {QUERIES} queries, {CHOSEN} rows each"
    print_table(title, ("what", f"{devices} devices, ms", "one device, ms", "slower by"), rows, markdown=markdown)


if __name__ == "__main__":
    main()
