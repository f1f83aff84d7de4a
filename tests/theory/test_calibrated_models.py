"""The calibrated envelopes against mpmath, brute force, their inverses and limits; cells; mutants of T5 and T6b."""

import math

import hypothesis.strategies as st
import mpmath
import numpy as np
import pytest
from hypothesis import given

from theory import calibrated_memorizers, calibration, claims, memorizers

ANSWERS = st.sampled_from([2, 3, 4, 32, 1000, 50_257])
DECODINGS = ("greedy", "sampled")


def exact_phi(e):
    i = mpmath.floor(1 / (1 - e))
    return mpmath.log(i) + i * (i + 1) * mpmath.log((i + 1) / i) * (e - (i - 1) / i)


def exact_fano(e, v):
    return sum(-p * mpmath.log(p) for p in (e, 1 - e) if p > 0) + e * mpmath.log(v - 1)


def exact_psi(g, v):
    v = mpmath.mpf(v)
    tangent = 1 - (1 - 1 / v) ** 2 - 1 / (v**2 * (v - 1))
    if g <= tangent or v == 2:
        a = (1 + (v - 1) * mpmath.sqrt((1 - 1 / v - g) * v / (v - 1))) / v
        return exact_fano(1 - a, v)
    return mpmath.log(v) - (v - 1) * mpmath.log(v - 1) / (v - 2) * (1 - 1 / v - g)


@given(st.floats(1e-12, 1.0), ANSWERS)
def test_envelopes_agree_with_mpmath_to_12_digits(share, v):
    e = share * (1 - 1 / v) * (1 - 1e-9)
    with mpmath.workdps(50):
        exact = mpmath.mpf(e)
        for got, wanted in (
            (calibration.least_entropy_nats(e), exact_phi(exact)),
            (calibration.greatest_entropy_nats(e, answers=v, decoding="greedy"), exact_fano(exact, v)),
            (calibration.greatest_entropy_nats(e, answers=v, decoding="sampled"), exact_psi(exact, v)),
        ):
            assert abs(mpmath.mpf(float(got)) / wanted - 1) < 1e-12
        for decoding, above in (("greedy", exact_fano(exact, v)), ("sampled", exact_psi(exact, v))):
            low, high = calibration.calibrated_loss_range(e, answers=v, decoding=decoding)
            assert low <= exact_phi(exact)
            assert above <= high


@pytest.mark.parametrize("v", [2, 3, 4, 50_257])
@pytest.mark.parametrize("rate", [5e-324, 1e-323, 3e-322, 1e-310])
def test_loss_ranges_enclose_the_envelopes_where_floats_have_no_digits_left(rate, v):
    with mpmath.workdps(700):
        exact = mpmath.mpf(rate)
        for decoding, above in (("greedy", exact_fano(exact, v)), ("sampled", exact_psi(exact, v))):
            low, high = calibration.calibrated_loss_range(rate, answers=v, decoding=decoding)
            assert low <= exact_phi(exact)
            assert above <= high < 1e-300


@given(st.floats(1e-300, 1.0), ANSWERS, st.sampled_from(DECODINGS))
def test_error_rates_enclose_and_invert_the_envelopes(share, v, decoding):
    loss = share * math.log(v)
    low, high = map(float, calibration.calibrated_error_rates(loss, answers=v, decoding=decoding))
    assert 0.0 <= low <= high <= 1 - 1 / v
    with mpmath.workdps(400):
        upper = exact_fano if decoding == "greedy" else exact_psi
        assert upper(mpmath.mpf(low), v) <= loss or low == 0.0
        if high < 1 - 1 / v:
            assert exact_phi(mpmath.mpf(high)) >= mpmath.mpf(loss) * (1 - mpmath.mpf(10) ** -15)
            assert exact_phi(mpmath.mpf(high) * (1 - mpmath.mpf(10) ** -13)) <= loss
        nearly = min(1 - 1 / v, low * (1 + 1e-12) + 3e-7 * (share > 0.999))
        assert upper(mpmath.mpf(nearly), v) >= mpmath.mpf(loss) * (1 - mpmath.mpf(10) ** -13)
    assert float(calibration.calibrated_error_upper(loss)) >= high * (1 - 1e-14)


@pytest.mark.parametrize("v", [2, 3, 5])
def test_no_row_lies_outside_by_brute_force(v):
    grid = [point for point in np.ndindex(*[13] * v) if sum(point) == 12]
    rows = np.array(grid, dtype=float) / 12
    entropy = -(rows * np.log(np.where(rows > 0, rows, 1))).sum(axis=1)
    for decoding, errors in (("greedy", 1 - rows.max(axis=1)), ("sampled", 1 - (rows**2).sum(axis=1))):
        inside = np.minimum(errors, 1 - 1 / v)
        low, high = calibration.calibrated_loss_range(inside, answers=v, decoding=decoding)
        assert np.all((low <= entropy + 1e-14) & (entropy <= high + 1e-14))
        assert (
            calibration.calibrated_region_contains(entropy * (1 - 1e-15), inside, answers=v, decoding=decoding).mean()
            > 0.8
        )


def test_limits_of_calibrated_models():
    for decoding in DECODINGS:
        assert calibration.calibrated_error_rates(0.0, answers=7, decoding=decoding) == (0.0, 0.0)
        low, high = calibration.calibrated_error_rates(math.log(7), answers=7, decoding=decoding)
        assert low == pytest.approx(6 / 7, abs=1e-6)
        assert high == pytest.approx(6 / 7, abs=1e-12)
        with pytest.raises(ValueError, match="does not lose more"):
            calibration.calibrated_error_rates(2.0, answers=7, decoding=decoding)
        with pytest.raises(ValueError, match="does not err more"):
            calibration.calibrated_loss_range(0.9, answers=7, decoding=decoding)
        for bad in (math.nan, -0.1):
            with pytest.raises(ValueError, match="must be >= 0 and not NaN"):
                calibration.calibrated_loss_range(bad, answers=7, decoding=decoding)
    assert not calibration.calibrated_region_contains(1.0, 0.99, answers=7, decoding="greedy")


@pytest.mark.parametrize("v", [2, 3, 10, 300])
def test_sampled_hull_is_concave_and_touches(v):
    g = np.linspace(0, 1 - 1 / v, 4001)
    hull = calibration.greatest_entropy_nats(g, answers=v, decoding="sampled")
    assert np.all(np.diff(hull, 2) <= 1e-12)
    peak = np.linspace(1 / v, 1, 4001)
    rows = np.concatenate([peak[:, None], np.repeat((1 - peak[:, None]) / max(1, v - 1), v - 1, axis=1)], axis=1)
    entropy = -(rows * np.log(np.where(rows > 0, rows, 1))).sum(axis=1)
    errors = np.clip(1 - (rows**2).sum(axis=1), 0, 1 - 1 / v)
    assert np.all(entropy <= calibration.greatest_entropy_nats(errors, answers=v, decoding="sampled") + 1e-12)


def test_counterexample_to_entropy_alone():
    """The one in print: loss = entropy = .990 bits and an error of .987."""
    weight, ln2 = 0.98657, math.log(2)
    first, second = (0.501, 0.499), (0.95, 0.05)
    entropies = [-sum(p * math.log(p) for p in row) for row in (first, second)]
    loss = -weight * math.log(first[1]) - (1 - weight) * math.log(second[0])
    entropy = weight * entropies[0] + (1 - weight) * entropies[1]
    assert loss / ln2 == pytest.approx(0.99041, abs=2e-5)
    assert entropy / ln2 == pytest.approx(0.99041, abs=2e-5)
    assert float(calibration.calibrated_error_upper(loss)) == pytest.approx(0.495, abs=1e-3)


@given(st.integers(2, 40), st.floats(0.0, 1.0), st.floats(0.0, 1.0), st.sampled_from(DECODINGS), st.integers(0, 300))
def test_cells_are_where_they_were_wanted_and_calibrated(v, height, across, decoding, extra):
    rate = across * (1 - 1 / v)
    low = float(calibration.least_entropy_nats(rate))
    high = float(calibration.greatest_entropy_nats(rate, answers=v, decoding=decoding))
    loss = low + height * max(0.0, high - low)
    cells = calibrated_memorizers.calibrated_cells(loss, rate, answers=v, decoding=decoding)
    assert cells.mean_loss == pytest.approx(loss, abs=1e-13)
    assert cells.error(decoding) == pytest.approx(rate, abs=1e-13)
    fewest = calibrated_memorizers.fewest_facts(cells)
    built = calibrated_memorizers.weighted_facts(cells, fewest + extra)
    assert built.logits.shape == (fewest + extra, v)
    assert np.all((built.frequencies > 0) | (rate < 1e-150))  # or the product of two shares underflows
    losses = memorizers.cross_entropies(built.logits, built.labels)
    assert math.fsum(built.frequencies * losses) == pytest.approx(loss, abs=1e-12)
    with pytest.raises(ValueError, match="these cells need"):
        calibrated_memorizers.weighted_facts(cells, fewest - 1)


def test_points_outside_the_calibrated_region_have_no_cells():
    for decoding in DECODINGS:
        with pytest.raises(ValueError, match="impossible"):
            calibrated_memorizers.calibrated_cells(0.1, 0.4, answers=8, decoding=decoding)
        with pytest.raises(ValueError, match="impossible"):
            calibrated_memorizers.calibrated_cells(2.0, 0.1, answers=8, decoding=decoding)


CALIBRATED_MUTANTS = {
    "T5 lower envelope 5 % high": ("T5", calibration, "calibrated_loss_range", lambda v: (v[0] * 1.05, v[1])),
    "T5 lower envelope 5 % low": ("T5", calibration, "calibrated_loss_range", lambda v: (v[0] * 0.95, v[1])),
    "T5 upper envelope 5 % high": ("T5", calibration, "calibrated_loss_range", lambda v: (v[0], v[1] * 1.05)),
    "T5 upper envelope 5 % low": ("T5", calibration, "calibrated_loss_range", lambda v: (v[0], v[1] * 0.95)),
    "T5 least error 5 % high": ("T5", calibration, "calibrated_error_rates", lambda v: (v[0] * 1.05, v[1])),
    "T5 least error 5 % low": ("T5", calibration, "calibrated_error_rates", lambda v: (v[0] * 0.95, v[1])),
    "T5 greatest error 5 % high": ("T5", calibration, "calibrated_error_rates", lambda v: (v[0], v[1] * 1.05)),
    "T5 greatest error 5 % low": ("T5", calibration, "calibrated_error_rates", lambda v: (v[0], v[1] * 0.95)),
    "T5 half of the entropy 5 % low": ("T5", calibration, "calibrated_error_upper", lambda v: v * 0.95),
    "T5 half of the entropy 5 % high": ("T5", calibration, "calibrated_error_upper", lambda v: v * 1.05),
    "T5 tangent point 5 % low": ("T5", calibration, "tangent_point", lambda v: v * 0.95),
    "T6b peaked row 5 % off": ("T6b", calibration, "peaked_row_error", lambda v: v * 0.95),
    "T6b region too small": ("T6b", calibration, "calibrated_region_contains", lambda v: v & False),
}


@pytest.mark.parametrize("mutant", CALIBRATED_MUTANTS)
def test_mutant_of_calibration_is_caught(mutant, monkeypatch):
    name, module, function, change = CALIBRATED_MUTANTS[mutant]
    true = getattr(module, function)
    monkeypatch.setattr(module, function, lambda *a, **k: change(true(*a, **k)))
    assert not claims.check(claims.get(name), examples=50, seed=0).passed
