"""Calibrated intervals: coverage where the truth is known, and the fit against a known law."""

from __future__ import annotations

import numpy as np
import pytest

from lipo_cli.errors import ModelError
from lipo_cli.model.calibration import Calibration, calibrate, coverage, error_by_fifth


def drawn(n: int, seed: int, floor: float = 0.3, slope: float = 1.5):
    rng = np.random.default_rng(seed)
    spread = rng.gamma(2.0, 0.15, n)
    measured = rng.normal(2.0, 1.2, n)
    predicted = measured + rng.normal(0, np.sqrt(floor**2 + (slope * spread) ** 2))
    return predicted, measured, spread


def test_fit_finds_the_law_of_the_errors() -> None:
    found = calibrate(*drawn(20_000, 0))
    assert found is not None
    assert found.floor == pytest.approx(0.3, rel=0.05)
    assert found.slope == pytest.approx(1.5, rel=0.05)
    assert found.factor == pytest.approx(1.645, rel=0.03)  # the normal's two-sided 90 %


@pytest.mark.parametrize("heavy", [False, True])
def test_new_molecules_are_covered_as_often_as_said(heavy: bool) -> None:
    """Also where errors are not normal: the quantile is conformal."""
    rng = np.random.default_rng(1)
    found = []
    for seed in range(60):
        predicted, measured, spread = drawn(800, seed)
        if heavy:
            sigma = np.sqrt(0.3**2 + (1.5 * spread) ** 2)
            predicted = measured + sigma * rng.standard_t(3, 800)
        fitted = calibrate(predicted[:300], measured[:300], spread[:300])
        assert fitted is not None
        ends = fitted.interval(predicted[300:], spread[300:])
        found.append(coverage(*ends, measured[300:]))
    # A standard error of 0.0025 over 60 draws; the two fitted numbers cost at most a point.
    assert 0.885 < np.mean(found) < 0.915


def test_without_spread_the_interval_is_the_plain_conformal_one() -> None:
    rng = np.random.default_rng(2)
    measured = rng.normal(size=99)
    predicted = measured + rng.normal(size=99)
    found = calibrate(predicted, measured, np.zeros(99))
    assert found is not None
    assert found.slope == 0
    low, high = found.interval(np.zeros(1), np.zeros(1))
    wanted = np.sort(np.abs(predicted - measured))[90 - 1]  # ceil(100 * 0.9) = 90th smallest
    assert high[0] == -low[0] == pytest.approx(wanted)


def test_too_few_rows_give_no_interval() -> None:
    assert calibrate(np.zeros(19), np.ones(19), np.zeros(19)) is None


def test_perfect_predictions_do_not_divide_by_zero() -> None:
    found = calibrate(np.arange(30.0), np.arange(30.0), np.zeros(30))
    assert found is not None
    assert np.isfinite(found.interval(np.zeros(2), np.zeros(2))).all()


def test_fifths_by_hand() -> None:
    error = np.array([1.0, -1.0, 5.0, 5.0, 5.0, 5.0, 5.0, 5.0, 3.0, -3.0])
    assert error_by_fifth(error, np.arange(10.0)) == pytest.approx(3.0)
    assert error_by_fifth(error, -np.arange(10.0)) == pytest.approx(1 / 3)


def test_manifest_round_trip_and_nonsense() -> None:
    found = Calibration(0.9, 0.3, 1.0, 1.6, 336)
    assert Calibration.from_dict(found.as_dict()) == found
    for wrong in (None, {}, {**found.as_dict(), "factor": float("nan")}, {"floor": 1}):
        with pytest.raises(ModelError):
            Calibration.from_dict(wrong)
