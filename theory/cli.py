"""The commands `bounds` and `judge`. Everything heavier than click is imported on use."""

import functools
import math
import re
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import click

from theory.console import CHECK_FAILED, Refusal, print_json, shared_flags
from theory.cost_command import cost


class Whole(click.IntRange):
    """A whole number, also written as 8e9."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Float notation is taken where it names a whole number exactly."""
        number: Any = value
        if isinstance(value, str) and re.fullmatch(r"\d+(\.\d+)?[eE]\+?\d{1,3}", value):
            exact = Decimal(value)
            number = int(exact) if exact == exact.to_integral_value() else value
        return super().convert(number, param, ctx)


_ANSWERS = Whole(2)
_POSITIVE = Whole(1)
_NUMBER = click.FloatRange(0)


def _refusing(command: Callable) -> Callable:
    """Turn what the theory refuses (NaN, a mean above the cap, a number beyond float64) into a one-line refusal."""

    @functools.wraps(command)
    def run(*arguments, **options):
        try:
            return command(*arguments, **options)
        except (ValueError, OverflowError) as error:
            if isinstance(error, Refusal):
                raise
            raise Refusal(f"{error}; see --help") from error

    return run


def _console():
    from rich.console import Console

    return Console(highlight=False)


def _print_lines(title: str, lines: list[tuple[str, str, str]]) -> None:
    """Print (quantity, value, claim) lines under a title."""
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=None, show_header=False, padding=(0, 2, 0, 0))
    for line in lines:
        table.add_row(*line)
    _console().print(table)


def _percent(low: float, high: float | None = None) -> str:
    return f"{100 * low:.4g} %" if high is None else f"{100 * low:.4g} to {100 * high:.4g} %"


# ---- bounds


@click.group(invoke_without_command=True)
@click.pass_context
def bounds(ctx: click.Context) -> None:
    """Evaluate the bounds for your numbers.

    Without a name: `bounds capacity` with its defaults.

    \b
    Example:
      loss-threshold bounds capacity --parameters 4192 --bits-per-parameter 2 --facts 4096 --answers 32
      loss-threshold bounds decoding --loss 0.9 --answers 32 --facts 1000
    """
    if ctx.invoked_subcommand is None:
        ctx.invoke(capacity_bounds)


@bounds.command("capacity")
@click.option(
    "--parameters", type=_POSITIVE, default=4192, show_default=True, help="Trained parameters of the network."
)
@click.option(
    "--bits-per-parameter", type=_NUMBER, default=2.0, show_default=True, help="Bits that each of them holds."
)
@click.option(
    "--exposures", type=_NUMBER, help="Take bits per parameter from the published law at this many exposures."
)
@click.option("--facts", type=_POSITIVE, default=4096, show_default=True, help="Number of facts.")
@click.option("--answers", type=_ANSWERS, default=32, show_default=True, help="Number of possible answers of a fact.")
@click.option(
    "--failure-bits", type=_NUMBER, default=0.0, show_default=True, help="0: in expectation; t: but for 2^-t."
)
@shared_flags("json")
@_refusing
def capacity_bounds(
    parameters: int,
    bits_per_parameter: float,
    exposures: float | None,
    facts: int,
    answers: int,
    failure_bits: float,
    as_json: bool,
) -> None:
    """From bits to loss and hallucination: can the network hold the facts, and what must it get wrong?

    With the true size of the weights (say 32 bits per parameter) these are bounds; with a measured coefficient, such as
    2, they are predictions. Answers are independent and uniform.

    \b
    Example:
      loss-threshold bounds capacity --parameters 4192 --bits-per-parameter 2 --facts 4096 --answers 32
      loss-threshold bounds capacity --parameters 124000000 --exposures 100 --facts 1000000 --answers 1000 --json
    """
    from theory import capacity, decoding

    if exposures is not None:
        bits_per_parameter = float(capacity.published_bits_per_parameter(exposures))
    bits = parameters * bits_per_parameter
    loss = float(capacity.loss_lower_nats(facts, bits, answers, failure_bits))
    floor = float(capacity.error_lower(facts, bits, answers, failure_bits))
    greedy = [float(rate) for rate in decoding.greedy_error_rates(loss, answers=answers, facts=facts)]
    sampled = [float(rate) for rate in decoding.sampled_error_rates(loss, facts=facts)]
    size = float(capacity.critical_size(bits, answers))
    result = {
        "bits": bits,
        "bits_per_parameter": bits_per_parameter,
        "critical_size": size,
        "load": facts / size if size else math.inf,
        "loss_lower_nats": loss,
        "error_lower": floor,
        "greedy_error_at_that_loss": greedy,
        "sampled_error_at_that_loss": sampled,
    }
    if as_json:
        print_json(result)
        return
    _print_lines(
        f"{facts} facts with {answers} answers in {parameters} parameters at {bits_per_parameter:.4g} bits",
        [
            ("stored bits", f"{bits:.6g} of {facts * math.log2(answers):.6g} asked", ""),
            ("critical size", f"{size:.6g} facts, so {facts} are {result['load']:.4g} times as many", "T7"),
            ("mean loss", f"at least {loss:.6g} nats, of at most ln V = {math.log(answers):.6g}", "T7"),
            ("hallucination", f"at least {_percent(floor)}, greedy and sampled", "F1"),
            ("at that loss, greedy", _percent(*greedy), "T2"),
            ("at that loss, sampled", _percent(*sampled), "T3"),
        ],
    )


@bounds.command("decoding")
@click.option("--loss", "mean_loss", type=_NUMBER, default=0.9, show_default=True, help="Mean loss of a fact, nats.")
@click.option(
    "--answers", type=_ANSWERS, default=32, show_default=True, help="Number of possible answers (of a token)."
)
@click.option("--facts", type=_POSITIVE, help="Number of facts. [default: the limit of many]")
@click.option("--loss-cap", type=_NUMBER, default=math.inf, help="No fact's loss is above this. [default: no cap]")
@click.option("--tokens", type=_POSITIVE, help="Tokens of an answer, end token included; --loss is then per token.")
@shared_flags("json")
@_refusing
def decoding_bounds(
    mean_loss: float, answers: int, facts: int | None, loss_cap: float, tokens: int | None, as_json: bool
) -> None:
    """From loss to hallucination: which error rates are possible at this loss?

    \b
    Example:
      loss-threshold bounds decoding --loss 0.9 --answers 32 --facts 1000
      loss-threshold bounds decoding --loss 1.75 --answers 256 --tokens 32
    """
    from theory import decoding

    result: dict[str, Any] = {"mean_loss_nats": mean_loss, "answers": answers, "facts": facts, "tokens": tokens}
    if tokens is None:
        low, high = decoding.greedy_error_rates(mean_loss, answers=answers, facts=facts, loss_cap_nats=loss_cap)
        sampled = decoding.sampled_error_rates(mean_loss, facts=facts, loss_cap_nats=loss_cap)
        result |= {
            "fact_of_this_loss": decoding.fact_verdict(mean_loss, answers),
            "hallucination_greedy": [float(low), float(high)],
            "hallucination_sampled": [float(sampled[0]), float(sampled[1])],
            "zero_errors_below_nats": math.log(2.0) / facts if facts else 0.0,
        }
        lines = [
            ("one fact of this loss", f"greedy decoding: {result['fact_of_this_loss']}", "T1"),
            ("greedy errors", _percent(float(low), float(high)), "T2"),
            ("sampled errors", _percent(float(sampled[0]), float(sampled[1])), "T3"),
        ]
        if facts:
            lines.append(("no error is certain below", f"{result['zero_errors_below_nats']:.6g} nats", "T2"))
    else:
        wrong = int(decoding.wrong_fact_count_upper(mean_loss, facts or 1, tokens))
        exactly = float(decoding.exact_decoding_probability(mean_loss * tokens))
        result |= {
            "wrong_facts_upper": wrong,
            "exact_sampling_probability": exactly,
            "all_right_below_nats_per_token": math.log(2.0) / (tokens * (facts or 1)),
        }
        lines = [
            ("sampled exactly", f"with probability {exactly:.4g}, at a loss of {mean_loss * tokens:.6g} nats", "T4"),
            ("decoded wrong, greedy", f"at most {wrong} of {facts or 1}", "T4"),
            ("all right for certain", f"below {result['all_right_below_nats_per_token']:.6g} nats per token", "T4"),
        ]
    if as_json:
        print_json(result)
    else:
        _print_lines(f"Mean loss {mean_loss:.6g} nats, {answers} answers", lines)


bounds.add_command(cost)


# ---- judge


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--answers", type=_ANSWERS, help="Number of possible answers; with a tokens column, of a token.")
@click.option("--described-bits", type=_NUMBER, help="Bits that describe everything trained, choices included.")
@click.option("--random-labels", is_flag=True, help="The answers were drawn uniformly and independently.")
@click.option("--resolution", type=_NUMBER, default=1e-5, show_default=True, help="How well a loss is known, nats.")
@shared_flags("json")
@_refusing
def judge(
    file: Path, answers: int | None, described_bits: float | None, random_labels: bool, resolution: float, as_json: bool
) -> None:
    """Hold anybody's per-fact losses against every claim that applies.

    FILE is CSV or Parquet with one row per fact and a column loss_nats, -ln of the probability of the fact's answer (of
    an answer of several tokens the sum). Optional columns: run, greedy_correct, tokens, entropy_nats, size. The exit
    code is 1 if a claim is violated: the measurement has a bug, or an assumption is false.

    \b
    Example:
      loss-threshold judge losses.csv --answers 32
      loss-threshold judge losses.csv --answers 32 --described-bits 134144 --random-labels --json
    """
    from theory.judge import judge as judge_run
    from theory.loss_tables import read_losses

    losses = read_losses(file)
    judgments = {
        table.run: judge_run(
            table.losses_nats,
            table.greedy_correct,
            answers=answers,
            tokens=table.tokens,
            described_bits=described_bits,
            entropy_nats=table.entropy_nats,
            random_labels=random_labels,
            all_facts=table.size in (None, len(table.losses_nats)),
            audits=len(losses.runs),
            resolution_nats=resolution,
        )
        for table in losses.runs
    }
    if as_json:
        print_json(_judgments_document(judgments, losses.unused_columns))
    else:
        _print_judgments(judgments, losses.unused_columns)
    if any(judgment.violated for judgment in judgments.values()):
        click.get_current_context().exit(CHECK_FAILED)


def _judgments_document(judgments: dict, unused_columns: tuple[str, ...]) -> dict[str, Any]:
    from dataclasses import asdict

    runs = [{"run": run, **asdict(judgment), "violated": judgment.violated} for run, judgment in judgments.items()]
    return {"runs": runs, "unused_columns": unused_columns}


def _print_judgments(judgments: dict, unused_columns: tuple[str, ...]) -> None:
    """Two tables: one line per run, and one line per claim with a detail (of a run that violates it, else of the
    first).
    """
    from rich.table import Table

    runs = Table("run", "facts", "loss, nats", "floor", "greedy errors", "sampled errors", "violated", box=None)
    for run, judgment in judgments.items():
        low, high = judgment.hallucination_greedy
        floor = judgment.entropy_floor_nats
        runs.add_row(
            run,
            str(judgment.facts),
            f"{judgment.mean_loss_nats:.6g}",
            "" if floor is None else f"{floor:.4g}",
            _percent(low) if low == high else _percent(low, high),
            _percent(judgment.hallucination_sampled),
            ", ".join(judgment.violated) or "none",
        )
    claims = Table("claim", "verdict", "detail", box=None)
    for place in range(len(next(iter(judgments.values())).findings)):
        findings = [(run, judgment.findings[place]) for run, judgment in judgments.items()]
        severity = ("violated", "holds", "does not apply")
        run, finding = min(findings, key=lambda found: severity.index(found[1].verdict))
        alike = sum(other.verdict == finding.verdict for _, other in findings)
        verdict = finding.verdict if len(findings) == 1 else f"{finding.verdict} ({alike} of {len(findings)})"
        named = len(findings) > 1 and finding.verdict != "does not apply"
        claims.add_row(finding.claim, verdict, f"{run}: {finding.detail}" if named else finding.detail)
    console = _console()
    console.print(runs)
    console.print()
    console.print(claims)
    if unused_columns:
        console.print(f"\nColumns not used: {', '.join(unused_columns)}")
