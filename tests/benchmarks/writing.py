"""Projection writes beside row-sparse Adam, their cost from 2^16 to 2^22 experts, conditioning, and a file of tokens.

python tests/benchmarks/writing.py [--quick] [--markdown] [--rounds N]
"""

from collections.abc import Sequence
from typing import Any

import click
import numpy as np
from processes import Measured, Spread, alternate, machine, print_table, quotients
from writing_peers import CHOSEN, TOLERANCE, WIDTH

OURS, FIXED, ADAM = "conjugate residuals", "steps of 0.6", "row-sparse Adam, tuned"
_PASSES, _OVER_ADAM, _FLAT, _TOKEN_SECONDS = 10, 15.0, 1.5, 15.0
_LOADS = (0.01, 0.1, 0.25, 0.5, 0.75, 0.9)
_SMALL = 1024  # experts of the dense singular values

Row = Sequence[object]


def _seconds(answers: list[list[dict[str, Any]]]) -> Spread:
    return Spread(tuple(one["seconds"] for (one,) in answers))


def _sentence(what: str, wanted: str, measured: object, met: bool) -> Row:
    return what, wanted, measured, "met" if met else "NOT MET"


def _against_adam(facts: int, experts: int, rounds: int) -> tuple[list[Row], list[Row]]:
    size = {"facts": facts, "experts": experts}
    peers = {
        OURS: Measured("writing_peers:projection", size),
        FIXED: Measured("writing_peers:projection", {**size, "step": 0.6}),
        ADAM: Measured("writing_peers:adam", size),
    }
    answers = alternate(peers, rounds)
    seconds = {name: _seconds(of_peer) for name, of_peer in answers.items()}
    first = {name: of_peer[0][0] for name, of_peer in answers.items()}
    rows = [(name, first[name]["passes"], seconds[name], f"{first[name]['residual']:.1e}") for name in peers]
    over = quotients(seconds[ADAM].values, seconds[OURS].values)
    passes = first[OURS]["passes"]
    return rows, [
        _sentence(f"passes to {TOLERANCE:g}", f"<= {_PASSES}", passes, passes <= _PASSES),
        _sentence("over tuned row-sparse Adam", f">= {_OVER_ADAM:g}", over, over.median >= _OVER_ADAM),
    ]


def _over_sizes(facts: int, sizes: Sequence[int], rounds: int) -> tuple[list[Row], list[Row]]:
    peers = {str(size): Measured("writing_peers:projection", {"facts": facts, "experts": 2**size}) for size in sizes}
    answers = alternate(peers, rounds)
    times = {name: _seconds(of_peer) for name, of_peer in answers.items()}
    rows = [
        (f"2^{name}", answers[name][0][0]["passes"], times[name], f"{1e6 * times[name].median / facts:.1f}")
        for name in peers
    ]
    medians = [spread.median for spread in times.values()]
    ratio = max(medians) / min(medians)
    what = f"cost per fact from 2^{sizes[0]} to 2^{sizes[-1]}, largest over smallest"
    return rows, [_sentence(what, f"<= {_FLAT:g}", f"{ratio:.2f}", ratio <= _FLAT)]


def _conditioning(loads: Sequence[float]) -> list[Row]:
    """Singular values of S alone, and passes and least eigenvalue of D^-1/2 S S^T D^-1/2 that decide them."""
    import jax.numpy as jnp
    from writing_peers import _selection

    from mome_jax.writing import project

    rows: list[Row] = []
    for load in loads:
        facts = max(2, int(load * _SMALL))
        selection = _selection(facts, _SMALL, CHOSEN)
        matrix = np.zeros((facts, _SMALL))
        np.add.at(matrix, (np.arange(facts)[:, None], np.asarray(selection.experts)), np.asarray(selection.weights))
        singular = np.linalg.svd(matrix, compute_uv=False)
        targets = np.random.default_rng(1).standard_normal((facts, WIDTH), dtype=np.float32)
        written = project(jnp.zeros((_SMALL, WIDTH)), selection, targets, tolerance=TOLERANCE, passes=2000)
        rows.append((load, f"{singular[0] / singular[-1]:.3g}", written.passes, f"{written.residuals.max():.1e}"))
    return rows


def _tokens(tokens: int, experts: int, chosen: Sequence[int], rounds: int) -> tuple[list[Row], list[Row]]:
    peers = {
        f"k = {k}": Measured("writing_peers:tokens", {"tokens": tokens, "experts": experts, "chosen": k})
        for k in chosen
    }
    answers = alternate(peers, rounds)
    times = {name: _seconds(of_peer) for name, of_peer in answers.items()}
    first = {name: of_peer[0][0] for name, of_peer in answers.items()}
    rows = [(name, first[name]["passes"], first[name]["open"], times[name]) for name in peers]
    name = next(iter(peers))
    met = times[name].median <= _TOKEN_SECONDS and first[name]["open"] == 0
    return rows, [_sentence(f"{tokens:,} tokens, {name}, seconds", f"<= {_TOKEN_SECONDS:g}", times[name], met)]


@click.command()
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(1), help="How often every peer is timed.")
@click.option("--quick", is_flag=True, help="Tiny, to see that it works; not to be quoted.")
@click.option("--markdown", is_flag=True, help="Tables for a README.")
@machine()
def main(rounds: int, quick: bool, markdown: bool) -> None:
    """Seconds and passes until every fact is within the tolerance, or every token under its threshold."""
    facts = 256 if quick else 2048
    rows, sentences = _against_adam(facts, 2**14 if quick else 2**20, rounds)
    title = f"{facts} facts, k = {CHOSEN}, width {WIDTH}, to {TOLERANCE:g}"
    print_table(title, ("writer", "passes", "seconds", "largest residual"), rows, markdown=markdown)
    rows, more = _over_sizes(facts, (14, 16) if quick else (16, 18, 20, 22), rounds)
    print_table("By number of experts", ("experts", "passes", "seconds", "us a fact"), rows, markdown=markdown)
    sentences += more
    rows = _conditioning(_LOADS[:2] if quick else _LOADS)
    title = f"Conditioning at {_SMALL} experts, k = {CHOSEN}"
    print_table(title, ("load n/M", "kappa of S", "passes", "largest residual"), rows, markdown=markdown)
    rows, more = _tokens(5000 if quick else 302_220, 2**15 if quick else 2**20, (4,) if quick else (4, 32), rounds)
    print_table("Tokens to the threshold", ("selection", "passes", "open", "seconds"), rows, markdown=markdown)
    sentences += more
    title = "Wanted and measured, median (smallest-largest)"
    print_table(title, ("what", "wanted", "measured", "verdict"), sentences, markdown=markdown)


if __name__ == "__main__":
    main()
