"""Where the two papers meet: shared imagination along the loss, memories with and without a gate, confidence."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures import style
from figures.imagination import ACROSS, CHANCE, MEMORY, REAL, WITHIN, imagined, over_worlds, plain
from figures.tables import Table, rows, where
from theory.rounding import LN2

_DASHED, _DOTTED = (0, (4, 2)), (0, (1, 1.5))


@imagined(
    "imagination-loss",
    needs=("courses",),
    caption="Zero loss does not end shared imagination; it makes what is imaginary tell itself from what is real.",
)
def loss(tables: Mapping[str, Table]) -> Figure:
    """Along training: agreement and correlation; confidence and how well it separates real from imaginary."""
    table = _trained(tables["courses"])
    picture = style.new_figure(style.PAGE, 3.7)
    left, right = picture.subplots(1, 2, sharex=True)
    entries = []
    series = (
        (left, "agreement_cross_family", "agreement across families", ACROSS, "-"),
        (left, "sampled_agreement_cross_family", "... of sampled answers", ACROSS, _DASHED),
        (left, "correlation_cross_family", "correlation across families", WITHIN, "-"),
        (right, "confidence_real", "confidence on real", REAL, "-"),
        (right, "confidence_imaginary", "confidence on imaginary", ACROSS, _DOTTED),
        (right, "separability", "real from imaginary (AUC)", MEMORY, "-"),
    )
    for axes, name, words, color, dashes in series:
        nats, mean = _along(table, name)
        drawn = style.line(axes, nats, mean, f"{words}, share", color=color, linestyle=dashes, marker="o", markersize=3)
        entries.append((drawn, words))
    for axes, label in ((left, "alike"), (right, "sure")):
        axes.set_label(label)
        style.vertical(axes, LN2, "ln 2, nats", color=style.FAINT, linewidth=0.7)
        axes.annotate(
            "ln 2", (LN2, 1.0), (2, -8), ("data", "axes fraction"), "offset points", fontsize=7, color=style.FAINT
        )
        axes.set_xscale("log")
        axes.set_xlabel("training loss (nats)")
    left.invert_xaxis()
    style.horizontal(left, CHANCE, "chance, share", color=style.FAINT, linewidth=0.7)
    style.percent_axis(left, "agreement, correlation")
    style.percent_axis(right, "confidence, separability")
    wide = f" Networks of width {table['width'].max():g}, half of the facts shared."
    style.below(picture, loss.caption + wide, entries, columns=3)
    return picture


def _trained(table: Table) -> dict[str, np.ndarray]:
    return where(table, table["width"] == table["width"].max())


def _along(table: Table, name: str) -> tuple[np.ndarray, np.ndarray]:
    """(loss, value) at each snapshot, means over worlds."""
    _, nats = over_worlds(table, "steps", "loss_nats")
    _, mean = over_worlds(table, "steps", name)
    return nats, mean


@imagined(
    "imagination-memories",
    needs=("memories",),
    caption="Memory experts without a gate imagine more alike than networks; with one they abstain.",
)
def memories(tables: Mapping[str, Table]) -> Figure:
    """Agreement of memories against overlap with the nearest-key law; what gates let through."""
    table = tables["memories"]
    picture = style.new_figure(style.PAGE, 3.5)
    left, right = picture.subplots(1, 2)
    left.set_label("without a gate")
    entries = []
    for router, color, marker in (("shared", MEMORY, "s"), ("separate", REAL, "^")):
        found = where(table, table["router"] == router)
        if rows(found):
            at, mean = over_worlds(found, "world_shared_facts", "ungated_cross_family")
            words = f"memories, {router} router{'s' * (router == 'separate')}"
            entries.append((style.points(left, at, mean, f"{words}, share", color=color, marker=marker), words))
    fine = np.linspace(0.0, 1.0, 51)
    law = CHANCE + (1 - CHANCE) * fine / (2 - fine)
    entries.append((style.line(left, fine, law, "nearest-key law, share", color=style.THEORY), "nearest-key law"))
    networks = plain(tables["populations"]) if rows(tables.get("populations", {})) else {}
    if rows(networks):
        at, mean = over_worlds(networks, "world_shared_facts", "direct_cross_family")
        entries.append((style.line(left, at, mean, "networks, share", color=ACROSS, marker="o"), "networks"))
    style.horizontal(left, CHANCE, "chance, share", color=style.FAINT, linewidth=0.7)
    left.set_xlabel("shared facts")
    style.percent_axis(left, "answers across families")
    _gates(right, table)
    style.below(picture, memories.caption, entries, columns=4)
    return picture


def _gates(axes: Axes, table: Table) -> None:
    axes.set_label("with a gate")
    names = [(gate, router) for gate in ("similarity", "fingerprint") for router in ("shared", "separate")]
    for place, (name, words, color) in enumerate(
        (("right_real", "real: right", WITHIN), ("abstains_imaginary", "imaginary: abstains", MEMORY))
    ):
        heights = [
            float(np.mean(table[f"{gate}_{name}"][table["router"] == router].astype(float)))
            for gate, router in names
            if (table["router"] == router).any()
        ]
        style.bars(
            axes, np.arange(len(heights)) + 0.38 * place - 0.19, heights, f"{words}, share", width=0.36, color=color
        )
        axes.annotate(words, (0.02, 1.02 + 0.07 * place), xycoords="axes fraction", fontsize=7, color=color)
    labels = [f"{gate},\n{router}" for gate, router in names if (table["router"] == router).any()]
    axes.set_xticks(np.arange(len(labels)), labels, fontsize=7)
    style.percent_axis(axes, "questions")


@imagined(
    "imagination-calibration",
    needs=("calibration", "populations"),
    caption="Models are sure of much of what they imagine.",
)
def calibration(tables: Mapping[str, Table]) -> Figure:
    """How often the likeliest value is right, and how often models are so sure, by confidence."""
    chosen = plain(tables["populations"], world_shared_facts=0.5)
    table = tables["calibration"]
    table = where(table, np.isin(table["population"], chosen["fingerprint"] if rows(chosen) else table["population"]))
    picture = style.new_figure(style.PAGE, 3.2)
    left, right = picture.subplots(1, 2)
    left.set_label("right")
    right.set_label("how many")
    entries = []
    for question, color, marker in (("real", REAL, "s"), ("imaginary", ACROSS, "o")):
        found = where(table, table["question"] == question)
        found = found | {"bin": np.floor(found["confidence"] * 10)}
        _, sure = over_worlds(found, "bin", "confidence")
        _, hit = over_worlds(found, "bin", "right")
        _, share = over_worlds(found, "bin", "share")
        entries.append((style.line(left, sure, hit, f"{question}, share", color=color, marker=marker), question))
        style.line(right, sure, share, f"{question}, share of questions", color=color, marker=marker)
    style.line(left, [0, 1], [0, 1], "calibrated, share", color=style.FAINT, linewidth=0.7)
    for axes in (left, right):
        axes.set(xlabel="confidence", xlim=(0, 1.02))
    style.percent_axis(left, "likeliest value is right")
    style.percent_axis(right, "questions")
    text = f"{calibration.caption} Right on imaginary questions: what a model of another family says."
    style.below(picture, text, entries, columns=2)
    return picture
