"""The prover on boxes: it proves what is true, refuses what is not, and never rounds its way to a verdict."""

import dataclasses
import math
import sys
from fractions import Fraction

import mpmath
import pytest
from hypothesis import given
from hypothesis import strategies as st

from theory import agreement, capacity
from theory.balls import Jet, balls
from theory.console import Refusal
from theory.proof import Inequality, edge, inequalities, prove, variable

ALL = {f"{one.claim} {one.name}": one for group in inequalities().values() for one in group}
SHARP = [name for name, one in ALL.items() if one.edges]
LIBRARIES = ("flint", "mpmath")


@pytest.fixture(params=LIBRARIES, scope="module")
def functions(request):
    pytest.importorskip(request.param)
    return balls(request.param)


def _one(name, smaller, greater, *edges):
    """An inequality on [0, 1]."""
    return Inequality(name, "T0", "", "", (variable("x", 0, 1),), smaller, greater, edges)


@pytest.mark.parametrize("name", ALL)
def test_inequality_is_proved(name):
    proof = prove(ALL[name])
    assert proof.proved, proof
    assert proof.smallest_margin > 0
    assert proof.smallest_derivative > 0
    assert min(proof.smallest_margin, proof.smallest_derivative) < math.inf


@pytest.mark.parametrize("name", [name for name in ALL if not name.startswith("T13") and "sampled" not in name])
def test_the_other_arithmetic_proves_it_too(name):
    assert prove(ALL[name], library="mpmath").proved


def test_the_claims_that_come_down_to_inequalities_have_them():
    assert {"T1", "T2", "T3", "T5", "T8", "T13", "T25"} <= set(inequalities())


@pytest.mark.parametrize("name", ALL)
def test_reversed_inequality_is_refuted(name):
    one = ALL[name]
    turned = prove(dataclasses.replace(one, smaller=one.greater, greater=one.smaller))
    assert turned.verdict == "refuted"
    assert turned.where is not None


@pytest.mark.parametrize("name", SHARP)
def test_sharp_inequality_does_not_survive_a_twentieth_more(name):
    one = ALL[name]
    shifted = dataclasses.replace(one, smaller=lambda f, *x: one.smaller(f, *x) + f.number(Fraction(1, 20)))
    assert prove(shifted).verdict == "refuted"


# At the edge of the last one both sides are 0 and cross at different slopes: there a factor changes nothing.
@pytest.mark.parametrize("name", [name for name in SHARP if "ln(V/2)" not in name])
def test_sharp_inequality_does_not_survive_a_constant_of_five_percent_more(name):
    one = ALL[name]
    scaled = dataclasses.replace(one, smaller=lambda f, *x: one.smaller(f, *x) * f.number(Fraction(21, 20)))
    assert prove(scaled).verdict == "refuted"


def test_a_refutation_names_a_box_where_it_is_false():
    jordan = ALL["T25 between guessing and one mind"]
    beyond = dataclasses.replace(jordan, variables=(variable("x", 0, 3),))
    proof = prove(beyond)
    assert proof.verdict == "refuted"
    ((low, high),) = proof.where
    assert all(math.sin(math.pi * x / 2) < x for x in (float(low), float(high)))


@pytest.mark.parametrize("library", LIBRARIES)
def test_an_inequality_false_on_a_hair_is_not_proved(library):
    # (x - 1/3)^2 - 10^-12 is negative on 2 * 10^-6 of the interval, between the cuts.
    narrow = _one("narrow", lambda f, x: f.number(Fraction(1, 10**12)), lambda f, x: (3 * x - 1) * (3 * x - 1) / 9)
    proof = prove(narrow, library=library)
    assert proof.verdict == "refuted"
    assert abs(proof.where[0][0] - Fraction(1, 3)) < Fraction(1, 10**6)


def test_touching_without_an_edge_is_undecided_and_never_proved():
    touching = _one("touching", lambda f, x: f.number(0), lambda f, x: (x * 3 - 1) * (x * 3 - 1))
    assert prove(touching, most_boxes=300).verdict == "undecided"
    right = dataclasses.replace(touching, edges=(edge("x", "1/3", 2, "1/9", ""),))
    assert prove(right).proved
    crossing_is_claimed = dataclasses.replace(touching, edges=(edge("x", "1/3", 1, "1/9", ""),))
    assert prove(crossing_is_claimed, most_boxes=300).verdict == "undecided"


def test_an_edge_where_the_sides_differ_is_refuted():
    lifted = _one("lifted", lambda f, x: f.number(Fraction(1, 1000)), lambda f, x: x, edge("x", 0, 1, 1, ""))
    assert prove(lifted).verdict == "refuted"
    falling = _one("falling", lambda f, x: x / 1000, lambda f, x: x * x, edge("x", 0, 2, 1, ""))
    assert prove(falling).verdict == "refuted"  # touches with a slope below 0, though the second derivative is above


def test_too_few_boxes_leave_it_undecided():
    proof = prove(ALL["T5 lower envelope"], most_boxes=20)
    assert proof.verdict == "undecided"
    assert proof.where is not None


@given(st.data())
def test_balls_enclose_their_functions_on_wide_boxes(functions, data):
    low = data.draw(st.fractions(0, 4, max_denominator=64))
    high = low + data.draw(st.fractions(0, 2, max_denominator=64))
    point = low + (high - low) * data.draw(st.fractions(0, 1, max_denominator=64))
    box, x = functions.hull(low, high), mpmath.mpf(point.numerator) / point.denominator
    exact = {
        "exp": mpmath.exp(x),
        "sin": mpmath.sin(x),
        "cos": mpmath.cos(x),
        "log1p_ratio": mpmath.log1p(x) / x if x else 1,
        "x_log_x": x * mpmath.log(x) if x else 0,
    }
    for name, value in exact.items():
        ball = getattr(functions, name)(box)
        assert functions.lower(ball) <= value + 1e-15 * (1 + abs(value))
        assert -functions.lower(-ball) >= value - 1e-15 * (1 + abs(value))


@pytest.mark.parametrize("point", ["-1/3", "-1/9", "1/100", "1/9", "1/7", "3"])
def test_derivatives_are_those_of_mpmath(functions, point):
    def formula(f, x):
        return (
            f.log1p_ratio(x) * f.exp(-x) + f.sin(x * x) / (2 + x) - f.x_log_x(4 + x) + f.log(2 + f.cos(x)) - 1 / (5 - x)
        )

    class Numbers:
        exp, sin, cos, log = mpmath.exp, mpmath.sin, mpmath.cos, mpmath.log
        log1p_ratio = staticmethod(lambda x: mpmath.log1p(x) / x)
        x_log_x = staticmethod(lambda x: x * mpmath.log(x))

    x = Fraction(point)
    jet = formula(functions, Jet(functions.number(x), 1, 0))
    with mpmath.workdps(60):
        exact = [
            mpmath.diff(lambda y: formula(Numbers, y), mpmath.mpf(x.numerator) / x.denominator, k) for k in range(3)
        ]
    found = [functions.lower(ball) for ball in (jet.value, jet.slope, jet.bend)]
    assert found == pytest.approx([float(value) for value in exact], rel=1e-13, abs=1e-15)


def test_nothing_is_known_where_a_function_is_not_defined(functions):
    around_zero = functions.hull(Fraction(-1), Fraction(1))
    for unknown in (functions.log(around_zero), 1 / around_zero, functions.unknown(), functions.unknown() * 0):
        assert not functions.positive(unknown)
        assert not functions.negative(unknown)


def test_the_sides_are_those_of_the_theory():
    functions = balls()

    def margin(name, *point):
        return functions.lower(ALL[name].margin(functions, *(functions.number(Fraction(x)) for x in point)))

    for answers, share in ((2, 0.3), (32, 0.7), (1000, 0.99)):
        rate = float(capacity.rate_bits((1 - 1 / answers) * share, answers)) * math.log(2)
        assert margin("T8 the rate is positive", share, math.log(answers)) == pytest.approx(rate, rel=1e-9)
    # A row of three entries .3 and one .1: entropy over the chord from ln 3 to ln 4, divided by the remainder.
    entropy, chord = -0.9 * math.log(0.3) - 0.1 * math.log(0.1), math.log(3) + 0.4 * math.log(4 / 3)
    assert margin("T5 lower envelope", 0.4, Fraction(1, 3)) == pytest.approx((entropy - chord) / 0.1, rel=1e-9)


@pytest.mark.parametrize("options", [2, 3, 4, 10])
def test_agreement_lies_between_the_limits_that_close_in(options):
    pairs = options * (options - 1) / 2
    for correlation in (0.0, 0.1, 0.5, 0.9, 0.99, 0.9999, 1.0):
        rate = agreement.agreement(correlation, options)
        assert rate >= 1 - pairs * math.acos(correlation) / math.pi - 1e-12
        assert rate <= 1 / options + (1 - 1 / options) * correlation + 1e-12


def test_without_ball_arithmetic_the_proof_is_refused(monkeypatch):
    for module in LIBRARIES:
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(Refusal, match="install python-flint"):
        balls.__wrapped__()
