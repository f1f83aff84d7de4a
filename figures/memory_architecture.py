"""The architecture of a memory, drawn from what its folder holds: the founding paper's Fig. 4 with a memory's numbers.

What is drawn is what `sims.memory.show.described` says of a folder; no number is typed in but the founding paper's.
Places are in inches; the three rows are memory, gate and frozen model, the columns go from question to next token.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch, Rectangle

from figures import style
from figures.registry import Drawable
from figures.render import render

NAME = "memory-architecture"
_FOUNDING = "The founding paper (arXiv 2406.17642) chooses 32 of up to 10$^6$ experts."  # quoted, not measured
_MEMORY, _GATE, _FROZEN = "#D0902A", "#2E8B57", "#14366F"
_HEIGHT = 4.35
_TITLE, _LINE, _STEP = 7.5, 7.0, 0.135  # points, points, inches between lines
_CELLS, _CELL = (5, 14), 0.105  # of the bank as it is drawn; inches


@dataclass(frozen=True)
class _Box:
    """A rectangle with a title and lines, by its center."""

    name: str
    x: float
    y: float
    width: float
    height: float
    color: str

    def draw(self, axes: Axes, title: str, lines: Sequence[str], *, room_above: float = 0.0) -> None:
        """The title and the lines stand in the middle, under `room_above`."""
        corner = (self.x - self.width / 2, self.y - self.height / 2)
        axes.add_patch(
            FancyBboxPatch(
                corner,
                self.width,
                self.height,
                boxstyle="round,pad=0,rounding_size=0.06",
                facecolor=_tint(self.color),
                edgecolor=self.color,
                linewidth=0.9,
            )
        )
        top = self.y + len(lines) * _STEP / 2 - room_above / 2
        for place, text in enumerate([title, *lines]):
            axes.text(
                self.x,
                top - place * _STEP,
                text,
                gid=self.name,
                ha="center",
                va="center",
                fontsize=_LINE if place else _TITLE,
                fontweight="normal" if place else "bold",
                color=style.INK,
            )


_LEFT, _SECOND, _THIRD, _RIGHT = 0.54, 2.26, 4.33, 6.19  # centers of the columns
_TOP, _MIDDLE, _BOTTOM = 3.12, 1.98, 0.90  # centers of the rows
_QUESTION = _Box("question", _LEFT, 2.08, 0.98, 3.16, style.FAINT)  # as high as the three rows
_ADDRESS = _Box("addresses", _SECOND, _TOP, 1.82, 1.08, _MEMORY)
_EXPERTS = _Box("experts", _THIRD, _TOP, 1.80, 1.08, _MEMORY)
_KNOWN = _Box("known", _SECOND, _MIDDLE, 1.82, 0.70, _GATE)
_GATED = _Box("gate", _THIRD, _MIDDLE, 1.80, 0.70, _GATE)
_MODEL = _Box("model", _SECOND, _BOTTOM, 1.82, 0.80, _FROZEN)
_UNEMBED = _Box("unembedding", _RIGHT, _BOTTOM, 1.46, 0.80, _FROZEN)


def draw_memory(shown: Mapping[str, Any], out: Path) -> list[Path]:
    """Write the picture of a memory, given as `sims.memory.show.described` has it; the paths, the picture first."""

    def drawn(_: object) -> Figure:
        with style.styled():
            return architecture(shown)

    drawable = Drawable(NAME, drawn, {}, "What a memory consists of, with its own numbers.", ("T20", "T21"))
    return sorted(render([drawable], {}, out), key=lambda path: path.suffix != ".png")


def architecture(shown: Mapping[str, Any]) -> Figure:
    """From question to next token, through the frozen model and the memory beside it."""
    picture = style.new_figure(style.PAGE, _HEIGHT)
    axes = picture.add_subplot(xlim=(0, 7), ylim=(0, 3.75), label="architecture")
    axes.set_axis_off()
    width = f"{shown['value']['width']:,}"
    _QUESTION.draw(axes, "question", ["and answer", "so far", "", *_reads(shown["model"])])
    _ADDRESS.draw(axes, *_address(shown["addresses"]))
    _EXPERTS.draw(
        axes,
        f"{shown['chosen']} of {shown['experts']:,} experts",
        [f"a vector of {width} each", "their weighted sum"],
        room_above=_CELLS[0] * _CELL + 0.06,
    )
    _bank(axes, shown["chosen"])
    _KNOWN.draw(axes, "known question?", _known(shown))
    _GATED.draw(axes, "gate", ["known: state + value", "unknown: state, bit for bit"])
    _MODEL.draw(axes, f"{shown['model']['family']}, frozen", _model(shown["model"]))
    _UNEMBED.draw(axes, "unembedding, frozen", _tokens(shown["model"]))
    _arrows(axes, width)
    _notes(axes, shown)
    style.below(
        picture,
        "A memory as it lies on disk. Orange: what memorizing wrote; green: what lets it speak; blue: the frozen "
        f"model, whose logits an unknown question gets unchanged. {_FOUNDING}",
    )
    return picture


def _reads(model: Mapping[str, Any]) -> list[str]:
    return [] if model["context"] is None else ["at most", f"{model['context']:,} tokens"]


def _address(addresses: Mapping[str, Any]) -> tuple[str, list[str]]:
    """How the experts of a token are found: title and lines."""
    kind, share, vector = addresses["kind"], addresses["share_by_hash"], addresses["question_vector"]
    hashed, keyed = addresses["by_hash"], addresses["by_keys"]
    if kind == "exact":
        lines = ["hash of the question's bytes", "and of the answer so far", f"{hashed} experts a token"]
    elif kind == "nearest":
        lines = ["the stored question itself, or that", f"most like it (vectors of {vector})", f"{hashed} by its hash"]
    elif kind == "learned":
        lines = [f"question as a vector of {vector}", f"product keys: {keyed} of {addresses['slots']:,} slots"]
        lines.append("hash of slot and answer so far")
    else:
        lines = [f"{hashed} by hash, weight {share:g}", f"{keyed} by product keys, weight {1 - share:.3g}"]
        lines.append(f"({addresses['slots']:,} slots, vectors of {vector})")
    return f"{kind} addresses", lines


def _known(shown: Mapping[str, Any]) -> list[str]:
    """How known questions are told from others."""
    known, questions = shown["known"], f"{shown['facts']:,}"
    if known["by"] == "filter":
        return [
            f"filter: {questions} questions, {100 * known['false_acceptance_rate']:.2f} %",
            f"of others pass; {known['filter_bits_per_fact']:.1f} bits each",
            f"(least possible {known['least_filter_bits_T20']:.1f}, T20)",
        ]
    if known["likeness"] is None:
        return [f"one of {questions} stored ones", "(too few to tell what is alike)"]
    return [
        f"one of {questions} stored ones,",
        f"or more alike than {known['likeness']:.3f},",
        f"as at most {100 * known['wanted_false_acceptance']:.2f} % of others are",
    ]


def _model(model: Mapping[str, Any]) -> list[str]:
    """Sizes of the frozen model; of a checkpoint that is away only what the memory itself knows of it."""
    fingerprint = [] if model["fingerprint"] is None else [f"fingerprint {model['fingerprint'][:12]}"]
    if model["parameters"] is None:
        return ["a checkpoint that lies elsewhere", *fingerprint]
    sizes = [f"{model['layers']} layers, width {model['width']:,}", f"{model['parameters']:,} parameters"]
    return sizes + (fingerprint or [model["dtype"]])


def _tokens(model: Mapping[str, Any]) -> list[str]:
    vocabulary = [] if model["vocabulary"] is None else [f"{model['vocabulary']:,} tokens"]
    return [*vocabulary, "the likeliest is next"]


def _bank(axes: Axes, chosen: int) -> None:
    """Some of the experts as cells, those of one token filled, as many as there is room for."""
    rows, columns = _CELLS
    left = _EXPERTS.x - columns * _CELL / 2
    top = _EXPERTS.y + _EXPERTS.height / 2 - 0.08
    for cell in range(rows * columns):
        axes.add_patch(
            Rectangle(
                (left + cell % columns * _CELL, top - (cell // columns + 1) * _CELL),
                _CELL,
                _CELL,
                facecolor=_MEMORY if cell in _scattered(chosen, rows * columns) else "white",
                edgecolor=_MEMORY,
                linewidth=0.4,
            )
        )


def _scattered(count: int, among: int) -> set[int]:
    """So many of the numbers 0 ... among - 1, here and there: the fractional parts of multiples of the golden ratio.

    >>> len(_scattered(4, 70)), len(_scattered(99, 70))
    (4, 70)
    """
    count = min(count, among)
    order = sorted(range(among), key=lambda number: (number + 1) * 0.6180339887 % 1)
    return {order[int((place + 0.5) * among / count)] for place in range(count)}


def _arrows(axes: Axes, width: str) -> None:
    reach = _QUESTION.x + _QUESTION.width / 2
    for box in (_ADDRESS, _KNOWN, _MODEL):
        _arrow(axes, (reach, box.y), (box.x - box.width / 2, box.y))
    for one, other in ((_ADDRESS, _EXPERTS), (_KNOWN, _GATED)):
        _arrow(axes, (one.x + one.width / 2, one.y), (other.x - other.width / 2, other.y))
    _arrow(axes, (_THIRD, _EXPERTS.y - _EXPERTS.height / 2), (_THIRD, _GATED.y + _GATED.height / 2))
    _arrow(axes, (_THIRD, _GATED.y - _GATED.height / 2), (_THIRD, _BOTTOM + 0.11))
    _arrow(axes, (_MODEL.x + _MODEL.width / 2, _BOTTOM), (_THIRD - 0.11, _BOTTOM))
    _arrow(axes, (_THIRD + 0.11, _BOTTOM), (_UNEMBED.x - _UNEMBED.width / 2, _BOTTOM))
    axes.add_patch(Circle((_THIRD, _BOTTOM), 0.11, facecolor="white", edgecolor=style.INK, linewidth=0.9))
    for x, y in (([_THIRD - 0.06, _THIRD + 0.06], [_BOTTOM] * 2), ([_THIRD] * 2, [_BOTTOM - 0.06, _BOTTOM + 0.06])):
        axes.plot(x, y, color=style.INK, linewidth=0.9)
    note = {"fontsize": _LINE, "color": style.INK, "gid": "state"}
    axes.text(_THIRD + 0.08, (_EXPERTS.y - _EXPERTS.height / 2 + _GATED.y + _GATED.height / 2) / 2, f"value, {width}",
              va="center", **note)  # fmt: skip
    axes.text((_MODEL.x + _MODEL.width / 2 + _THIRD - 0.11) / 2, _BOTTOM + 0.05, f"state, {width}",
              ha="center", va="bottom", **note)  # fmt: skip
    _loop(axes)


def _loop(axes: Axes) -> None:
    """The next token is read as part of the answer so far."""
    low, start = 0.22, _UNEMBED.y - _UNEMBED.height / 2
    axes.plot([_RIGHT, _RIGHT, _LEFT], [start, low, low], color=style.INK, linewidth=0.9, solid_joinstyle="round")
    _arrow(axes, (_LEFT, low), (_LEFT, _QUESTION.y - _QUESTION.height / 2))
    axes.text(
        (_SECOND + _THIRD) / 2, low - 0.04, "next token, until the answer ends", fontsize=_LINE, ha="center", va="top"
    )


def _notes(axes: Axes, shown: Mapping[str, Any]) -> None:
    """What the memory came to, beside its experts and its gate."""
    from sims.memory.show_text import size_words  # here, because it imports JAX

    written, selection = shown["written"], shown["written"]["selection"]
    left = _UNEMBED.x - _UNEMBED.width / 2
    bank = [f"load {written['tokens'] / shown['experts']:.3f} tokens an expert"]
    if selection is not None and selection["load_threshold_T21"] is not None:
        bank.append(f"exact up to {selection['load_threshold_T21']:.3f} (T21)")
    if selection is not None:
        bank.append(f"{100 * selection['tokens_with_a_private_expert']:.1f} % of tokens own one")
    bank.append(f"{size_words(shown['bytes']['bank'])} on disk")
    facts = [f"{shown['facts']:,} facts", f"{written['tokens']:,} answer tokens"]
    worst = written["worst_token_nats"]
    if worst is not None:
        facts.append(f"worst token {worst:.3f} nats")
    facts.append(f"threshold {shown['threshold_nats']:.3f} nats")
    if shown["edits"]:
        facts.append(f"{len(shown['edits'])} edits since")
    for name, y, lines in (("bank", _TOP, bank), ("facts", _MIDDLE, facts)):
        for place, text in enumerate(lines):
            height = y + ((len(lines) - 1) / 2 - place) * _STEP
            axes.text(left, height, text, gid=name, fontsize=_LINE, va="center", color=style.FAINT)


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    axes.add_patch(
        FancyArrowPatch(
            start, end, arrowstyle="-|>", mutation_scale=7, shrinkA=0, shrinkB=0, color=style.INK, linewidth=0.9
        )
    )


def _tint(color: str) -> tuple[float, float, float]:
    """The color in a tenth of its strength, opaque."""
    red, green, blue = (int(color[place : place + 2], 16) / 255 for place in (1, 3, 5))
    return 0.9 + 0.1 * red, 0.9 + 0.1 * green, 0.9 + 0.1 * blue
