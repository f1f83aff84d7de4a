"""The filter of stored fingerprints: bits per fact beside the bounds, false acceptance, questions a second.

python tests/benchmarks/gate.py [--quick] [--markdown]
"""

import math
from typing import Any

import click
from gate_peers import ASKED
from peers import largest, limits, seconds_of
from processes import Measured, Spread, alternate, machine, print_table

OURS, BLOOM, TABLE, COPY = "ours", "Bloom filter, JAX", "sorted 64 bits, NumPy", "copy"
_PEERS = {OURS: "gate_peers:cuckoo", BLOOM: "gate_peers:bloom", TABLE: "gate_peers:table"}
_UNIVERSE = 2**64


def _floor_bits(facts: int, rate: float) -> float:
    """Least bits per fact of a memory of 64-bit fingerprints that answers at most this share of the others (F3)."""
    from theory.membership import answered_bits_lower

    return answered_bits_lower(facts, _UNIVERSE, facts + math.ceil(rate * (_UNIVERSE - facts))) / facts


def _bloom_bits(rate: float) -> float:
    return math.log2(1 / rate) / math.log(2)


Rounds = list[list[dict[str, Any]]]


def _row(name: str, rate: float, rounds: Rounds, facts: int, bandwidth: float) -> tuple[object, ...]:
    from mome_jax.gate import rate_interval

    one, seconds = rounds[0][0], seconds_of(rounds).median
    bits = 8 * one["bytes"] / facts
    lower, upper = rate_interval(one["accepted"], ASKED, 0.99)
    return (
        f"{facts:,}",
        f"{rate:g}",
        name,
        f"{bits:.2f}",
        f"{bits / _floor_bits(facts, rate):.2f}",
        f"{bits / _bloom_bits(rate):.2f}",
        f"{one['accepted'] / ASKED:.5f}",
        f"{lower:.5f}-{upper:.5f}",
        "" if name == TABLE else ("yes" if lower <= rate <= upper else "NO"),
        f"{ASKED / seconds / 1e6:.1f}",
        f"{one['touched'] * ASKED / seconds / bandwidth:.1%}",
        Spread(tuple(each[0]["building_seconds"] for each in rounds)),
    )


@click.command()
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(1), help="How often every peer is timed.")
@click.option("--quick", is_flag=True, help="Small, to see that it works; not to be quoted.")
@click.option("--markdown", is_flag=True, help="Tables for a README.")
@machine()
def main(rounds: int, quick: bool, markdown: bool) -> None:
    """Bits per fact, measured false acceptance with its 99 % interval, and questions a second in one batch."""
    rows: list[tuple[object, ...]] = []
    for facts in (10_000,) if quick else (10**5, 10**6):
        for rate in (0.1, 0.01, 0.001):
            arguments = {"facts": facts, "rate": rate}
            peers = {name: Measured(function, arguments) for name, function in _PEERS.items()}
            answers = alternate({**peers, COPY: limits()[COPY]}, rounds)
            bandwidth = largest(answers.pop(COPY), "bytes_per_second")
            rows += [_row(name, rate, of_peer, facts, bandwidth) for name, of_peer in answers.items()]
    headings = (
        "facts",
        "q",
        "filter",
        "bits a fact",
        "over F3",
        "over Bloom's",
        "accepted",
        "99 % interval",
        "q inside",
    )
    headings = (*headings, "million/s", "of copy", "s to build")
    print_table(f"{ASKED:,} unknown fingerprints asked in one batch", headings, rows, markdown=markdown)


if __name__ == "__main__":
    main()
