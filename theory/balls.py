"""Ball arithmetic: numbers that are known up to a radius, and their first two derivatives.

A ball holds every value that an expression takes on a box: where the ball is positive the expression is proved
positive, whatever was rounded. The arithmetic is Arb's (python-flint) or, where that is not installed, the intervals of
mpmath; both round outward at 128 bits. A formula is written once, with + - * / and the functions of `Balls`, and runs
on balls and on jets alike; a ball that is not a variable stands to the right of one.
"""

import functools
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from theory.console import Refusal

BITS = 128
_TERMS = 48  # of the series of ln(1 + w)/w around 0

Ball = Any  # what the library makes: it has + - * / with its like and with whole numbers; unknown where not defined


class Balls(ABC):
    """Functions of balls and jets. Every result encloses the exact one; where a function has no value it is unknown."""

    name: str

    @abstractmethod
    def hull(self, low: Fraction, high: Fraction) -> Ball:
        """A ball that holds [low, high]."""

    @abstractmethod
    def ends(self, ball: Ball) -> tuple[Ball, Ball]:
        """Two exact balls, at or below and at or above every number of `ball`."""

    @abstractmethod
    def join(self, one: Ball, other: Ball) -> Ball:
        """A ball that holds both."""

    @abstractmethod
    def fraction(self, exact: Ball) -> Fraction | None:
        """The number that an exact ball is; None if it is not finite."""

    @abstractmethod
    def on_ball(self, function: str, x: Ball) -> Ball:
        """exp, log, sin or cos of a ball."""

    @abstractmethod
    def pi(self) -> Ball:
        """The circle constant."""

    def lower(self, ball: Ball) -> float:
        """A float at or below every number of the ball, -inf if nothing is known."""
        number = self.fraction(self.ends(ball)[0])
        if number is None:
            return -math.inf
        rounded = float(number)
        return rounded if Fraction(rounded) <= number else math.nextafter(rounded, -math.inf)

    def positive(self, ball: Ball) -> bool:
        """Whether every number of the ball is > 0, for certain."""
        number = self.fraction(self.ends(ball)[0])
        return number is not None and number > 0

    def negative(self, ball: Ball) -> bool:
        """Whether every number of the ball is < 0, for certain."""
        number = self.fraction(self.ends(ball)[1])
        return number is not None and number < 0

    def number(self, value: Fraction | int) -> Ball:
        """A ball around one rational number."""
        return self.hull(Fraction(value), Fraction(value))

    def unknown(self) -> Ball:
        """A ball that says nothing."""
        zero = self.number(0)
        return zero / zero

    def exp(self, x):
        """e^x."""
        if not isinstance(x, Jet):
            return self.on_ball("exp", x)
        value = self.on_ball("exp", x.value)
        return x.through(value, value, value)

    def log(self, x):
        """Natural logarithm; unknown unless x > 0."""
        if isinstance(x, Jet):
            inverse = 1 / x.value if self.positive(x.value) else self.unknown()
            return x.through(self.log(x.value), inverse, -inverse * inverse)
        return self.on_ball("log", x) if self.positive(x) else self.unknown()

    def sin(self, x):
        """Sine."""
        if not isinstance(x, Jet):
            return self.on_ball("sin", x)
        sine = self.on_ball("sin", x.value)
        return x.through(sine, self.on_ball("cos", x.value), -sine)

    def cos(self, x):
        """Cosine."""
        if not isinstance(x, Jet):
            return self.on_ball("cos", x)
        cosine = self.on_ball("cos", x.value)
        return x.through(cosine, -self.on_ball("sin", x.value), -cosine)

    def x_log_x(self, x):
        """The product x ln x for x >= 0, 0 at 0; its derivatives are unknown where x may be 0."""
        if isinstance(x, Jet):
            log = self.log(x.value)
            return x.through(self.x_log_x(x.value), log + 1, 1 / x.value if self.positive(x.value) else log)
        if self.positive(x):
            return x * self.log(x)
        high = self.ends(x)[1]
        if not self.positive(high):
            return self.number(0)
        at_high = self.join(self.number(0), high * self.log(high))
        if self.negative(high * 4 - 1):  # it falls up to 1/e
            return at_high
        return self.join(self.number(Fraction(-1, 2)), at_high)

    def log1p_ratio(self, w):
        """ln(1 + w)/w for w > -1, 1 at 0."""
        if not isinstance(w, Jet):
            return self._log1p_ratio(w)[0]
        return w.through(*self._log1p_ratio(w.value))

    def _log1p_ratio(self, w: Ball) -> tuple[Ball, Ball, Ball]:
        """The function and two derivatives: in closed form, or around 0 by its series and a bound of its rest."""
        low, high = self.ends(w)
        if not self.negative(high * 8 - 1) or not self.positive(low * 8 + 1):
            value = self.log(1 + w) / w
            slope = (1 / (1 + w) - value) / w
            return value, slope, -(1 / ((1 + w) * (1 + w)) + 2 * slope) / w
        value = slope = bend = self.number(0)
        for k in range(_TERMS - 1, -1, -1):  # Horner, with its derivatives
            bend = bend * w + 2 * slope
            slope = slope * w + value
            value = value * w + self.number(Fraction((-1) ** k, k + 1))
        # For |w| <= 1/8 each of the three rests is below sum_{k >= K} k 8^-(k-2) < 2^-2K.
        rest = self.hull(Fraction(-1, 4**_TERMS), Fraction(1, 4**_TERMS))
        return value + rest, slope + rest, bend + rest


class FlintBalls(Balls):
    """Arb through python-flint."""

    def __init__(self) -> None:
        import flint

        flint.ctx.prec = BITS
        self._flint = flint
        self.name = f"python-flint {flint.__version__}"

    def hull(self, low: Fraction, high: Fraction) -> Ball:  # noqa: D102
        left = self._exactly(low)
        return left if low == high else left.union(self._exactly(high))

    def _exactly(self, number: Fraction) -> Ball:
        return self._flint.arb(self._flint.fmpq(number.numerator, number.denominator))

    def ends(self, ball: Ball) -> tuple[Ball, Ball]:  # noqa: D102
        return ball.lower(), ball.upper()

    def join(self, one: Ball, other: Ball) -> Ball:  # noqa: D102
        return one.union(other)

    def fraction(self, exact: Ball) -> Fraction | None:  # noqa: D102
        if not exact.is_finite():
            return None
        mantissa, exponent = exact.man_exp()
        return Fraction(int(mantissa)) * Fraction(2) ** int(exponent)

    def positive(self, ball: Ball) -> bool:  # noqa: D102
        return ball > 0  # Arb's order: true iff it holds for every number of the ball

    def negative(self, ball: Ball) -> bool:  # noqa: D102
        return ball < 0

    def on_ball(self, function: str, x: Ball) -> Ball:  # noqa: D102
        if function in ("exp", "log") and not x.is_exact():  # they rise, so the ends hold all: tighter for wide balls
            return self.join(*(getattr(end, function)() for end in self.ends(x)))
        return getattr(x, function)()

    def pi(self) -> Ball:  # noqa: D102
        return self._flint.arb.pi()

    def unknown(self) -> Ball:  # noqa: D102
        return self._flint.arb("nan")


class MpmathBalls(Balls):
    """The intervals of mpmath, written in Python alone."""

    def __init__(self) -> None:
        import mpmath
        from mpmath.ctx_iv import MPIntervalContext

        self._iv: Any = MPIntervalContext()
        self._iv.prec = BITS
        self.name = f"mpmath {mpmath.__version__}"

    def hull(self, low: Fraction, high: Fraction) -> Ball:  # noqa: D102
        iv = self._iv
        left, right = (iv.mpf(end.numerator) / iv.mpf(end.denominator) for end in (low, high))
        return iv.mpf([left.a, right.b])

    def ends(self, ball: Ball) -> tuple[Ball, Ball]:  # noqa: D102
        return ball.a, ball.b

    def join(self, one: Ball, other: Ball) -> Ball:  # noqa: D102
        numbers = (self.fraction(one.a), self.fraction(other.a), self.fraction(one.b), self.fraction(other.b))
        if None in numbers:
            return self.unknown()
        low = one.a if numbers[0] <= numbers[1] else other.a  # type: ignore[operator]
        high = one.b if numbers[2] >= numbers[3] else other.b  # type: ignore[operator]
        return self._iv.mpf([low, high])

    def fraction(self, exact: Ball) -> Fraction | None:  # noqa: D102
        sign, mantissa, exponent, bits = exact._mpi_[0]
        if not mantissa and exponent:  # infinities and NaN have a code in place of the exponent
            return None
        return Fraction((-1) ** int(sign) * int(mantissa)) * Fraction(2) ** int(exponent) if bits else Fraction(0)

    def on_ball(self, function: str, x: Ball) -> Ball:  # noqa: D102
        return getattr(self._iv, function)(x)

    def pi(self) -> Ball:  # noqa: D102
        return self._iv.pi + 0

    def unknown(self) -> Ball:  # noqa: D102
        return self._iv.mpf(["-inf", "inf"])


@functools.cache
def balls(library: str | None = None) -> Balls:
    """The arithmetic of `library`, "flint" or "mpmath"; by default the first that is installed."""
    makers = {"flint": FlintBalls, "mpmath": MpmathBalls}
    for name in makers if library is None else (library,):
        try:
            return makers[name]()
        except ModuleNotFoundError:
            continue
    raise Refusal("proofs on boxes need ball arithmetic; install python-flint (the extra loss-threshold[proof])")


@dataclass(frozen=True)
class Jet:
    """A function of one variable at a ball of its values: the value, the first and the second derivative."""

    value: Ball
    slope: Ball
    bend: Ball

    def through(self, value: Ball, slope: Ball, bend: Ball) -> "Jet":
        """The jet of F of this, from F and its derivatives at the value (chain rule)."""
        return Jet(value, slope * self.slope, bend * self.slope * self.slope + slope * self.bend)

    def __add__(self, other: "Jet | Ball | int") -> "Jet":
        other = constant(other)
        return Jet(self.value + other.value, self.slope + other.slope, self.bend + other.bend)

    def __mul__(self, other: "Jet | Ball | int") -> "Jet":
        other = constant(other)
        return Jet(
            self.value * other.value,
            self.slope * other.value + self.value * other.slope,
            self.bend * other.value + 2 * (self.slope * other.slope) + self.value * other.bend,
        )

    def __truediv__(self, other: "Jet | Ball | int") -> "Jet":
        other = constant(other)
        inverse = 1 / other.value
        return self * other.through(inverse, -inverse * inverse, 2 * inverse * inverse * inverse)

    def __neg__(self) -> "Jet":
        return self * -1

    def __sub__(self, other: "Jet | Ball | int") -> "Jet":
        return self + -constant(other)

    def __rsub__(self, other: "Ball | int") -> "Jet":
        return -self + other

    def __rtruediv__(self, other: "Ball | int") -> "Jet":
        return constant(other) / self

    __radd__, __rmul__ = __add__, __mul__


def constant(number: Jet | Ball | int) -> Jet:
    """The jet of something that does not depend on the variable."""
    return number if isinstance(number, Jet) else Jet(number, 0, 0)
