"""How often two models of correlated taste choose the same of several answers that neither knows."""

import numpy as np
from matplotlib.figure import Figure

from figures import style
from figures.theory_pictures import COLORS, picture
from theory import agreement

_PUBLISHED = (0.54, 0.86)


@picture(
    "agreement",
    caption="How often two models agree on what neither can know, against the correlation of their logits.",
    claims=("T25", "T25b"),
)
def agreement_curves() -> Figure:
    """A(rho, m) for several numbers of options; the published averages, read off for four."""
    drawn = style.new_figure(style.PAGE, 3.4)
    axes = drawn.subplots()
    axes.set_label("agreement")
    correlation, entries = np.concatenate([np.linspace(0.0, 0.96, 49), 1 - np.geomspace(0.035, 1e-6, 24), [1.0]]), []
    for options, color in zip((2, 4, 10, 50), COLORS, strict=False):
        curve = [agreement.agreement(float(rho), options) for rho in correlation]
        entries.append(
            (style.line(axes, correlation, curve, f"{options} options, share", color=color), f"{options} options")
        )
    wider = [agreement.agreement(float(rho), 4, 16) for rho in correlation]
    line = style.line(axes, correlation, wider, "4 options of 16 values, share", color=COLORS[1], linestyle=(0, (4, 2)))
    entries.append((line, "4 options, the first model chose among 16"))
    for rate in _PUBLISHED:
        style.horizontal(axes, rate, f"published average {100 * rate:.0f} %", color=style.FAINT, linewidth=0.7)
        axes.annotate(
            f"{100 * rate:.0f} %", (0, rate), (3, 2), textcoords="offset points", fontsize=7.5, color=style.FAINT
        )
        for considered in (16, 4):
            rho = agreement.correlation_of_agreement(rate, 4, considered)
            style.points(
                axes,
                [rho],
                [rate],
                f"read off, {considered} values, share",
                color=COLORS[1],
                marker="o",
                markersize=5,
                zorder=4,
            )
            shift, side = ((-4, 4), "right") if considered == 16 else ((4, -10), "left")
            axes.annotate(f"{rho:.3f}", (rho, rate), shift, textcoords="offset points", ha=side, fontsize=7.5)
    axes.set(xlabel="correlation of the two models' logits", xlim=(0, 1.005))
    style.percent_axis(axes, "agreement")
    caption = (
        "Logits over the options jointly Gaussian (T25): chance at correlation 0, one mind at 1. Points: the published "
        "averages for four options, read as correlations of models that choose among the same four, or of which the "
        "one that wrote the question chose among 16. That is heuristic: an average of A is not A of an average."
    )
    style.below(drawn, caption, entries, columns=3)
    return drawn
