"""Intervals and tests of a mean difference that is uncertain in two ways: by seed and by molecule.

A test RMSE would be another with another training seed, and another with other test molecules. The
two are crossed (every seed predicts every molecule), so that neither a t test over seeds nor a
bootstrap over molecules covers both (Clark 1973, the language-as-fixed-effect fallacy). Here each
source is a variance of the mean with its own degrees of freedom, and the half-widths add in squares
(Graybill and Wang 1980; Zou and Donner 2008). benchmarks/verdicts.py measures the coverage of all
three.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.special import ndtr
from scipy.stats import chi2
from scipy.stats import t as student_t

Floats = NDArray[np.float64]

LEVEL = 0.95
POWER = 0.8


@dataclass(frozen=True)
class Component:
    """One source of uncertainty of a mean.

    Attributes:
        variance: Variance of the mean from this source, in squared units of the mean.
        df: Degrees of freedom with which it was estimated.
    """

    variance: float
    df: float


def rmse_terms(predicted: ArrayLike, measured: ArrayLike) -> Floats:
    """Returns a value for each molecule [n] whose mean is the RMSE and whose spread is its noise.

    rmse + (e_i^2 - mse) / (2 rmse): the linear (influence function) expansion of the RMSE in the
    squared errors, so that differences of RMSEs are differences of means, exactly.
    """
    squared = np.square(np.asarray(predicted, np.float64) - np.asarray(measured, np.float64))
    mse = float(squared.mean())
    if mse == 0:
        return np.zeros_like(squared)
    rmse = math.sqrt(mse)
    return np.asarray(rmse + (squared - mse) / (2 * rmse))


def molecule_component(differences: Floats) -> Component:
    """Returns what other test molecules would change.

    Args:
        differences: [n] difference of the two sides' terms, the mean over seeds of each molecule.
    """
    n = len(differences)
    if n < 2:
        return Component(math.inf, 1)
    return Component(float(differences.var(ddof=1) / n), n - 1)


def residual_variance(
    blocks: Sequence[Hashable], treatments: Sequence[Hashable], values: Sequence[float]
) -> Component | None:
    """Returns the variance of one value that blocks and treatments do not explain, and its df.

    A two-way least-squares fit without interaction, which need not be balanced: the randomised
    block design of textbooks (Fisher 1935) when every block holds every treatment. Pooled over all
    treatments, a few seeds give many more degrees of freedom than the pair alone has.

    Args:
        blocks: The block (seed) of each value.
        treatments: The treatment (selection) of each.
        values: [n] what was measured.

    Returns:
        The variance with its degrees of freedom; None where none are left.
    """
    columns = [_indicators(blocks), _indicators(treatments)]
    design = np.concatenate(columns, axis=1)
    measured = np.asarray(values, np.float64)
    fitted, _, rank, _ = np.linalg.lstsq(design, measured, rcond=None)
    df = len(measured) - int(rank)
    if df < 1:
        return None
    return Component(float(np.square(measured - design @ fitted).sum() / df), df)


def _indicators(labels: Sequence[Hashable]) -> Floats:
    distinct = list(dict.fromkeys(labels))
    return np.array([[float(label == other) for other in distinct] for label in labels])


def half_width(components: Sequence[Component], level: float = LEVEL) -> float:
    """Returns half the width of the interval of this level: sqrt(sum of t_df^2 variance)."""
    quantile = 1 - (1 - level) / 2
    return math.sqrt(
        sum(float(student_t.ppf(quantile, c.df)) ** 2 * c.variance for c in components)
    )


def p_value(delta: float, components: Sequence[Component]) -> float:
    """Returns the two-sided p of no difference: one minus the level whose interval just holds 0."""
    if delta == 0:
        return 1.0
    smallest = 1e-12
    if half_width(components, 1 - smallest) <= abs(delta):
        return smallest
    # In log p: the root is found to the same relative accuracy whether p is 0.5 or 1e-9.
    root = brentq(
        lambda log_p: half_width(components, -math.expm1(log_p)) - abs(delta), math.log(smallest), 0
    )
    return float(math.exp(root))


def detectable(
    components: Sequence[Component], level: float = LEVEL, power: float = POWER
) -> float:
    """Returns the smallest difference that a test at 1 - level would see with this power.

    Were the variances what they were estimated to be, the estimate of a difference d would be
    normal about d and the estimated variances independent of it, scaled chi squares (for one
    component: the noncentral t). The power is the mean over a grid of equally probable chi squares.
    """
    known = [c for c in components if c.variance > 0]
    if not known:
        return 0.0
    if any(math.isinf(c.variance) for c in known):
        return math.inf
    shares = (np.arange(_GRID) + 0.5) / _GRID
    quantile = 1 - (1 - level) / 2
    squares = np.zeros(1)
    for c in known:
        estimated = c.variance * chi2.ppf(shares, c.df) / c.df
        squares = np.add.outer(squares, float(student_t.ppf(quantile, c.df)) ** 2 * estimated)
    needed = np.sqrt(squares).ravel()
    spread = math.sqrt(sum(c.variance for c in known))

    def lacking(difference: float) -> float:
        seen = ndtr((difference - needed) / spread) + ndtr((-difference - needed) / spread)
        return float(seen.mean()) - power

    most = half_width(known, level)
    while lacking(most) < 0:
        most *= 2
    return float(brentq(lacking, 0, most))


_GRID = 100


def holm(p_values: Sequence[float]) -> list[float]:
    """Returns p values corrected over the family (Holm 1979), in the given order."""
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    corrected = [0.0] * len(p_values)
    running = 0.0
    for rank, i in enumerate(order):
        running = max(running, (len(p_values) - rank) * p_values[i])
        corrected[i] = min(1.0, running)
    return corrected


def between_splits(means: Sequence[float], test_to_train: float) -> Component:
    """Returns the variance of a mean over random splits, whose training sets overlap.

    (1/K + n_test/n_train) times the variance between the splits' means, K - 1 degrees of freedom
    (Nadeau and Bengio 2003): 1/K alone would treat splits of the same molecules as independent.

    Args:
        means: [K] the mean difference of each split, over its seeds; K >= 2.
        test_to_train: n_test / n_train.
    """
    k = len(means)
    return Component((1 / k + test_to_train) * float(np.var(means, ddof=1)), k - 1)
