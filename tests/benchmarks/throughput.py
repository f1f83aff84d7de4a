"""Training throughput beside PyTorch, a jitted JAX step in a Python loop, and the machine's matrix product.

python tests/benchmarks/throughput.py [--quick] [--markdown]
"""

import os
from dataclasses import replace
from typing import Any

import click
from processes import Measured, Spread, alternate, machine, print_table, quotients
from tasks import ANSWERS, FEATURES, Task

TRAINING = "ours, training alone"
OURS, PYTORCH, PYTORCH_BESIDE, PYTORCH_COMPILED = "ours", "PyTorch", "PyTorch, a process a core", "PyTorch, compiled"
ONE_THREAD, ALL_THREADS = "PyTorch, 1 thread", "PyTorch, a thread a core"
JAX_STEPS, MATRICES = "JAX, step by step", "matrix product"
# (minibatch, peer, at least so many times its rate)
WANTED = ((64, PYTORCH, 8.0), (256, PYTORCH, 4.0), (64, JAX_STEPS, 4.0))
_PYTORCH_SECONDS = 12.0  # what is done by then counts: two threads on a busy machine may never end
WANTED_SHARE, GOAL_SHARE, SHARE_MINIBATCH = 0.3, 0.5, 1024


def _peers(task: Task, with_compile: bool) -> dict[str, Measured]:
    cores = os.cpu_count() or 1
    share = replace(task, runs=max(1, task.runs // cores)).spec
    pytorch, limit = "pytorch_loop:train", {"seconds_at_most": _PYTORCH_SECONDS}
    peers = {
        OURS: Measured("engine:sweep", task.spec),
        ONE_THREAD: Measured(pytorch, task.spec | limit),
        ALL_THREADS: Measured(pytorch, {**task.spec, **limit, "threads": cores}),
        PYTORCH_BESIDE: Measured(pytorch, share | limit, copies=cores),
        JAX_STEPS: Measured("jax_peers:train", task.spec),
        MATRICES: Measured("jax_peers:matrix_product", {}),
    }
    if with_compile:
        peers[PYTORCH_COMPILED] = Measured(pytorch, {**task.spec, **limit, "compiled": True})
    return peers


def _rates(rounds: list[list[dict[str, Any]]]) -> list[float]:
    """Fact-steps a second of each round; processes side by side are as fast as the slower one."""
    return [sum(one["fact_steps"] for one in beside) / max(one["seconds"] for one in beside) for beside in rounds]


def _row(name: str, rates: dict[str, list[float]], peak: list[float], flops: float, task: Task) -> tuple[object, ...]:
    rate = Spread(tuple(rates[name])).median
    return (
        name,
        f"{rate:,.0f}",
        f"{1e6 * task.minibatch / rate:.0f}",
        f"{flops * rate / 1e9:.1f}",
        f"{flops * quotients(rates[name], peak).median:.1%}",
        "" if name == OURS else quotients(rates[OURS], rates[name]),
    )


def _loss(rounds: list[list[dict[str, Any]]] | None) -> str:
    """The median final loss of the first round's first process; empty where time ran out in the first run."""
    loss = rounds[0][0]["loss_nats"] if rounds else None
    return "" if loss is None else f"{loss:.3f}"


def _flops_per_fact_step(task: Task) -> float:
    from sims.networks import Architecture

    return Architecture("mlp", FEATURES, task.width, ANSWERS, layers=1, heads=1).flops_per_fact_step


@click.command()
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(1), help="How often every peer is timed.")
@click.option("--minibatches", default="64,256,1024", show_default=True)
@click.option("--compiled", is_flag=True, help="Also PyTorch with torch.compile (needs a C++ compiler; slow to start).")
@click.option("--quick", is_flag=True, help="Tiny, to see that it works; not to be quoted.")
@click.option("--markdown", is_flag=True, help="Tables for a README.")
@machine()
def main(rounds: int, minibatches: str, compiled: bool, quick: bool, markdown: bool) -> None:
    """Fact-steps a second of a 32-64-32 MLP, every peer in processes of its own, in alternation."""
    whole = Task(exposures=20, runs=8) if quick else Task()
    tasks = [replace(whole, minibatch=int(text)) for text in minibatches.split(",")]
    flops = _flops_per_fact_step(tasks[0])
    rows: list[tuple[object, ...]] = []
    sentences: list[tuple[object, ...]] = []
    for task in tasks:
        answers = alternate(_peers(task, compiled), rounds)
        peak = [beside[0]["flops"] for beside in answers.pop(MATRICES)]
        rates = {name: _rates(of_peer) for name, of_peer in answers.items()}
        rates[TRAINING] = [one["fact_steps"] / (one["seconds"] - one["measuring_seconds"]) for (one,) in answers[OURS]]
        rates[PYTORCH] = list(map(max, rates[ONE_THREAD], rates[ALL_THREADS]))  # the faster one of each round
        rows += [(task.minibatch, *_row(name, rates, peak, flops, task), _loss(answers.get(name))) for name in rates]
        rows.append((task.minibatch, MATRICES, "", "", str(Spread(tuple(value / 1e9 for value in peak))), "", "", ""))
        sentences += [
            _sentence(f"minibatch {task.minibatch}, over {peer}", quotients(rates[OURS], rates[peer]), factor)
            for minibatch, peer, factor in WANTED
            if minibatch == task.minibatch
        ]
        if task.minibatch == SHARE_MINIBATCH:
            share = Spread(tuple(flops * value for value in quotients(rates[OURS], peak).values))
            text = f"minibatch {task.minibatch}, share of the matrix product rate (goal {GOAL_SHARE})"
            sentences.append(_sentence(text, share, WANTED_SHARE))
    headings = ("minibatch", "peer", "facts/s", "us a step", "GFLOP/s", "of peak", "ours over it", "loss")
    title = f"{tasks[0].runs} runs of {tasks[0].size} facts, {tasks[0].exposures} exposures, 32-{tasks[0].width}-32 MLP"
    print_table(title, headings, rows, markdown=markdown)
    title = "Wanted and measured, median (smallest-largest)"
    print_table(title, ("what", "wanted", "measured", "verdict"), sentences, markdown=markdown)


def _sentence(what: str, measured: Spread, wanted: float) -> tuple[object, ...]:
    return what, f">= {wanted:g}", measured, "met" if measured.median >= wanted else "NOT MET"


if __name__ == "__main__":
    main()
