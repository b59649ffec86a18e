"""Intervals that hold the measured value as often as they say, from errors on validation.

The error of a molecule is taken to grow with the spread of its predictions (over the members of an
ensemble and over SMILES): sigma^2 = floor^2 + (slope * spread)^2, both fitted by maximum likelihood
of a normal error. The interval is prediction +- factor * sigma, its factor the conformal quantile
of |error| / sigma (Papadopoulos et al. 2008, normalised nonconformity; Lei et al. 2018). Floor and
slope are fitted on the rows that also give the quantile, and the epoch was chosen on them (with
`--kernel` its share, with `--tune` the settings): two numbers and a few choices, so coverage is a
little below the level; it is measured on test and said.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from lipo_cli.errors import ModelError

Floats = NDArray[np.float64]
LEVEL = 0.9
FEWEST = 20
"""Below this, the quantile of a 90 % interval is one of the two largest errors."""


@dataclass(frozen=True)
class Calibration:
    """How wide an interval is.

    Attributes:
        level: Share of measured values that it is to hold.
        floor: Part of sigma that every molecule has, in label units.
        slope: Sigma per unit of spread.
        factor: Half the interval's width in sigmas.
        n: Validation molecules that it was calibrated on.
    """

    level: float
    floor: float
    slope: float
    factor: float
    n: int

    def sigma(self, spread: Floats) -> Floats:
        """Returns the expected error [n] in label units."""
        found: Floats = np.sqrt(self.floor**2 + (self.slope * spread) ** 2)
        return found

    def interval(self, predicted: Floats, spread: Floats) -> tuple[Floats, Floats]:
        """Returns the lower and upper ends [n] in label units."""
        half = self.factor * self.sigma(spread)
        return predicted - half, predicted + half

    def as_dict(self) -> dict[str, Any]:
        """Returns plain values for a manifest."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Any) -> Calibration:
        """Takes back what `as_dict` gave.

        Raises:
            ModelError: the values are none.
        """
        try:
            found = cls(**content)
            sound = all(
                math.isfinite(v) and v >= 0 for v in (found.floor, found.slope, found.factor)
            )
        except TypeError:
            sound = False
        if not sound:
            raise ModelError("the manifest's calibration makes no sense")
        return found


def calibrate(
    predicted: Floats, measured: Floats, spread: Floats, level: float = LEVEL
) -> Calibration | None:
    """Fits an interval to validation errors; None where there are too few rows.

    Args:
        predicted: Predictions [n] in label units.
        measured: Labels [n].
        spread: Standard deviation of each molecule's predictions [n]; zeros where there is one.
        level: Share of measured values that the interval is to hold.
    """
    n = len(measured)
    if n < FEWEST:
        return None
    error = np.abs(predicted - measured)
    floor, slope = _normal_fit(error, spread)
    fitted = Calibration(level, floor, slope, factor=1.0, n=n)
    ratio = np.sort(error / fitted.sigma(spread))
    # The ceil((n + 1) * level)-th smallest: with exchangeable rows coverage is at least the level.
    position = min(n, math.ceil((n + 1) * level)) - 1
    return replace(fitted, factor=float(ratio[position]))


def _normal_fit(error: Floats, spread: Floats) -> tuple[float, float]:
    """Returns floor and slope of greatest likelihood."""
    size = max(float(np.sqrt(np.mean(error**2))), 1e-12)
    typical = float(np.sqrt(np.mean(spread**2)))
    if typical < 1e-9 * size or np.ptp(spread) < 1e-9 * size:
        return size, 0.0

    def loss(logs: Floats) -> float:
        variance = np.exp(2 * logs[0]) + (np.exp(logs[1]) * spread / typical) ** 2
        return float(np.mean(np.log(variance) + error**2 / variance))

    starts = [(math.log(size * a), math.log(size * b)) for a, b in ((0.7, 0.7), (1, 0.1), (0.1, 1))]
    bounds = [(math.log(size) - 6, math.log(size) + 3)] * 2
    fits = [minimize(loss, start, method="L-BFGS-B", bounds=bounds) for start in starts]
    best = min(fits, key=lambda fit: float(fit.fun))
    floor, slope = (float(np.exp(value)) for value in best.x)
    return floor, slope / typical


def coverage(lower: Floats, upper: Floats, measured: Floats) -> float:
    """Returns the share of measured values inside their intervals."""
    return float(np.mean((lower <= measured) & (measured <= upper)))


def error_by_fifth(error: Floats, uncertainty: Floats) -> float:
    """Returns the RMS error of the most uncertain fifth over that of the least uncertain."""
    order = np.argsort(uncertainty, kind="stable")
    fifth = max(1, len(order) // 5)
    low, high = error[order[:fifth]], error[order[-fifth:]]
    return float(np.sqrt(np.mean(high**2)) / max(np.sqrt(np.mean(low**2)), 1e-12))
