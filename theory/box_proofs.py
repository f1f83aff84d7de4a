"""The inequalities that claims come down to, for the prover of `theory.proof`.

They are written from the proofs, in ball arithmetic, and share no code with the float64 functions of the theory. V is
the number of answers, w = 1/V: a box 0 <= w <= 1/2 covers every V >= 2 at once (and more: a real V). L and l are
losses in nats. Sides are multiplied by positive factors where that removes a singularity; the statement says which.
"""

from theory.proof import Inequality, edge, variable

# ---- T1, T2: thresholds of greedy decoding

_T1 = (
    Inequality(
        "right below ln 2", "T1",
        "e^-l > 1 - e^-l at l = ln 2 - d, 0 < d <= 7/10",
        "Below ln 2 the answer has more probability than all others together, so no rival reaches it.",
        (variable("d", 0, "7/10"),),
        smaller=lambda f, d: 1 - f.exp(d) / 2,
        greater=lambda f, d: f.exp(d) / 2,
        edges=(edge("d", 0, 1, "7/10", "At l = ln 2 both are 1/2."),),
    ),
    Inequality(
        "wrong possible from ln 2", "T1",
        "1 - e^-l > e^-l at l = ln 2 + d, 0 < d <= 64",
        "From ln 2 on, one rival that has all the rest is at least as probable as the answer.",
        (variable("d", 0, 64),),
        smaller=lambda f, d: f.exp(-d) / 2,
        greater=lambda f, d: 1 - f.exp(-d) / 2,
        edges=(edge("d", 0, 1, 1, "At l = ln 2 both are 1/2, a tie, which counts as wrong."),),
    ),
    Inequality(
        "right possible below ln V", "T1",
        "V e^-l > V (1 - e^-l)/(V - 1) at l = ln V - d, 0 < d <= 16, every V >= 2",
        "Below ln V, the answer beats its rivals if they share the rest equally.",
        (variable("d", 0, 16), variable("w", 0, "1/2")),
        smaller=lambda f, d, w: (1 - w * f.exp(d)) / (1 - w),
        greater=lambda f, d, w: f.exp(d),
        edges=(edge("d", 0, 1, 16, "At l = ln V all answers have 1/V."),),
    ),
    Inequality(
        "wrong from ln V", "T1",
        "V (1 - e^-l)/(V - 1) > V e^-l at l = ln V + d, 0 < d <= 64, every V >= 2",
        "Above ln V the largest rival, at least the mean of the rivals, beats the answer; at ln V it ties.",
        (variable("d", 0, 64), variable("w", 0, "1/2")),
        smaller=lambda f, d, w: f.exp(-d),
        greater=lambda f, d, w: (1 - w * f.exp(-d)) / (1 - w),
        edges=(edge("d", 0, 1, 1, "At l = ln V all answers have 1/V, a tie, which counts as wrong."),),
    ),
)  # fmt: skip

_T2 = (
    Inequality(
        "an error costs ln 2", "T2",
        "ln(1 + e^g) > ln 2 for 0 < g <= 64, g a rival's logit minus the answer's",
        "The loss is at least ln(1 + e^g) for every rival, so k errors cost at least k ln 2.",
        (variable("g", 0, 64),),
        smaller=lambda f, g: f.log(f.number(2)),
        greater=lambda f, g: f.log(1 + f.exp(g)),
        edges=(edge("g", 0, 1, 1, "A tie costs ln 2 if all other rivals have probability 0."),),
    ),
    Inequality(
        "a right fact costs less than ln V", "T2",
        "ln(1 + (V - 1) e^-g) < ln V for 0 < g <= 64, 69/100 <= ln V <= 12, g the answer's lead in logits",
        "If every rival is at least g below the answer, the loss is at most ln(1 + (V - 1) e^-g): n - k right facts "
        "cost less than (n - k) ln V.",
        (variable("g", 0, 64), variable("ln V", "69/100", 12)),
        smaller=lambda f, g, a: f.log(1 + (f.exp(a) - 1) * f.exp(-g)),
        greater=lambda f, g, a: a,
        edges=(edge("g", 0, 1, 1, "Without a lead the row is uniform and costs ln V."),),
    ),
    Inequality(
        "right rows that attain it are right", "T2",
        "(e^l - 1)/V < (V - 1)/V at l = (1 - s) ln V, 0 < s <= 1, 69/100 <= ln V <= 12",
        "The row with loss l whose rivals are equal has the lead ln(V - 1) - ln(e^l - 1) > 0.",
        (variable("s", 0, 1), variable("ln V", "69/100", 12)),
        smaller=lambda f, s, a: f.exp(-(a * s)) - f.exp(-a),
        greater=lambda f, s, a: 1 - f.exp(-a),
        edges=(edge("s", 0, 1, "1/8", "At l = ln V the lead is 0."),),
    ),
    Inequality(
        "wrong rows that attain it are wrong", "T2",
        "e^l - 1 > 1 at l = ln 2 + d, 0 < d <= 64",
        "The row with loss l and one rival has the answer ln(e^l - 1) >= 0 below the rival.",
        (variable("d", 0, 64),),
        smaller=lambda f, d: f.number(1),
        greater=lambda f, d: 2 * f.exp(d) - 1,
        edges=(edge("d", 0, 1, 64, "At ln 2 answer and rival tie."),),
    ),
)  # fmt: skip

# ---- T3: sampling

_T3 = (
    Inequality(
        "equal losses err most", "T3",
        "1 - e^-d < d for -16 <= d <= 16, d not 0",
        "Times e^-L, with d = l - L, it is the tangent of 1 - e^-l at L: 1 - e^-l <= 1 - e^-L + e^-L (l - L). The mean "
        "over facts with mean loss L is at most 1 - e^-L.",
        (variable("d", -16, 16),),
        smaller=lambda f, d: 1 - f.exp(-d),
        greater=lambda f, d: d,
        edges=(edge("d", 0, 2, 1, "The tangent touches: value and slope agree at d = 0."),),
    ),
    Inequality(
        "unequal losses err less", "T3",
        "1 + e^-g < e^x + e^-(g + x) for 0 <= g <= 32, 0 < x <= 16",
        "Of two facts with losses l <= l + g, moving x of the loss from the first to the second lowers their errors: "
        "this is that, times e^l. So the errors are fewest when no two losses are strictly between 0 and M, which "
        "leaves k losses M and one remainder.",
        (variable("g", 0, 32), variable("x", 0, 16)),
        smaller=lambda f, g, x: 1 + f.exp(-g),
        greater=lambda f, g, x: f.exp(x) + f.exp(-g) * f.exp(-x),
        edges=(edge("x", 0, 2, 16, "Nothing moved changes nothing, and the slope there is 1 - e^-g >= 0."),),
    ),
)  # fmt: skip

# ---- T5: entropy and error of calibrated rows. i is the number of the largest entries, w = 1/i, x = (1 - s)/i.


def _entropy(f, e):
    """Binary entropy h(e), nats."""
    return -f.x_log_x(e) - f.x_log_x(1 - e)


def _square(x):
    return x * x


def _tangent(f, w, square):
    """The line psi_V beyond its tangent point, at the row (a, b, ..., b) with (a - w)^2/(1 - 2w)^2 = `square`."""
    return -f.log(w) - (1 - 2 * w) * _log_rivals(f, w) * square


def _log_rivals(f, w):
    """ln(V - 1)."""
    return f.log(1 - w) - f.log(w)


def _peaked(f, a, w):
    """Entropy of the row (a, b, ..., b)."""
    return _entropy(f, a) + (1 - a) * _log_rivals(f, w)


def _remainder(t, w):
    """The entry s = t/(i + 1), what i equal entries leave; at t = 1 it equals them."""
    return t * w / (1 + w)


_T5 = (
    Inequality(
        "lower envelope", "T5",
        "[H(row) - ln i]/s > (i + 1) ln(1 + 1/i) for the row of i entries (1 - s)/i and one entry s = t/(i + 1), "
        "1/16 <= t < 1, every i >= 1",
        "Among rows whose largest entry is x the least entropic has as many entries x as fit and one remainder "
        "(it majorizes the others). Between the vertices (pi, H) = ((i - 1)/i, ln i) its entropy lies above the chord, "
        "which is phi. Both sides are divided by s.",
        (variable("t", "1/16", 1), variable("1/i", 0, 1)),
        smaller=lambda f, t, w: (1 + w) * f.log1p_ratio(w),
        greater=lambda f, t, w: f.log(1 + w) - f.log(t) + (1 - _remainder(t, w)) * f.log1p_ratio(-_remainder(t, w)),
        edges=(edge("t", 1, 1, "1/8", "At t = 1 the row has i + 1 equal entries: the next vertex, on the chord."),),
    ),
    Inequality(
        "lower envelope, thin remainder", "T5",
        "ln 16 + ln(1 + 1/i) + 1 - 1/(16 (i + 1)) > (i + 1) ln(1 + 1/i), every i >= 1",
        "The same for 0 < t <= 1/16, where -ln t >= ln 16 and -(1 - s) ln(1 - s)/s >= 1 - s; at s = 0 both rows are "
        "the vertex itself.",
        (variable("1/i", 0, 1),),
        smaller=lambda f, w: (1 + w) * f.log1p_ratio(w),
        greater=lambda f, w: f.log(16 * (1 + w)) + 1 - w / (16 * (1 + w)),
    ),
    Inequality(
        "lower envelope is convex", "T5",
        "(2 + w) ln(1 + w)/w > 1 for 0 <= w <= 1, w = 1/i",
        "It says that the slope i (i + 1) ln(1 + 1/i) rises with i, so phi is convex: it bounds means of rows as well, "
        "and lies above its first piece, pi <= H/2 in bits.",
        (variable("w", 0, 1),),
        smaller=lambda f, w: f.number(1),
        greater=lambda f, w: (2 + w) * f.log1p_ratio(w),
    ),
    Inequality(
        "upper envelope", "T5",
        "y ln y > y - 1 for 0 <= y <= 2^16, y not 1",
        "For a row with largest entry 1 - pi put y = (V - 1) q/pi for its other entries q and sum pi y ln y/(V - 1): "
        "pi ln(V - 1) is at least their entropy, hence Fano. With y = a/b and (1 - a)/(1 - b) it says that h2 is "
        "concave, so the mean over rows is covered. For V <= 2^16 + 1.",
        (variable("y", 0, 2**16),),
        smaller=lambda f, y: y - 1,
        greater=lambda f, y: f.x_log_x(y),
        edges=(edge("y", 1, 2, "1/2", "Both are 0 with slope 1 at y = 1, the uniform rest."),),
    ),
    Inequality(
        "lower envelope, sampled",
        "T5",
        "[H(row) - ln i]/s > (i + 1) ln(1 + 1/i) (2 - t) for the same row and 1/16 <= t < 1, every i >= 1",
        "The row's sampled error is g = (i - 1)/i + s (2 - t)/i, so this says that its entropy is above phi(g). Rows "
        "of this form are the least entropic of their sampled error (Harremoes and Topsoe 2001).",
        (variable("t", "1/16", 1), variable("1/i", 0, 1)),
        smaller=lambda f, t, w: (1 + w) * f.log1p_ratio(w) * (2 - t),
        greater=lambda f, t, w: f.log(1 + w) - f.log(t) + (1 - _remainder(t, w)) * f.log1p_ratio(-_remainder(t, w)),
        edges=(edge("t", 1, 2, "1/4", "At t = 1 the row is the next vertex, and the chord is its tangent there."),),
    ),
    Inequality(
        "lower envelope, sampled, thin remainder",
        "T5",
        "ln 16 + ln(1 + 1/i) + 1 - 1/(16 (i + 1)) > 2 (i + 1) ln(1 + 1/i), every i >= 1",
        "The same for 0 < t <= 1/16, by the same two estimates and 2 - t <= 2.",
        (variable("1/i", 0, 1),),
        smaller=lambda f, w: 2 * (1 + w) * f.log1p_ratio(w),
        greater=lambda f, w: f.log(16 * (1 + w)) + 1 - w / (16 * (1 + w)),
    ),
    Inequality(
        "upper envelope, sampled",
        "T5",
        "H(a, b, ..., b) < ln V - (1 - 2/V) ln(V - 1) x^2 at a = 1/V + (1 - 2/V) x, 0 < x < 1, 3 <= V <= 64",
        "The right side is the line through (1 - 1/V, ln V) that psi_V follows beyond its tangent point: (a, b, ..., "
        "b), the most entropic row of its sampled error, stays below it.",
        (variable("x", 0, 1), variable("w", "1/64", "1/3")),
        smaller=lambda f, x, w: _peaked(f, w + (1 - 2 * w) * x, w),
        greater=lambda f, x, w: _tangent(f, w, x * x),
        edges=(
            edge("x", 0, 2, "1/16", "The uniform row is the end of the line, with its slope."),
            edge("x", 1, 2, "1/16", "The line touches at a = 1 - 1/V."),
        ),
    ),
    Inequality(
        "upper envelope, sampled, sure rows",
        "T5",
        "the same at a = 1 - y/V, 0 <= y < 1",
        "Rows beyond the tangent point are below the line as well, so it may replace the curve.",
        (variable("y", 0, 1), variable("w", "1/64", "1/3")),
        smaller=lambda f, y, w: _peaked(f, 1 - w * y, w),
        greater=lambda f, y, w: _tangent(f, w, _square((1 - w - w * y) / (1 - 2 * w))),
        edges=(edge("y", 1, 2, "1/2", "The line touches at a = 1 - 1/V."),),
    ),
)  # fmt: skip

# ---- T8: the rate R(e) and its inverse D, at e = (1 - w) s

_T8 = (
    Inequality(
        "the rate falls", "T8",
        "w e < (1 - e)(1 - w) at e = (1 - w) s, 0 <= s < 1, every V >= 2",
        "R'(e) = log2 of e/((1 - e)(V - 1)) < 0 below e = 1 - 1/V: R falls from R(0) = log2 V to R(1 - 1/V) = 0, so "
        "each rate between belongs to exactly one error rate, and bisection finds D.",
        (variable("s", 0, 1), variable("w", 0, "1/2")),
        smaller=lambda f, s, w: w * (1 - w) * s,
        greater=lambda f, s, w: (1 - (1 - w) * s) * (1 - w),
        edges=(edge("s", 1, 1, 1, "At e = 1 - 1/V the slope of R is 0: D is steep at rate 0."),),
    ),
    Inequality(
        "the rate is positive", "T8",
        "h(e) + e ln(V - 1) < ln V at e = (1 - 1/V) s, 0 <= s < 1, 69/100 <= ln V <= 12, h in nats",
        "R(e) > 0 for every error rate below guessing: fewer errors than guessing makes cost bits.",
        (variable("s", 0, 1), variable("ln V", "69/100", 12)),
        smaller=lambda f, s, a: _entropy(f, (1 - f.exp(-a)) * s) + (1 - f.exp(-a)) * s * f.log(f.exp(a) - 1),
        greater=lambda f, s, a: a,
        edges=(edge("s", 1, 2, "1/2", "Guessing costs nothing, and R is flat there: R(1 - 1/V) = R'(1 - 1/V) = 0."),),
    ),
)  # fmt: skip

# ---- T13: gradient flow. m is the margin, u = m - ln V


def _exposures_to_ln2(f, w):
    """Learning rate times the exposures that reach loss ln 2: [V - 2 + (V - 1) ln(V - 1)]/V."""
    return 1 - 2 * w + (1 - w) * (f.log(1 - w) - f.log(w))


_T13 = (
    Inequality(
        "the equation has one solution", "T13",
        "e^u + (1 - w) u < e^(u + d) + (1 - w)(u + d) for -12 <= u <= 16, 0 < d <= 8, every V >= 2",
        "With u = m - ln V: [e^m - 1 + (V - 1) m]/V, the exposures that a margin takes, rises from 0 without bound, so "
        "every number of exposures belongs to exactly one margin.",
        (variable("d", 0, 8), variable("u", -12, 16), variable("w", 0, "1/2")),
        smaller=lambda f, d, u, w: f.exp(u) + (1 - w) * u,
        greater=lambda f, d, u, w: f.exp(u) * f.exp(d) + (1 - w) * (u + d),
        edges=(edge("d", 0, 1, 8, "The same margin takes the same exposures."),),
    ),
    Inequality(
        "Newton starts beyond the solution", "T13",
        "x < e^x - 1 for 0 < x <= 16",
        "At m = x, the learning rate times the exposures, the left side e^m - 1 + (V - 1) m is more than V x. It is "
        "convex and rises, so Newton's steps from there fall to the solution and never pass it.",
        (variable("x", 0, 16),),
        smaller=lambda f, x: x,
        greater=lambda f, x: f.exp(x) - 1,
        edges=(edge("x", 0, 2, 16, "Without exposures the margin is 0; the tangent of e^x at 0 is 1 + x."),),
    ),
    Inequality(
        "gradient descent is not behind the flow", "T13b",
        "d (e^u + 1 - w) < e^u (e^d - 1) + (1 - w) d for -12 <= u <= 16, 0 < d <= 8, every V >= 2",
        "A step of gradient descent with learning rate d (e^u + 1 - w) adds d to the margin m = u + ln V. The right "
        "side, which is more, is what the flow takes to come as far.",
        (variable("d", 0, 8), variable("u", -12, 16), variable("w", 0, "1/2")),
        smaller=lambda f, d, u, w: d * (f.exp(u) + 1 - w),
        greater=lambda f, d, u, w: f.exp(u) * (f.exp(d) - 1) + (1 - w) * d,
        edges=(edge("d", 0, 2, 8, "Step and flow start from one margin with one speed."),),
    ),
    Inequality(
        "a fact needs more than ln(V/2)", "T13",
        "ln V - ln 2 < [V - 2 + (V - 1) ln(V - 1)]/V for 2 < V <= 2^16",
        "Learning rate times exposures until one fact's loss is ln 2, from below: about ln V.",
        (variable("w", "1/65536", "1/2"),),
        smaller=lambda f, w: -f.log(2 * w),
        greater=lambda f, w: _exposures_to_ln2(f, w),
        edges=(edge("w", "1/2", 1, "1/8", "With two answers the loss is ln 2 at the start and ln(V/2) = 0."),),
    ),
    Inequality(
        "a fact needs less than ln V + 1", "T13",
        "[V - 2 + (V - 1) ln(V - 1)]/V < ln V + 1 for 2 <= V <= 2^12",
        "The same, from above: the number of facts does not enter.",
        (variable("w", "1/4096", "1/2"),),
        smaller=lambda f, w: _exposures_to_ln2(f, w),
        greater=lambda f, w: 1 - f.log(w),
    ),
)  # fmt: skip

# ---- T25: agreement of two models with correlation rho


_T25 = (
    Inequality(
        "between guessing and one mind", "T25",
        "x < sin(pi x/2) for 0 < x < 1",
        "With rho = sin(pi x/2), A(rho, 2) = 1/2 + x/2 lies below the chord (1 + rho)/2 and meets it at rho = 0 and 1: "
        "A(0, 2) = 1/2, A(1, 2) = 1. For more options A = sum W_k rho^k with W_k >= 0, W_0 = 1/m and sum W_k = 1 lies "
        "below the chord 1/m + (1 - 1/m) rho likewise.",
        (variable("x", 0, 1),),
        smaller=lambda f, x: x,
        greater=lambda f, x: f.sin(x * f.pi() / 2),
        edges=(
            edge("x", 0, 1, "1/4", "At rho = 0 both models guess: A = 1/m."),
            edge("x", 1, 1, "1/4", "At rho = 1 they are one: A = 1."),
        ),
    ),
    Inequality(
        "the limits close in", "T25",
        "1 - m (m - 1) x/4 < 1/m + (1 - 1/m) cos(pi x/2) for 0 < x <= 1, 2 <= m <= 64, both divided by 1 - 1/m",
        "With rho = cos(pi x/2) two options are ordered differently with probability x/2, so the union bound over "
        "pairs gives A >= 1 - m (m - 1) x/4, which tends to 1 with rho; it lies below the chord of the other "
        "inequality, so both limits hold for every m.",
        (variable("x", 0, 1), variable("m", 2, 64)),
        smaller=lambda f, x, m: 1 - m * m * x / 4,
        greater=lambda f, x, m: f.cos(x * f.pi() / 2),
        edges=(
            edge("x", 0, 1, "1/4", "At rho = 1 both are 1."),
            edge("x", 1, 1, "1/4", "At rho = 0 and m = 2 both are 1/2; for more options the left side is smaller."),
        ),
    ),
)  # fmt: skip

INEQUALITIES: tuple[Inequality, ...] = (*_T1, *_T2, *_T3, *_T5, *_T8, *_T13, *_T25)
