"""Memories whose weights are written down: a network through given points, and a table at the bound."""

import numpy as np
from matplotlib.figure import Figure

from figures import style
from figures.theory_pictures import COLORS, picture
from theory import capacity, interpolation, packing


@picture(
    "memorizers",
    caption="Memories with weights written down: 2n + d weights through n points, and a table that wastes no bit.",
    claims=("T15", "T16"),
)
def memorizers() -> Figure:
    """Left a network through ten points along its direction; right bits of a table above what T7 demands."""
    drawn = style.new_figure(style.PAGE, 2.9)
    through, table = drawn.subplots(1, 2)
    rng = np.random.default_rng(4)
    points, values = rng.normal(size=(10, 3)), rng.integers(0, 5, size=10).astype(float)
    network = interpolation.interpolant(points, values)
    at = points @ network.direction
    reach = np.linspace(at.min() - 0.2, at.max() + 0.2, 1001)
    along = network(reach[:, None] * network.direction / (network.direction @ network.direction))
    line = style.line(through, reach, along, "network along its direction, value", color=COLORS[1])
    dots = style.points(through, at, values, "points to memorize, value", color=style.INK, marker="o", markersize=4)
    through.set_label("through points")
    through.set(xlabel="projection of the input", ylabel="value = answer", ylim=(-0.6, 4.8))
    through.set_yticks(range(5))

    facts = np.arange(1, 129)
    needed = np.array([capacity.label_entropy_bits(int(n), 10) for n in facts])
    packed = np.array([packing.packed_bits(int(n), 10) for n in facts]) - needed
    apart = 4 * facts - needed
    each = style.line(table, facts, apart, "each answer apart, bits", color=COLORS[0])
    whole = style.line(table, facts, packed, "packed together, bits", color=COLORS[2])
    style.horizontal(table, 0.0, "no memory is smaller (T7), bits", color=style.THEORY, linewidth=1.1)
    table.set_label("table")
    table.set(xlabel="facts with ten answers", ylabel=r"bits above $n\,\log_2 V$", xlim=(0, 128), ylim=(-2, 40))
    table.annotate(
        "under one bit more than any memory needs",
        (126, 1),
        (0, 4),
        textcoords="offset points",
        ha="right",
        fontsize=7.5,
    )
    for axes, words in ((through, "A network through ten points"), (table, "A table of answers")):
        axes.annotate(words, (0, 1), (0, 6), "axes fraction", "offset points", fontweight="bold")
    entries = [(dots, "facts"), (line, "2n + d weights"), (each, "4 bits an answer"), (whole, "packed (T16)")]
    caption = (
        "Left: a direction orders the inputs, one kink between neighbors sets each value: 2n + d weights for n points "
        "in d dimensions (T15, Zhang et al. 2017). Right: the answers as the digits of one number take less than one "
        "bit more than any learner needs, however many they are."
    )
    style.below(drawn, caption, entries, columns=4)
    return drawn
