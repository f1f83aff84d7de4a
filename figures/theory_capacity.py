"""Two rate-distortion functions of one memory: the loss is linear in the bits, the error is not."""

import numpy as np
from matplotlib.figure import Figure

from figures import style
from figures.theory_pictures import COLORS, picture
from theory import capacity, rate_distortion

_ANSWERS = (2, 32, 1000)


@picture(
    "rate-distortion",
    caption="What bits per fact leave in loss and in hallucination; at the least loss the error stays open.",
    claims=("T7", "T8", "F1", "T10"),
)
def rate_distortion_curves() -> Figure:
    """Left the least loss, right the errors that the least loss leaves open, against the share of bits there are."""
    drawn = style.new_figure(style.PAGE, 3.2)
    losses, errors = drawn.subplots(1, 2)
    share = np.linspace(0.0, 1.0, 257)
    entries = []
    for answers, color in zip(_ANSWERS, COLORS, strict=False):
        rate, name = share * np.log2(answers), f"{answers:,} answers"
        least = rate_distortion.loss_at_rate_nats(rate, answers)
        line = style.line(losses, share, least, f"least loss, {name}, nats", color=color)
        low, high = rate_distortion.errors_left_open(rate, answers)
        style.band(errors, share, low, high, f"error at the least loss, {name}, share", color=color, alpha=0.16)
        style.line(errors, share, capacity.distortion(rate, answers), f"least error D(R), {name}, share", color=color)
        style.line(
            errors,
            share,
            high,
            f"largest error at the least loss, {name}, share",
            color=color,
            linestyle=(0, (4, 2)),
            linewidth=1.0,
        )
        losses.annotate(f"ln {answers:,}", (0, np.log(answers)), (4, 2), textcoords="offset points", color=color)
        entries.append((line, name))
    for axes, words in ((losses, "Loss"), (errors, "Hallucination")):
        axes.set_label(words.lower())
        axes.annotate(words, (0, 1), (0, 6), "axes fraction", "offset points", fontweight="bold")
        axes.set_xlabel("bits per fact, as a share of all it takes")
        axes.set_xlim(0, 1)
        style.percent_axis(axes, "")
        axes.xaxis.set_major_locator(axes.yaxis.get_major_locator())
        axes.xaxis.set_major_formatter(axes.yaxis.get_major_formatter())
    _scale_of_losses(losses)
    errors.set_ylabel("facts answered wrong")
    errors.annotate(
        "some facts known,\nthe others guessed", (0.5, 0.5), (14, 26), textcoords="offset points", fontsize=7.5,
        arrowprops={"arrowstyle": "-", "linewidth": 0.6, "color": style.FAINT},
    )  # fmt: skip
    errors.annotate(
        "every fact known\na little: D(R)", (0.2, float(capacity.distortion(0.2, 2))), (0.03, 0.03),
        textcoords="axes fraction", fontsize=7.5,
        arrowprops={"arrowstyle": "-", "linewidth": 0.6, "color": style.FAINT},
    )  # fmt: skip
    caption = (
        "Random answers in B bits: no learner has less loss than the left lines, none errs less than the solid lines "
        "on the right (F1). A memory at the least loss may be anywhere in the shaded range: the loss alone does not "
        "say how much a full memory hallucinates (T10)."
    )
    style.below(drawn, caption, entries)
    return drawn


def _scale_of_losses(axes) -> None:
    from matplotlib.ticker import AutoLocator, ScalarFormatter

    axes.yaxis.set_major_locator(AutoLocator())
    axes.yaxis.set_major_formatter(ScalarFormatter())
    axes.set_ylim(0, 1.08 * np.log(max(_ANSWERS)))
    axes.set_ylabel("least mean loss (nats)")
