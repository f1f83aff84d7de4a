"""Product-key lookup beside PyTorch, lax.top_k and the two matrix products alone; every peer in processes of its own.

python tests/benchmarks/lookup.py [--quick] [--markdown]

On a GPU set JAX_PLATFORMS=cuda: the peers are then lax.top_k and the products.
"""

import itertools
import os

import click
from lookup_peers import WIDTH, K
from peers import largest, limits, seconds_of
from processes import Measured, Spread, alternate, machine, print_table, quotients

EXPERTS = tuple(2**power for power in (12, 16, 20, 22))
QUERIES = (8, 64, 256, 1024)
OURS, TOP_K, PYTORCH, PRODUCTS = "ours", "lax.top_k", "PyTorch", "products"
_FUNCTIONS = {OURS: "ours", TOP_K: "top_k", PRODUCTS: "products", PYTORCH: "pytorch"}
# (experts, queries, peer, ours at least so many times as fast); None: at every size
WANTED = (
    (2**20, 256, PYTORCH, 1.8),
    (2**20, 256, TOP_K, 2.5),
    (2**20, 256, PRODUCTS, 1 / 4),
    (2**20, 8, PYTORCH, 1.0),
    (None, None, PYTORCH, 1.0),
)


def _work(experts: int, queries: int) -> tuple[int, int]:
    """Operations of the two products, and bytes that must move: queries and keys in, half scores once, answers out."""
    side = round(experts**0.5)
    return 2 * queries * side * WIDTH, 4 * (queries * WIDTH + side * WIDTH + 2 * queries * side + 2 * queries * K)


@click.command()
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(1), help="How often every peer is timed.")
@click.option("--seconds", default=1.0, show_default=True, help="How long each peer is called in a round.")
@click.option("--quick", is_flag=True, help="Few sizes and short, to see that it works; not to be quoted.")
@click.option("--markdown", is_flag=True, help="Tables for a README.")
@machine()
def main(rounds: int, seconds: float, quick: bool, markdown: bool) -> None:
    """Milliseconds of a lookup (k = 32, query width 256, float32), and ratios within the same round."""
    on_cpu = os.environ.get("JAX_PLATFORMS", "cpu") == "cpu"
    names = [name for name in _FUNCTIONS if on_cpu or name != PYTORCH]
    if quick:
        seconds = min(seconds, 0.2)
    sizes = list(itertools.product((2**12, 2**20), (8, 256)) if quick else itertools.product(EXPERTS, QUERIES))
    machine_limits = alternate(limits(), rounds)
    bandwidth = largest(machine_limits["copy"], "bytes_per_second")
    peak = largest(machine_limits["matrix product"], "flops_per_second")
    rows: list[tuple[object, ...]] = []
    over: dict[tuple[int, int, str], Spread] = {}
    for experts, queries in sizes:
        arguments = {"experts": experts, "queries": queries, "seconds": seconds}
        peers = {name: Measured(f"lookup_peers:{_FUNCTIONS[name]}", arguments) for name in names}
        times = {name: seconds_of(answer) for name, answer in alternate(peers, rounds).items()}
        flops, moved = _work(experts, queries)
        for name in names:
            over[experts, queries, name] = quotients(times[name].values, times[OURS].values)
            median = times[name].median
            shares = f"{flops / median / peak:.0%}", f"{moved / median / bandwidth:.0%}"
            ratio = "" if name == OURS else over[experts, queries, name]
            rows.append((f"2^{experts.bit_length() - 1}", queries, name, f"{1e3 * median:.3f}", ratio, *shares))
    headings = ("experts", "queries", "peer", "ms", "over ours", "of peak FLOP/s", "of copy bytes/s")
    print_table(
        f"Limits measured: {peak / 1e9:.0f} GFLOP/s, {bandwidth / 1e9:.1f} GB/s", headings, rows, markdown=markdown
    )
    verdicts = [_verdict(*wanted, over) for wanted in WANTED if wanted[2] in names]
    print_table("Wanted and measured", ("what", "wanted", "measured", "verdict"), verdicts, markdown=markdown)


def _verdict(
    experts: int | None, queries: int | None, peer: str, least: float, over: dict[tuple[int, int, str], Spread]
) -> tuple[object, ...]:
    """A wanted ratio beside the measured one; without a size, the worst of all sizes."""
    chosen = [size for size in over if size[2] == peer and experts in (None, size[0]) and queries in (None, size[1])]
    worst = min(chosen, key=lambda size: over[size].median)
    where = f"2^{worst[0].bit_length() - 1} experts, {worst[1]} queries"
    what = f"{peer} over ours, {where}" + (", the worst of all sizes" if experts is None else "")
    return what, f">= {least:g}", over[worst], "met" if over[worst].median >= least else "NOT MET"


if __name__ == "__main__":
    main()
