"""How far two valuations, or the selections made of them, agree."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import spearmanr

from lipo_cli.errors import ValuationError
from lipo_cli.valuation.arrays import finite_vector


def jaccard(a: Iterable[int], b: Iterable[int]) -> float:
    """Returns |a and b| / |a or b| of two selections of positions; 1 for two empty ones."""
    first, second = {int(i) for i in a}, {int(i) for i in b}
    union = first | second
    return len(first & second) / len(union) if union else 1.0


def spearman(a: ArrayLike, b: ArrayLike) -> float:
    """Returns Spearman's rank correlation of two valuations of the same points.

    Raises:
        ValuationError: lengths differ, a value is not finite, there are fewer than two points, or
            all values of one side are equal, where the correlation is not defined.
    """
    first = finite_vector("the first values", a)
    second = finite_vector("the second values", b, len(first))
    if len(first) < 2 or np.ptp(first) == 0 or np.ptp(second) == 0:
        raise ValuationError("a rank correlation needs two or more different values on each side")
    return float(spearmanr(first, second).statistic)
