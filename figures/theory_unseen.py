"""Questions that the data do not answer: facts seen once, and what telling seen from unseen costs."""

import math

import numpy as np
from matplotlib.figure import Figure

from figures import style
from figures.theory_pictures import COLORS, picture
from theory import membership, unseen

_QUESTIONS = 10_000


@picture(
    "singletons",
    caption="Questions that occur once tell how much is unseen, and so how often a model that has to answer must err.",
    claims=("T18", "T18b"),
)
def singletons() -> Figure:
    """Missing mass and singletons of three laws of frequency against the number of samples."""
    drawn = style.new_figure(style.PAGE, 3.3)
    axes = drawn.subplots()
    axes.set_label("unseen questions")
    laws = {"all questions alike": 0.0, "frequency ~ 1/rank": 1.0, "frequency ~ 1/rank$^{1.5}$": 1.5}
    samples = np.unique(np.geomspace(10, 1e6, 161).round()).astype(int)
    seen_at = np.unique(np.geomspace(10, 1e6, 13).round()).astype(int)
    entries = []
    for place, (words, power) in enumerate(laws.items()):
        law = np.arange(1, _QUESTIONS + 1) ** -power
        law /= law.sum()
        mass = [unseen.missing_mass(law, int(n)) for n in samples]
        excess = unseen.good_turing_excess_upper(samples)
        line = style.line(axes, samples, mass, f"missing mass, power {power:g}, share", color=COLORS[place])
        style.band(
            axes,
            samples,
            mass,
            mass + excess,
            f"where the expected singletons lie, power {power:g}, share",
            color=COLORS[place],
            alpha=0.25,
        )
        rng = np.random.default_rng(place)
        once = [float(np.mean(rng.multinomial(n, law) == 1)) * _QUESTIONS / n for n in seen_at]
        style.points(
            axes,
            seen_at,
            once,
            f"singletons of one sample, power {power:g}, share",
            color=COLORS[place],
            marker="o",
            markersize=3.5,
        )
        entries.append((line, words))
    axes.set_xscale("log")
    axes.set_xlim(9, 1.1e6)
    axes.set_xlabel(f"samples of {_QUESTIONS:,} questions")
    style.percent_axis(axes, "probability of an unseen question")
    caption = (
        "Lines: the probability that the next question was not in the data. Points: the share of samples whose "
        "question occurs once, in one random sample each: it estimates the line with an excess between 0 and 1/N "
        "(T18). On those questions a model that has to answer can only guess."
    )
    style.below(drawn, caption, entries)
    return drawn


@picture(
    "membership",
    caption="Knowing what one knows costs bits: the fewer strangers are answered, the more bits a fact takes.",
    claims=("T20", "F3"),
)
def membership_tradeoff() -> Figure:
    """Bits per key against the share of strangers that are answered."""
    drawn = style.new_figure(style.PAGE, 3.2)
    axes = drawn.subplots()
    axes.set_label("bits per fact")
    rate = np.geomspace(1e-4, 1.0, 129)
    limit = membership.false_answer_bits_lower(rate)
    bound = style.line(axes, rate, limit, "no memory takes less, many keys, bits", color=style.THEORY)
    bloom = style.line(axes, rate, limit / math.log(2.0), "Bloom filter, bits", color=COLORS[0], linestyle=(0, (4, 2)))
    entries = [(bound, r"least, many facts: $\log_2 1/\varepsilon$"), (bloom, "Bloom filter")]
    for place, (keys, universe, values) in enumerate(((10, 1000, 1), (1000, 10**7, 1), (1000, 10**7, 32)), 1):
        answered = np.unique((keys + rate * (universe - keys)).round()).astype(int)
        bits = [membership.answered_bits_lower(keys, universe, int(a), values) / keys for a in answered]
        words = f"{keys:,} facts among {universe:,} questions" + (f", {values} answers" if values > 1 else "")
        line = style.line(
            axes,
            (answered - keys) / (universe - keys),
            bits,
            f"least, {words}, bits",
            color=COLORS[place],
            linewidth=1.2,
        )
        entries.append((line, words))
    axes.set_xscale("log")
    axes.set(
        xlim=(1e-4, 1),
        ylim=(0, 20.5),
        xlabel=r"share $\varepsilon$ of other questions that are answered all the same",
        ylabel="bits per fact",
    )
    caption = (
        "A memory that answers its facts and rejects other questions but for a share: recognizing alone costs "
        "log2 of one over that share (the Bloom bound), the answers log2 V on top (F3). Among few questions it is "
        "less, because there are fewer sets of facts to tell apart."
    )
    style.below(drawn, caption, entries, columns=2)
    return drawn
