"""What `sweep` ends with: one line a size, the critical sizes, what one width says about another, the audit."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.table import Table as Columns

from sims import summary
from sims.summary import CriticalSize
from theory.console import print_json

Table = Mapping[str, np.ndarray]


def report(table: Table, path: Path, *, as_json: bool) -> None:
    """Print what the runs of `table` say, as text or as one JSON document."""
    best = summary.best_rates(table)
    critical = summary.critical_sizes(best)
    if as_json:
        print_json(_document(best, critical, path))
        return
    console = Console(width=None if Console().is_terminal else 120)
    for family in _families(best):
        console.print(_lines(family))
    for text in [_LEGEND, *_critical_lines(critical), *_region_lines(table), *_audit_lines(best), *_notes(table, best)]:
        click.echo(text)


def predicted_loss_nats(runs: Table) -> np.ndarray:
    """Least loss of each run's size by T7, at the most bits that any size of its group memorized: mean over seeds.

    Answers that are not uniform have fewer bits than n log2 V; what they lack counts as if it were stored.
    """
    sizes = np.unique(runs["size"])
    bits = max(np.nanmean(runs["bits_memorized"][runs["size"] == size]) for size in sizes)
    return np.maximum(0.0, (runs["label_bits"] - bits) * np.log(2) / runs["size"])


def _families(best: Table) -> list[Table]:
    """Runs that differ in width, size and seed alone."""
    alike = [name for name in summary.GROUP if name != "width"]
    keys = list(dict.fromkeys(zip(*(best[name].tolist() for name in alike), strict=True)))
    return [
        summary.take(best, np.all([best[name] == value for name, value in zip(alike, key, strict=True)], axis=0))
        for key in keys
    ]


def _lines(family: Table) -> Columns:
    first = {name: column[0] for name, column in family.items()}
    title = f"{first['facts']}: {first['network']}, {first['answers']} answers, {first['exposures']} exposures"
    columns = Columns(title=title, title_justify="left")
    columns.add_column("facts", justify="right")
    widths = np.unique(family["width"])
    for width in widths:
        parameters = int(np.nanmax(family["parameters"][family["width"] == width]))
        columns.add_column(f"width {width} ({parameters:,})\nloss theory greedy sampled  rate", justify="right")
    predicted = np.empty(len(family["size"]))
    for width in widths:
        rows = family["width"] == width
        predicted[rows] = predicted_loss_nats(summary.take(family, rows))
    for size in np.unique(family["size"]):
        cells = []
        for width in widths:
            rows = (family["width"] == width) & (family["size"] == size)
            cells.append(_cell(summary.take({**family, "predicted": predicted}, rows)))
        columns.add_row(f"{size:,}", *cells)
    return columns


def _cell(runs: Table) -> str:
    names = ("loss_nats", "predicted", "hallucination_greedy", "hallucination_sampled", "learning_rate")
    if not (runs["status"] == "finished").any():
        return "diverged"
    loss, theory, greedy, sampled, rate = (np.nanmean(runs[name]) for name in names)
    return f"{loss:5.3f} {theory:5.3f} {greedy:6.1%} {sampled:6.1%} {rate:5.3g}"


_LEGEND = (
    "loss: nats at the best learning rate, mean over seeds. theory: the least loss (T7) with the most bits that this\n"
    "network memorized at any size. greedy, sampled: share of the trained facts answered wrongly. rate: the best one."
)


def _critical_lines(critical: Sequence[CriticalSize]) -> list[str]:
    lines = []
    for one in critical:
        name = f"{one.group['network']} {one.group['width']}, {one.group['answers']} answers"
        if not one.reached:
            if min(one.sizes) == np.inf:
                state = "99 % of the facts are stored even at the largest size; ask for more with --sizes"
            elif max(one.sizes) == 0:
                state = "99 % of the facts are stored at none of these sizes; ask for fewer with --sizes"
            else:
                state = "the threshold lies outside of these sizes for some seeds; ask for more with --sizes"
            lines.append(f"{name}: {state}")
            continue
        low, high = one.interval
        interval = f"{low:,.0f} to {high:,.0f}" if np.isfinite(high) else "one seed, no interval"
        lines.append(
            f"{name}: 99 % of the facts are stored up to n_c = {one.mean:,.0f} ({interval}), "
            f"{one.bits_per_parameter:.2f} bits per parameter"
        )
    for transfer in summary.transfers(list(critical)):
        source, target = transfer.source.group, transfer.target.group
        lines.append(
            f"  from width {source['width']}, {source['answers']} answers: width {target['width']}, "
            f"{target['answers']} answers predicted {transfer.predicted:,.0f}, measured {transfer.target.mean:,.0f} "
            f"({transfer.ratio - 1:+.0%})"
        )
    return lines


def _region_lines(table: Table) -> list[str]:
    runs = summary.take(table, table["status"] == "finished")
    if not len(runs["size"]):
        return []
    outside = [summary.outside_region(runs, f"hallucination_{way}") for way in ("greedy", "sampled")]
    names = runs["fingerprint"][np.any(outside, axis=0)]
    if len(names):
        return [f"ERROR: outside of the region that T2 and T3 allow, which is a bug: runs {', '.join(names)}"]
    return [f"feasible region: all {len(runs['size'])} runs lie inside of what T2 (greedy) and T3 (sampled) allow"]


def _audit_lines(best: Table) -> list[str]:
    finished = best["status"] == "finished"
    if not finished.any():
        return []
    ratio = np.where(finished, best["certified_ratio"], -np.inf)
    top = int(np.argmax(ratio))
    certified = "certified" if best["certifiable"][top] else "not certifiable (labels are not random)"
    return [
        f"audit, {certified}: at best {best['certified_memorized_bits'][top]:,.0f} bits memorized in "
        f"{best['certified_bits'][top]:,.0f} bits of weights ({ratio[top]:.2f}), width {best['width'][top]} at "
        f"{best['size'][top]:,} facts, {best['certified_format_bits'][top]:.0f} bits a weight"
    ]


def _notes(table: Table, best: Table) -> list[str]:
    notes = []
    for width in np.unique(best["width"]):
        edge = best["rate_at_edge"] & (best["width"] == width)
        found = sorted(set(zip(best["size"][edge].tolist(), best["learning_rate"][edge].tolist(), strict=True)))
        if found:
            where = ", ".join(f"{size:,} facts ({rate:g})" for size, rate in found)
            notes.append(f"warning: width {width}: the best rate is at the edge of the rates tried at {where}")
    if diverged := int((table["status"] == "diverged").sum()):
        notes.append(f"note: {diverged} of {len(table['status'])} runs diverged; they are kept as results")
    return notes


def _document(best: Table, critical: Sequence[CriticalSize], path: Path) -> dict[str, Any]:
    columns = ("size", "width", "seed", "answers", "learning_rate", "rate_at_edge", "loss_nats", "hallucination_greedy")
    more = ("hallucination_sampled", "stored_rate", "bits_per_parameter", "certified_ratio", "capped")
    names = [name for name in (*columns, *more) if name in best]
    finished = summary.take(best, best["status"] == "finished")
    rows = zip(*(best[name].tolist() for name in names), strict=True)
    return {
        "store": str(path),
        "runs": [dict(zip(names, row, strict=True)) for row in rows],
        "outside_region": [
            name
            for way in ("greedy", "sampled")
            for name in finished["fingerprint"][summary.outside_region(finished, f"hallucination_{way}")]
        ],
        "critical_sizes": [
            {
                **one.group,
                "parameters": one.parameters,
                "critical_size": one.mean if one.reached else None,
                "interval": one.interval if one.reached else None,
                "bits_per_parameter": one.bits_per_parameter if one.reached else None,
            }
            for one in critical
        ],
        "transfers": [
            {"from": one.source.group, "to": one.target.group, "predicted": one.predicted, "measured": one.target.mean}
            for one in summary.transfers(list(critical))
        ],
    }
