"""Inequalities between elementary functions, proved on whole boxes.

The box is cut into smaller ones until on each the ball of (greater - smaller) is positive. Box ends are exact rationals
and balls enclose, so no rounding enters a verdict. Where the two sides meet, at a sharp edge, no ball can be positive:
there the inequality is stated as an `Edge`, a value of one variable at which the difference and its first derivatives
vanish (or are not negative), and on a strip along the edge the sign of the next derivative is proved instead, which by
Taylor's formula with Lagrange's rest gives the inequality. That they vanish is algebra, said in the edge's words; the
prover looks at it on a grid of exact points.

The verdict is "proved", "refuted" with a box (or a point of an edge) on which the inequality is false everywhere, or
"undecided" where neither was reached with the boxes allowed.
"""

import heapq
import importlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise, product
from typing import Any, Literal

from theory.balls import Ball, Balls, Jet, balls, constant

Interval = tuple[Fraction, Fraction]
Box = tuple[Interval, ...]
Side = Callable[..., Any]  # (functions, *variables) -> ball or jet

_MOST_BOXES = 20_000
_GRID = 5  # points a variable at which an edge is looked at
_ROUNDING = Fraction(1, 2**90)  # what 128 bits may leave of a zero


@dataclass(frozen=True)
class Variable:
    """A variable and the closed interval it runs over."""

    name: str
    low: Fraction
    high: Fraction

    def __str__(self) -> str:
        return f"{self.low} <= {self.name} <= {self.high}"


def variable(name: str, low: float | str | Fraction, high: float | str | Fraction) -> Variable:
    """A variable whose ends are exactly these numbers.

    >>> str(variable("x", 0, "7/10"))
    '0 <= x <= 7/10'
    """
    return Variable(name, Fraction(low), Fraction(high))


@dataclass(frozen=True)
class Edge:
    """Where both sides are equal: `variable` = `at`, to order 1 (they cross) or 2 (they touch).

    Within `strip` of it the derivative of this order of (greater - smaller) decides.
    """

    variable: str
    at: Fraction
    order: Literal[1, 2]
    strip: Fraction
    why: str


def edge(variable: str, at: float | str, order: Literal[1, 2], strip: float | str, why: str) -> Edge:
    """An edge whose numbers are exactly these."""
    return Edge(variable, Fraction(at), order, Fraction(strip), why)


@dataclass(frozen=True)
class Inequality:
    """smaller(x) < greater(x) on a box, but for its edges, where they are equal."""

    name: str
    claim: str
    statement: str  # in mathematics, with the domain
    why: str  # how it gives the claim
    variables: tuple[Variable, ...]
    smaller: Side
    greater: Side
    edges: tuple[Edge, ...] = ()

    @property
    def domain(self) -> str:
        """The box in words."""
        return ", ".join(map(str, self.variables))

    def margin(self, functions: Balls, *point: Ball | Jet) -> Any:
        """The difference greater - smaller."""
        greater, smaller = self.greater(functions, *point), self.smaller(functions, *point)
        return constant(greater) - smaller if isinstance(smaller, Jet) else greater - smaller


@dataclass(frozen=True)
class Proof:
    """What the prover found."""

    inequality: str
    claim: str
    verdict: Literal["proved", "refuted", "undecided"]
    arithmetic: str
    boxes: int  # looked at
    edge_boxes: int  # of them, decided by a derivative along an edge
    depth: int  # of the subdivision
    smallest_margin: float  # greater - smaller is above this off the strips; rounded down
    smallest_derivative: float  # likewise on the strips: of the derivative that decides there; inf without edges
    where: Box | None  # where it is false everywhere, or where nothing could be decided

    @property
    def proved(self) -> bool:
        """The inequality holds on its box."""
        return self.verdict == "proved"


@dataclass
class _Tally:
    boxes: int = 0
    edge_boxes: int = 0
    depth: int = 0
    margin: float = math.inf
    derivative: float = math.inf


@dataclass(order=True)
class _Task:
    depth: int
    number: int
    box: Box = field(compare=False)


def prove(inequality: Inequality, *, most_boxes: int = _MOST_BOXES, library: str | None = None) -> Proof:
    """Prove `inequality`, or refute it, by cutting its box into at most `most_boxes`.

    `library` names the ball arithmetic ("flint" or "mpmath"; by default the first that is installed).
    """
    functions, tally = balls(library), _Tally()

    def verdict(word: Literal["proved", "refuted", "undecided"], where: Box | None = None) -> Proof:
        return Proof(
            inequality.name, inequality.claim, word, functions.name, tally.boxes, tally.edge_boxes, tally.depth,
            tally.margin, tally.derivative, where,
        )  # fmt: skip

    for one in inequality.edges:
        for point in _points_of_edge(inequality, one):
            seen = _look_at_edge(inequality, one, functions, point)
            if seen != "fine":
                return verdict("refuted" if seen == "false" else "undecided", point)
    tasks = [_Task(0, number, box) for number, box in enumerate(_cut_at_edges(inequality))]
    heapq.heapify(tasks)  # the widest first, so that a false inequality is refuted early
    number = len(tasks)
    while tasks:
        task = heapq.heappop(tasks)
        tally.boxes += 1
        tally.depth = max(tally.depth, task.depth)
        outcome = _decide(inequality, functions, task.box, tally)
        if outcome == "holds":
            continue
        if outcome == "false":
            return verdict("refuted", task.box)
        middle: Box = tuple(((low + high) / 2, (low + high) / 2) for low, high in task.box)
        if functions.negative(inequality.margin(functions, *_balls_of(functions, middle))):
            return verdict("refuted", middle)
        if tally.boxes + len(tasks) >= most_boxes:
            return verdict("undecided", task.box)
        for half in _halves(task.box, _best_cut(inequality, functions, task)):
            number += 1
            heapq.heappush(tasks, _Task(task.depth + 1, number, half))
    return verdict("proved")


def _decide(inequality: Inequality, functions: Balls, box: Box, tally: _Tally) -> Literal["holds", "false", "open"]:
    """Whether the inequality holds on all of `box`, is false on all of it, or must be looked at closer.

    Where the sides cross, a box in the strip may be decided by the slope or by the difference itself: going toward the
    edge, the difference only falls until it is known to be positive, or the edge is reached. Where they touch, the
    second derivative must be positive all the way to the edge, so it alone decides in the strip.
    """
    margin = inequality.margin(functions, *_balls_of(functions, box))
    if not functions.positive(margin) and not functions.negative(margin):
        margin = _centered(inequality, functions, box)
    if functions.negative(margin):
        return "false"
    strips = [one for one in inequality.edges if _in_strip(inequality, one, box)]
    touching = [one for one in strips if one.order == 2]
    if not touching and functions.positive(margin):
        tally.margin = min(tally.margin, functions.lower(margin))
        return "holds"
    derivatives = [_signed_derivative(inequality, one, functions, box, one.order) for one in touching or strips]
    positive = [derivative for derivative in derivatives if functions.positive(derivative)]
    if not positive or (touching and len(positive) < len(derivatives)):
        return "open"
    tally.edge_boxes += 1
    tally.derivative = min(tally.derivative, *map(functions.lower, positive))
    return "holds"


def _centered(inequality: Inequality, functions: Balls, box: Box) -> Ball:
    """The difference on the box by the mean value theorem: at the middle, plus the slopes times the distances from it.

    On small boxes it is much tighter than the formula itself, whose terms do not know of each other.
    """
    middle: Box = tuple(((low + high) / 2, (low + high) / 2) for low, high in box)
    difference = inequality.margin(functions, *_balls_of(functions, middle))
    for place, (low, high) in enumerate(box):
        slope = inequality.margin(functions, *_jets_of(functions, box, place)).slope
        difference = difference + slope * functions.hull((low - high) / 2, (high - low) / 2)
    return difference


def _balls_of(functions: Balls, box: Box) -> list[Ball]:
    return [functions.hull(low, high) for low, high in box]


def _place(inequality: Inequality, one: Edge) -> int:
    return [each.name for each in inequality.variables].index(one.variable)


def _in_strip(inequality: Inequality, one: Edge, box: Box) -> bool:
    low, high = box[_place(inequality, one)]
    return one.at - one.strip <= low and high <= one.at + one.strip


def _signed_derivative(inequality: Inequality, one: Edge, functions: Balls, box: Box, order: int) -> Ball:
    """The derivative of this order along the edge's variable, directed away from the edge."""
    place = _place(inequality, one)
    jet = inequality.margin(functions, *_jets_of(functions, box, place))
    derivative = (jet.value, jet.slope, jet.bend)[order] + functions.number(0)
    return -derivative if order == 1 and box[place][0] < one.at else derivative


def _points_of_edge(inequality: Inequality, one: Edge) -> Iterator[Box]:
    """Exact points of the edge, as boxes without width but for a hair on the side where the box lies."""
    grid = [
        [each.low + (each.high - each.low) * step / (_GRID - 1) for step in range(_GRID)]
        for each in inequality.variables
    ]
    grid[_place(inequality, one)] = [one.at]
    for point in product(*grid):
        yield tuple((number, number) for number in point)


def _look_at_edge(inequality: Inequality, one: Edge, functions: Balls, point: Box) -> Literal["fine", "false", "open"]:
    """Whether the margin and its derivatives below the edge's order vanish at a point of it, or are not negative on
    each side that belongs to the box.
    """
    place = _place(inequality, one)
    low, high = inequality.variables[place].low, inequality.variables[place].high
    jet = inequality.margin(functions, *_jets_of(functions, point, place))
    signs = [sign for sign, inside in ((1, one.at < high), (-1, low < one.at)) if inside]
    for order, derivative in enumerate((jet.value, jet.slope)[: one.order]):
        for sign in signs:
            value = (sign if order else 1) * derivative + functions.number(0)
            if functions.negative(value):
                return "false"
            if not functions.positive(value + functions.number(_ROUNDING)):
                return "open"
    return "fine"


def _jets_of(functions: Balls, box: Box, place: int) -> list[Jet]:
    numbers = _balls_of(functions, box)
    return [Jet(ball, 1, 0) if index == place else constant(ball) for index, ball in enumerate(numbers)]


def _cut_at_edges(inequality: Inequality) -> list[Box]:
    """The box, cut where edges and their strips end."""
    pieces = []
    for each in inequality.variables:
        cuts = {each.low, each.high}
        for one in inequality.edges:
            if one.variable == each.name:
                cuts |= {at for at in (one.at - one.strip, one.at, one.at + one.strip) if each.low < at < each.high}
        ordered = sorted(cuts)
        pieces.append(list(pairwise(ordered)))
    return [tuple(box) for box in product(*pieces)]


def _best_cut(inequality: Inequality, functions: Balls, task: _Task) -> int:
    """The variable across which to cut: the one whose uncertainty costs the difference most.

    Every third cut goes across the side that is the longest share of its interval, so that none is forgotten.
    """
    box, variables = task.box, inequality.variables
    shares = [(high - low) / (each.high - each.low) for (low, high), each in zip(box, variables, strict=True)]
    longest = max(range(len(box)), key=shares.__getitem__)
    if len(box) == 1 or task.depth % 3 == 2:
        return longest
    known = [functions.lower(_decisive(inequality, functions, _pinned(box, place))) for place in range(len(box))]
    return known.index(max(known)) if max(known) > min(known) else longest


def _decisive(inequality: Inequality, functions: Balls, box: Box) -> Ball:
    """What must be positive on this box: the difference, or its derivative in the strip of an edge."""
    for one in inequality.edges:
        if _in_strip(inequality, one, box):
            return _signed_derivative(inequality, one, functions, box, one.order)
    return inequality.margin(functions, *_balls_of(functions, box))


def _pinned(box: Box, place: int) -> Box:
    low, high = box[place]
    return (*box[:place], ((low + high) / 2, (low + high) / 2), *box[place + 1 :])


def _halves(box: Box, place: int) -> Iterator[Box]:
    low, high = box[place]
    for half in ((low, (low + high) / 2), ((low + high) / 2, high)):
        yield (*box[:place], half, *box[place + 1 :])


def inequalities() -> dict[str, list[Inequality]]:
    """The inequalities by the claim they serve, in the order in which the theory tells them."""
    found: dict[str, list[Inequality]] = {}
    for one in importlib.import_module("theory.box_proofs").INEQUALITIES:
        found.setdefault(one.claim, []).append(one)
    return found
