"""Array types of this room, and the checks that keep NaN out of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lipo_cli.errors import ValuationError

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]


def finite_vector(name: str, content: ArrayLike, length: int | None = None) -> FloatArray:
    """Returns `content` as a float64 vector of finite numbers.

    Raises:
        ValuationError: it has another shape or length, or holds NaN or infinity.
    """
    return _finite(name, content, ndim=1, length=length)


def finite_matrix(name: str, content: ArrayLike, length: int | None = None) -> FloatArray:
    """Returns `content` as a C-ordered float64 matrix of finite numbers, one point per row.

    Raises:
        ValuationError: it has another shape or length, or holds NaN or infinity.
    """
    return _finite(name, content, ndim=2, length=length)


def _finite(name: str, content: ArrayLike, *, ndim: int, length: int | None) -> FloatArray:
    array = np.ascontiguousarray(content, dtype=np.float64)
    if array.ndim != ndim:
        raise ValuationError(f"{name} must have {ndim} dimension(s), has shape {array.shape}")
    if length is not None and len(array) != length:
        raise ValuationError(f"{name} must have {length} rows, has {len(array)}")
    bad = ~np.isfinite(array)
    if bad.any():
        first = int(np.argwhere(bad)[0][0])
        raise ValuationError(
            f"{name} holds {int(bad.sum())} non-finite number(s), the first in row {first}"
        )
    return array


def distinct_positions(content: Sequence[int] | IntArray, n: int) -> IntArray:
    """Returns `content` as int64 positions in 0..n-1, each at most once.

    Raises:
        ValuationError: a position repeats or lies outside.
    """
    positions = np.asarray(content, dtype=np.int64).reshape(-1)
    if positions.size == 0:
        return positions
    if positions.min() < 0 or positions.max() >= n:
        raise ValuationError(f"positions must lie in 0..{n - 1}")
    if np.bincount(positions, minlength=n).max() > 1:
        raise ValuationError("a position is named twice")
    return positions


def order_best_first(values: FloatArray) -> IntArray:
    """Returns the positions from the highest value to the lowest; ties keep the file's order."""
    return np.argsort(-values, kind="stable").astype(np.int64)


def ranks(values: FloatArray) -> IntArray:
    """Returns each point's rank, 1 for the highest value; ties keep the file's order."""
    ranked = np.empty(len(values), dtype=np.int64)
    ranked[order_best_first(values)] = np.arange(1, len(values) + 1)
    return ranked
