"""Who agrees with whom about what does not exist, and what makes them: matrices, overlap, controls, width."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures import style
from figures.imagination import ACROSS, CHANCE, REAL, WITHIN, imagined, over_worlds, plain
from figures.tables import Table, rows, where
from theory.agreement import agreement

_OPTIONS, _VALUES = 4, 16
_KINDS = {"direct": "direct", "context": "another statement beside it", "leaking": "the answer leaks"}
_DASHED, _DOTTED = (0, (4, 2)), (0, (1, 1.5))


@imagined(
    "imagination-matrix",
    needs=("cells", "populations"),
    caption="Question models by answer models: how often the answer of the one that invented the question is given.",
)
def matrix(tables: Mapping[str, Table]) -> Figure:
    """One heat map a kind of question, of one world."""
    populations, cells = tables["populations"], tables["cells"]
    shown = [(kind, title, run) for kind, title in _KINDS.items() if (run := _population_of(populations, kind))]
    if not shown:
        return style.nothing("no population at the usual setting shares half of its facts")
    picture = style.new_figure(style.PAGE, 3.0)
    panels = np.atleast_1d(picture.subplots(1, len(shown)))
    maps = []
    for axes, (kind, title, run) in zip(panels, shown, strict=True):
        found = where(cells, (cells["population"] == run) & (cells["kind"] == kind))
        maps.append(_heat_map(axes, found, kind, title))
    panels[0].set_ylabel("question model")
    picture.colorbar(maps[-1], ax=list(panels), label="correctness", shrink=0.75)
    shares = {
        title: float(populations["world_shared_facts"][populations["fingerprint"] == run][0]) for _, title, run in shown
    }
    share = ", ".join(f"{title}: {value:.0%}" for title, value in shares.items())
    style.below(picture, f"{matrix.caption} Lines part families. Facts that families share: {share}. Chance: 25 %.")
    return picture


def _population_of(table: Table, kind: str) -> str | None:
    if kind == "direct":
        found = plain(table, world_shared_facts=0.5)
    else:
        found = where(table, table["stated_share"] > 0)
        found = where(found, found["width"] == found["width"].max()) if rows(found) else found
    return str(found["fingerprint"][np.argmin(found["world_seed"])]) if rows(found) else None


def _heat_map(axes: Axes, cells: Table, kind: str, title: str):
    models = int(cells["question_model"].max()) + 1
    values = np.empty((models, models))
    values[cells["question_model"], cells["answer_model"]] = cells["correctness"]
    drawn = axes.pcolormesh(
        values, vmin=0.0, vmax=1.0, cmap="cividis", gid=f"{kind} questions, correctness", rasterized=True
    )
    families = cells["question_family"][np.argsort(cells["question_model"], kind="stable")][::models]
    for edge in (np.flatnonzero(np.diff(families)) + 1).tolist():
        axes.axhline(edge, color="white", linewidth=0.8)
        axes.axvline(edge, color="white", linewidth=0.8)
    axes.set(title=title, xlabel="answer model", xticks=[], yticks=[], aspect="equal")
    axes.set_label(f"{kind} questions")
    axes.invert_yaxis()
    return drawn


@imagined(
    "imagination-overlap",
    needs=("populations",),
    caption="The more facts families share, the more they imagine alike.",
    claims=("T25",),
)
def overlap(tables: Mapping[str, Table]) -> Figure:
    """Agreement and correlation against the share of common facts, with theory and baselines."""
    table = plain(tables["populations"])
    if not rows(table):
        return style.nothing("no population at the usual setting")
    picture = style.new_figure(style.PAGE, 3.6)
    left, right = picture.subplots(1, 2)
    entries = _agreement_panel(left, table)
    left.set_label("agreement")
    at, ratio = over_worlds(table | {"ratio": _ratio(table)}, "world_shared_facts", "ratio")
    style.points(right, at, ratio, "correlation across over within families", color=ACROSS, marker="o")
    at, kernel = over_worlds(table, "world_shared_facts", "kernel_correlation")
    style.line(right, at, kernel, "kernel of infinite width, correlation", color=style.THEORY, linestyle=_DASHED)
    right.set(xlabel="shared facts", ylabel="correlation across / within families", ylim=(-0.05, 1.05))
    right.set_label("correlation")
    text = (
        f"{overlap.caption} Points: means of cells, bars 95 %. Dashed: infinite width's correlation, nothing fitted; "
        "on the left times the one measured within families, read as agreement by T25."
    )
    style.below(picture, text, entries, columns=3)
    return picture


def _ratio(table: Table) -> np.ndarray:
    return table["correlation_cross_family"].astype(float) / table["correlation_in_family"].astype(float)


def _agreement_panel(axes: Axes, table: Table) -> list:
    entries = []
    for relation, color, marker in (("in_family", WITHIN, "s"), ("cross_family", ACROSS, "o")):
        words = "within families" if relation == "in_family" else "across families"
        at, mean = over_worlds(table, "world_shared_facts", f"direct_{relation}")
        point = style.points(axes, at, mean, f"{words}, share", color=color, marker=marker)
        for end in ("low", "high"):
            _, edge = over_worlds(table, "world_shared_facts", f"direct_{relation}_{end}")
            style.points(axes, at, edge, f"{words}, {end} end of 95 %, share", color=color, marker="_", markersize=6)
        entries.append((point, words))
    at, within = over_worlds(table, "world_shared_facts", "correlation_in_family")
    _, kernel = over_worlds(table, "world_shared_facts", "kernel_correlation")
    there = np.isfinite(kernel)
    theory = [agreement(float(np.clip(rho, 0.0, 1.0)), _OPTIONS, _VALUES) for rho in (within * kernel)[there]]
    line = style.line(axes, at[there], theory, "kernel and T25, share", color=style.THEORY, linestyle=_DASHED)
    entries.append((line, "theory"))
    for name, words in (("nearest", "nearest real thing"), ("frequent", "most frequent value")):
        at, mean = over_worlds(table, "world_shared_facts", f"direct_{name}_cross_family")
        shade = style.FAINT if name == "nearest" else REAL
        entries.append((style.line(axes, at, mean, f"{words}, share", color=shade, linestyle=_DOTTED), words))
    style.horizontal(axes, CHANCE, "chance, share", color=style.FAINT, linewidth=0.7)
    axes.set_xlabel("shared facts")
    style.percent_axis(axes, "question model's answer given")
    return entries


@imagined(
    "imagination-controls",
    needs=("populations",),
    caption="What makes families agree that share no fact: the same rule or frequent values, not weights.",
)
def controls(tables: Mapping[str, Table]) -> Figure:
    """Bars of cross-family correctness with nothing shared but one thing."""
    table = tables["populations"]
    popular, ruled = table["world_popularity"].max(), table["world_rule_share"].max()
    cases = {
        "nothing": plain(table, world_shared_facts=0.0),
        "initial\nweights": plain(table, same_weights=True),
        "own\nfrequencies": plain(table, world_popularity=popular, world_shared_marginals=0.0),
        "shared\nfrequencies": plain(table, world_popularity=popular, world_shared_marginals=1.0),
        "own\nrule": plain(table, world_rule_share=ruled, world_shared_rule=0.0),
        "shared\nrule": plain(table, world_rule_share=ruled, world_shared_rule=1.0),
    }
    there = {name: found for name, found in cases.items() if rows(found)}
    if not there:
        return style.nothing("no population is a control")
    picture = style.new_figure(style.COLUMN + 2.0, 3.0)
    axes = picture.subplots()
    axes.set_label("controls")
    series = (("models", "direct_cross_family", ACROSS), ("most frequent value", "direct_frequent_cross_family", REAL))
    entries = []
    for place, (words, name, color) in enumerate(series):
        heights = [float(found[name].astype(float).mean()) for found in there.values()]
        drawn = style.bars(
            axes, np.arange(len(there)) + 0.36 * place - 0.18, heights, f"{words}, share", width=0.34, color=color
        )
        entries.append((drawn, words))
    axes.set_xticks(np.arange(len(there)), list(there))
    style.horizontal(axes, CHANCE, "chance, share", color=style.FAINT, linewidth=0.7)
    style.percent_axis(axes, "answers across families")
    style.below(picture, controls.caption, entries, columns=2)
    return picture


@imagined(
    "imagination-width",
    needs=("populations",),
    caption="Wider networks that learned the same facts imagine more alike.",
)
def width(tables: Mapping[str, Table]) -> Figure:
    """Agreement against width, all facts shared."""
    table = plain(tables["populations"], world_shared_facts=1.0, width=None)
    if not rows(table):
        return style.nothing("no population shares all facts")
    picture = style.new_figure(style.COLUMN + 0.8, 3.0)
    axes = picture.subplots()
    axes.set_label("width")
    at, mean = over_worlds(table, "width", "direct_cross_family")
    entries = [(style.line(axes, at, mean, "models, share", color=ACROSS, marker="o"), "models")]
    at, rho = over_worlds(table, "width", "correlation_cross_family")
    theory = [agreement(float(np.clip(one, 0.0, 1.0)), _OPTIONS, _VALUES) for one in rho]
    line = style.line(axes, at, theory, "T25 of the measured correlation, share", color=style.THEORY, linestyle=_DASHED)
    entries.append((line, "T25 of their correlation"))
    style.horizontal(axes, CHANCE, "chance, share", color=style.FAINT, linewidth=0.7)
    style.size_axis(axes, at, "width of the networks")
    style.percent_axis(axes, "answers across families")
    style.below(picture, width.caption, entries, columns=2)
    return picture
