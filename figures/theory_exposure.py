"""Exposures to loss: how the loss of a fact falls, and what it costs to be certain of it."""

import numpy as np
from matplotlib.figure import Figure

from figures import style
from figures.theory_pictures import COLORS, picture
from theory import exposure
from theory.rounding import LN2

_ANSWERS = (2, 32, 32_000)
_FACTS = 1000


@picture(
    "exposures",
    caption="How the loss of a fact falls with its exposures, and the exposures after which it is known for certain.",
    claims=("T13", "T13b"),
)
def exposures_to_loss() -> Figure:
    """Left loss against exposures; right exposures until certain, judged by each fact or by the mean."""
    drawn = style.new_figure(style.PAGE, 3.3)
    losses, certain = drawn.subplots(1, 2)
    times, sizes = np.geomspace(0.1, 3e4, 257), np.unique(np.geomspace(1, 1e6, 97).round())
    steps = np.unique(np.geomspace(1, 1000, 13).round())
    entries = []
    for answers, color in zip(_ANSWERS, COLORS, strict=False):
        name = f"{answers:,} answers"
        line = style.line(
            losses, times, exposure.loss_after(times, answers=answers), f"flow, {name}, nats", color=color
        )
        descent = _gradient_descent(int(steps[-1]), answers)[steps.astype(int)]
        style.points(
            losses, steps, descent, f"gradient descent, {name}, nats", color=color, marker="o", markersize=3,
            markerfacecolor="white", markeredgewidth=0.8,
        )  # fmt: skip
        each = np.full(sizes.shape, float(exposure.exposures_until_certain(answers)))
        style.line(certain, sizes, each, f"by its own loss, {name}, exposures", color=color)
        mean = exposure.exposures_until_mean_certifies(sizes, answers)
        style.line(certain, sizes, mean, f"by the mean loss, {name}, exposures", color=color, linestyle=(0, (4, 2)))
        entries.append((line, name))
    style.horizontal(losses, LN2, "ln 2, nats", color=style.FAINT, linewidth=0.8)
    style.horizontal(losses, LN2 / _FACTS, f"ln 2 / {_FACTS}, nats", color=style.FAINT, linewidth=0.8, linestyle=":")
    for axes, words in ((losses, "Loss of a fact"), (certain, "Exposures until it is certainly right")):
        axes.set_label(words.lower())
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.annotate(words, (0, 1), (0, 6), "axes fraction", "offset points", fontweight="bold")
    losses.set(xlabel="exposures \u00d7 learning rate", ylabel="loss (nats)", xlim=(0.1, 3e4), ylim=(2e-4, 20))
    certain.set(xlabel="number of facts", ylabel="exposures \u00d7 learning rate", xlim=(1, 1e6), ylim=(0.3, 3e6))
    note = {"textcoords": "offset points", "fontsize": 7.5, "color": style.INK}
    losses.annotate("below ln 2 the fact is right", (3e4, LN2), (0, 3), ha="right", **note)
    losses.annotate(
        f"below ln 2 / {_FACTS:,} the mean of\n{_FACTS:,} facts proves all right", (0.1, LN2 / _FACTS), (3, 3), **note
    )
    certain.annotate("judged by the mean loss", (3e3, 4e3), (-6, 4), ha="right", **note)
    certain.annotate("judged fact by fact", (1e6, 12), (-2, 3), ha="right", **note)
    caption = (
        "Lines: gradient flow on orthonormal keys (T13). Circles: gradient descent with learning rate 1, never behind "
        "the flow (T13b). A fact is right once its own loss is under ln 2, after about ln V exposures however many "
        "facts there are; the mean loss proves it only after a number of exposures that grows with the facts."
    )
    style.below(drawn, caption, entries)
    return drawn


def _gradient_descent(steps: int, answers: int) -> np.ndarray:
    """Loss after 0, 1, ..., `steps` steps with learning rate 1 on the logits of one fact."""
    logits, label, losses = np.zeros(answers), 0, []
    for _ in range(steps + 1):
        rows = np.exp(logits - logits.max())
        chances = rows / rows.sum()
        losses.append(-np.log(chances[label]))
        logits = logits - chances
        logits[label] += 1.0
    return np.array(losses)
