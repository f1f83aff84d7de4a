"""The combined floor: what a learner of few samples and few bits must get wrong, and its two limits."""

import numpy as np
from matplotlib.figure import Figure

from figures import style
from figures.theory_pictures import COLORS, picture
from theory import floor

_QUESTIONS, _ANSWERS, _EXPONENT = 1000, 32, 1.0
_BITS = (500, 1500, 3000)


@picture(
    "combined-floor",
    caption="The least hallucination of any learner, from what it has not seen and from what it cannot hold.",
    claims=("F6", "F7"),
)
def combined_floor() -> Figure:
    """The floor against the number of samples for some numbers of bits; limits dashed."""
    drawn = style.new_figure(style.PAGE, 3.3)
    axes = drawn.subplots()
    axes.set_label("least hallucination")
    law = floor.power_law(_QUESTIONS, _EXPONENT)
    samples, entries = np.unique(np.geomspace(1, 1e6, 61).round()).astype(int), []
    unseen = [floor.unseen_lower(int(n), law, _ANSWERS) for n in samples]
    for bits, color in zip(_BITS, COLORS, strict=False):
        least = [floor.hallucination_lower(int(n), float(bits), law, _ANSWERS) for n in samples]
        line = style.line(axes, samples, least, f"least with {bits} bits, share", color=color)
        limit = floor.capacity_lower(float(bits), law, _ANSWERS)
        style.horizontal(
            axes, limit, f"limit of many samples, {bits} bits, share", color=color, linewidth=0.8, linestyle=":"
        )
        entries.append((line, f"{bits:,} bits"))
    line = style.line(
        axes, samples, unseen, "any number of bits, share", color=style.THEORY, linestyle=(0, (4, 2)), linewidth=1.1
    )
    entries.append((line, "any number of bits"))
    axes.set_xscale("log")
    axes.set(xlim=(1, 1e6), xlabel="samples")
    style.percent_axis(axes, "least hallucination")
    caption = (
        f"{_QUESTIONS:,} questions whose frequency falls as one over the rank, {_ANSWERS} answers each, and a "
        "learner that always answers. With few samples the floor is that of the unseen (dashed), with many that "
        "of the bits (dotted); between the two it is above both (F6)."
    )
    style.below(drawn, caption, entries, columns=4)
    return drawn
