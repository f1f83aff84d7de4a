"""The command `verify`: attack the claims, prove their inequalities, and report how they stood."""

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import click

from theory.claims import Claim, all_claims, replay
from theory.console import CHECK_FAILED, Refusal, print_json, shared_flags
from theory.proof import Inequality, inequalities
from theory.verification import Record, Report, verified

_COLUMNS = "{:<6}{:<38}{:<9}{:<11}{:>8}{:>13}{:>7}{:>14}{:>9}  {}"
_PROOFS = "  {:<28}"


@click.command()
@click.argument("names", metavar="[CLAIM]...", nargs=-1)
@click.option("--examples", type=click.IntRange(1), default=500, show_default=True, help="Cases to try on each claim.")
@click.option("--prove", "with_proofs", is_flag=True, help="Prove the inequalities on their boxes as well.")
@click.option("--processes", type=click.IntRange(1), help="How many claims to attack at once. [default: one a core]")
@click.option(
    "--record",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Keep finished reports in this file, and do not repeat those it has (of the same search and code).",
)
@click.option("--replay", "tape", help="Repeat a counterexample of one claim: the numbers printed with it.")
@shared_flags("seed", "json", "list")
def verify(
    names: tuple[str, ...],
    examples: int,
    with_proofs: bool,
    processes: int | None,
    record: Path | None,
    tape: str | None,
    seed: int,
    as_json: bool,
    list_names: bool,
) -> None:
    """Attack the claims and report how they stood.

    Each claim is tried on its witnesses and on searched cases, then its negative control, one assumption dropped, has
    to fall. With --prove the inequalities that it comes down to are proved on whole boxes by ball arithmetic. The exit
    code is 1 if a claim is violated, not as sharp as it says, its control stands, or a proof fails.

    \b
    Example:
      loss-threshold verify                      # all claims
      loss-threshold verify T2 T7 --examples 5000 --seed 1
      loss-threshold verify --prove
      loss-threshold verify --list
    """
    chosen = _chosen(names)
    if list_names:
        _print_statements(chosen, as_json=as_json)
        return
    if tape is not None:
        _replay(chosen, tape)
        return
    asked = {"examples": examples, "seed": seed, "with_proofs": with_proofs}
    kept = Record(record) if record is not None else None
    known = kept.reports(list(chosen), **asked) if kept is not None else {}
    missing = [name for name in chosen if name not in known]
    finished = verified(missing, **asked, processes=processes or os.cpu_count() or 1)
    reports = _kept(known, finished, kept)
    if as_json:
        found = {report["claim"]: report for report, _ in reports}
        print_json({"seed": seed, "claims": [found[name] for name in chosen]})
        passed = all(report["passed"] for report in found.values())
    else:
        passed = _print_as_they_come(list(chosen), reports, with_proofs=with_proofs)
    if not passed:
        click.get_current_context().exit(CHECK_FAILED)


def _chosen(names: tuple[str, ...]) -> dict[str, Claim]:
    claims = all_claims()
    unknown = [name for name in names if name not in claims]
    if unknown:
        raise Refusal(f"no claim is called {unknown[0]}; known are {', '.join(claims)}")
    return {name: claims[name] for name in names or claims}


def _kept(
    known: Mapping[str, Report], finished: Iterator[tuple[Report, list[str]]], record: Record | None
) -> Iterator[tuple[Report, list[str]]]:
    """What the record has, then what is finished, which enters the record."""
    yield from ((report, []) for report in known.values())
    for report, working in finished:
        if record is not None:
            record.add(report)
        yield report, working


def _print_as_they_come(names: list[str], reports: Iterable[tuple[Report, list[str]]], *, with_proofs: bool) -> bool:
    """One line a claim, in their order; on a terminal a last line says what is being worked on. Whether all passed."""
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True)
    header = _COLUMNS.format(
        "claim", "", "kind", "status", "examples", "least slack", "sharp", "control fell", "time", "verdict"
    )
    console.print(
        header.replace("  verdict", _PROOFS.format("proved on boxes") + "  verdict" if with_proofs else "  verdict")
    )
    waiting: dict[str, Report] = {}
    passed, place = True, 0
    with Live(Text(f"attacking {names[0]} ..."), console=console, transient=True, auto_refresh=False) as live:
        for report, working in reports:
            waiting[report["claim"]] = report
            passed &= report["passed"]
            while place < len(names) and names[place] in waiting:
                for line in _lines(waiting.pop(names[place]), with_proofs=with_proofs):
                    console.print(line)
                place += 1
            if console.is_terminal:
                done = place + len(waiting)
                live.update(
                    Text(f"{done} of {len(names)} claims; attacking {', '.join(working) or '...'}"), refresh=True
                )
    return passed


def _lines(report: Report, *, with_proofs: bool) -> Iterator:
    """The line of the table, and below it what is needed to see why a claim failed."""
    from rich.text import Text

    slack = report["smallest_slack"]
    line = _COLUMNS.format(
        report["claim"],
        report["title"][:37],
        report["kind"],
        report["status"],
        report["examples"],
        "inf" if slack is None else f"{slack + 0.0:.2g}",
        {True: "yes", False: "no", None: "-"}[report["sharp"]],
        f"after {report['control_examples']}" if report["control_counterexample"] else "no",
        f"{report['seconds']:.1f} s",
        "",
    )
    text = Text(line.rstrip(" ") + (_PROOFS.format(_proofs_in_words(report)) if with_proofs else "") + "  ")
    text.append(report["verdict"], "green" if report["passed"] else "bold red")
    yield text
    yield from (Text(f"      {detail}") for detail in _failures(report))


def _proofs_in_words(report: Report) -> str:
    proofs = report["proofs"]
    if not proofs:
        return "-"
    proved = sum(proof["verdict"] == "proved" for proof in proofs)
    return f"{proved} of {len(proofs)}, {sum(proof['boxes'] for proof in proofs)} boxes"


def _failures(report: Report) -> Iterator[str]:
    broken = report["counterexample"]
    if broken is not None:
        yield f"counterexample, slack {broken['slack']}: {broken['case']}"
        if broken["replay"] is not None:
            tape = " ".join(map(repr, broken["replay"]))
            yield f"again: loss-threshold verify {report['claim']} --replay '{tape}'"
        else:
            yield f"it is one of the claim's own cases: loss-threshold verify {report['claim']} --examples 1"
    if report["sharp"] is False:
        yield f"a witness is {report['witness_gap']} from equality; {report['tolerance']} is allowed"
    if report["control_counterexample"] is None:
        yield f"the negative control stood {report['control_examples']} examples: the search does not test the claim"
    for proof in report["proofs"] or ():
        if proof["verdict"] != "proved":
            where = " x ".join(f"[{low}, {high}]" if low != high else low for low, high in proof["where"])
            yield f"{proof['inequality']}: {proof['verdict']} at {where}; {proof['statement']}"


def _print_statements(claims: Mapping[str, Claim], *, as_json: bool) -> None:
    from rich.console import Console
    from rich.text import Text

    attributes = ("title", "kind", "status", "source", "statement", "assumptions", "proof", "dropped")
    on_boxes = inequalities()
    if as_json:
        print_json(
            {
                name: {field: getattr(claim, field) for field in attributes}
                | {"inequalities": [_stated(one) for one in on_boxes.get(name, [])]}
                for name, claim in claims.items()
            }
        )
        return
    console = Console(highlight=False)
    for name, claim in claims.items():
        console.print(Text(name, "bold").append(f"  {claim.title} ({claim.kind}, {claim.status})", "not bold"))
        console.print(f"    {claim.statement}", markup=False)
        for one in on_boxes.get(name, []):
            console.print(f"    On a box: {one.statement}.", markup=False, style="dim")
        console.print()


def _stated(one: Inequality) -> dict[str, object]:
    return {"name": one.name, "statement": one.statement, "why": one.why, "edges": [each.why for each in one.edges]}


def _replay(claims: Mapping[str, Claim], numbers: str) -> None:
    if len(claims) != 1:
        raise Refusal("--replay repeats a counterexample of one claim; name that claim")
    try:
        tape = [float(number) for number in numbers.replace(",", " ").split()]
    except ValueError as error:
        raise Refusal(f"--replay takes numbers in [0, 1], as printed with the counterexample: {error}") from error
    if not all(0.0 <= number <= 1.0 for number in tape):
        raise Refusal("--replay takes numbers in [0, 1], as printed with the counterexample")
    claim = next(iter(claims.values()))
    example = replay(claim, tape)
    click.echo(f"slack {example.slack:.6g}: {example.case}")
    if not example.slack >= -claim.tolerance:
        click.get_current_context().exit(CHECK_FAILED)
