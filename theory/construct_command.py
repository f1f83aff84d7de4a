"""The command `construct`, and the file it writes. Everything heavier than click is imported on use."""

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from theory.console import CHECK_FAILED, Refusal, print_json, shared_flags

if TYPE_CHECKING:
    from theory.calibrated_memorizers import WeightedFacts
    from theory.construction import Wanted
    from theory.explicit_networks import Evaluation, Network

FORMAT = "loss-threshold construction 1"
_PRECISION = 1e-12  # relative to 1 + loss: what float64 has to reach
_MOST_KEYS = 4096


@click.command()
@click.option("--loss", type=click.FloatRange(0), default=0.9, show_default=True, help="Mean loss of a fact, nats.")
@click.option(
    "--hallucination",
    type=click.FloatRange(0, 1),
    default=0.4,
    show_default=True,
    help="Share of facts answered wrong.",
)
@click.option("--facts", type=click.IntRange(1), default=1000, show_default=True, help="Number of facts.")
@click.option("--answers", type=click.IntRange(2), default=32, show_default=True, help="Number of possible answers.")
@click.option(
    "--decoding",
    type=click.Choice(["greedy", "sampled"]),
    default="greedy",
    show_default=True,
    help="How an answer is taken: the unique largest logit (a tie is an error), or one sample at temperature 1.",
)
@click.option("--loss-cap", type=click.FloatRange(0), default=math.inf, help="No fact's loss is above this, nats.")
@click.option(
    "--calibrated", is_flag=True, help="Answers occur as often as the network says; facts then differ in frequency."
)
@click.option(
    "--form",
    type=click.Choice(["table", "keys", "next-token"]),
    default="table",
    show_default=True,
    help="onehot(fact) @ Z, or keys @ Z on random orthonormal keys, or a language model: question, answer, end.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("out/construction.safetensors"),
    show_default=True,
    help="File of weights, answers and frequencies.",
)
@shared_flags("seed", "json")
def construct(
    loss: float,
    hallucination: float,
    facts: int,
    answers: int,
    decoding: Any,
    loss_cap: float,
    calibrated: bool,
    form: str,
    out: Path,
    seed: int,
    as_json: bool,
) -> None:
    """Write down a network with exactly this training loss and this hallucination rate, without training.

    Every feasible point has one. Where none is possible, the bound that forbids it is named. The network is evaluated
    in float64 and, to show what is lost, in float32; the exit code is 1 if float64 misses the point by 1e-12.

    \b
    Example:
      loss-threshold construct --loss 0.9 --hallucination 0.4 --facts 1000 --answers 32
      loss-threshold construct --loss 0.9 --hallucination 0.4 --decoding sampled --loss-cap 4 --form keys
      loss-threshold construct --loss 0.9 --hallucination 0.4 --calibrated --out calibrated.safetensors
    """
    from theory import construction, explicit_networks

    wanted = construction.Wanted(loss, hallucination, facts, answers, decoding, loss_cap, calibrated)
    if form == "keys" and facts > _MOST_KEYS:
        raise Refusal(f"keys are built for at most {_MOST_KEYS} facts, got {facts}; use --form table or next-token")
    built = construction.construct(wanted)
    network = _network(built, form, seed)
    evaluations = {
        "NumPy float64": explicit_networks.evaluate_exactly(built.logits, built.labels, built.frequencies),
        "JAX float64": explicit_networks.evaluate(network, built.labels, built.frequencies),
        "JAX float32": explicit_networks.evaluate(network, built.labels, built.frequencies, float64=False),
    }
    header = _header(wanted, form, evaluations["JAX float64"])
    _save(out, network, built, header)
    reached = all(_miss(wanted, evaluations[name]) <= _PRECISION * (1.0 + loss) for name in list(evaluations)[:2])
    if as_json:
        shown = {name: {**asdict(one), "miss": _miss(wanted, one)} for name, one in evaluations.items()}
        print_json({**header, "evaluations": shown, "file": str(out), "reached": reached})
    else:
        _print(wanted, evaluations, out)
    if not reached:
        click.get_current_context().exit(CHECK_FAILED)


def _network(built: "WeightedFacts", form: str, seed: int) -> "Network":
    from theory import explicit_networks

    if form == "keys":
        return explicit_networks.keyed_network(built.logits, seed)
    if form == "next-token":
        return explicit_networks.next_token_network(built.logits)
    return explicit_networks.TableNetwork(built.logits)


def _miss(wanted: "Wanted", evaluation: "Evaluation") -> float:
    """How far the evaluation is from the point, in loss or rate."""
    error = evaluation.error(wanted.decoding, wanted.calibrated)
    return max(abs(evaluation.mean_loss_nats - wanted.loss_nats), abs(error - wanted.error_rate))


def _header(wanted: "Wanted", form: str, evaluation: "Evaluation") -> dict[str, Any]:
    cap = wanted.loss_cap_nats if math.isfinite(wanted.loss_cap_nats) else None
    return {"format": FORMAT, "form": form, **asdict(wanted), "loss_cap_nats": cap, "evaluation": asdict(evaluation)}


def _save(path: Path, network: "Network", built: "WeightedFacts", header: dict[str, Any]) -> None:
    import numpy as np
    from safetensors.numpy import save_file

    arrays = {**network._asdict(), "labels": built.labels, "frequencies": built.frequencies}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(
            {name: np.ascontiguousarray(array) for name, array in arrays.items()},
            path,
            metadata={"construction": json.dumps(header, sort_keys=True, allow_nan=False)},
        )
    except OSError as error:
        raise Refusal(f"{path}: cannot be written ({error}); choose another --out") from error


def read_construction(path: Path) -> tuple["Network", Any, Any, dict[str, Any]]:
    """The network, its labels, their frequencies and the header of a file that `construct` wrote; Refusal otherwise."""
    from safetensors import SafetensorError, safe_open

    from theory import explicit_networks

    forms = {
        "table": explicit_networks.TableNetwork,
        "keys": explicit_networks.KeyedNetwork,
        "next-token": explicit_networks.NextTokenNetwork,
    }
    try:
        with safe_open(path, framework="numpy") as file:
            header = json.loads((file.metadata() or {}).get("construction", "null"))
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a mapping)
    except (OSError, SafetensorError, ValueError) as error:
        raise Refusal(f"{path}: not a file that `construct` wrote ({error})") from error
    if not isinstance(header, dict) or header.get("format") != FORMAT or header.get("form") not in forms:
        raise Refusal(f"{path}: its header does not say {FORMAT!r}; write it with `loss-threshold construct`")
    form = forms[header["form"]]
    missing = {*form._fields, "labels", "frequencies"} - set(arrays)
    if missing:
        raise Refusal(f"{path}: {', '.join(sorted(missing))} missing; write it again with `loss-threshold construct`")
    network = form(*(arrays[name] for name in form._fields))
    return network, arrays["labels"], arrays["frequencies"], header


def _print(wanted: "Wanted", evaluations: dict[str, "Evaluation"], path: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    rate = "H_map" if wanted.calibrated and wanted.decoding == "greedy" else f"H_{wanted.decoding}"
    kind = "calibrated network" if wanted.calibrated else "network"
    table = Table("", "mean loss, nats", rate, "off by", box=None, title_justify="left")
    table.title = f"A {kind} for {wanted.facts} facts, {wanted.answers} answers, nothing trained"
    table.add_row("wanted", repr(wanted.loss_nats), repr(wanted.error_rate), "")
    for name, one in evaluations.items():
        error = one.error(wanted.decoding, wanted.calibrated)
        table.add_row(name, repr(one.mean_loss_nats), repr(error), f"{_miss(wanted, one):.1e}")
    console = Console(highlight=False)
    console.print(table)
    console.print(f"\nSaved to {path}", markup=False)
