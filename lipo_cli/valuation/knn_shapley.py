r"""KNN-Shapley for regression: exact Shapley values of a nearest-neighbour proxy.

For one query with label t, points ordered by distance as alpha_1, alpha_2, ..., and U(S) = -(1/K
sum over the min(K, |S|) nearest of y - t)^2 (U(empty) = -t^2), the Shapley values follow from the
farthest to the nearest in one sweep (Jia et al. 2019, "Efficient task-specific data valuation for
nearest neighbor algorithms", theorem 6):

    s(alpha_i) - s(alpha_{i+1}) = (y_{i+1} - y_i)/K min(K, i)/i (1/K sum_l A_i^l y_l - 2 t)

with A_i^l = (min(K, i) - 1)/(i - 1) for l < i, 1 for l = i, i + 1, and
min(K, l-1) min(K-1, l-2) i / ((l-1) (l-2) min(K, i)) beyond. The values of many queries are
averaged. Labels are centred by the mean of primary train: that is what no neighbour predicts.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike

from lipo_cli.errors import ValuationError
from lipo_cli.progress import Progress, SilentProgress
from lipo_cli.valuation.arrays import FloatArray, finite_matrix, finite_vector

_SILENT = SilentProgress()
_BYTES = 128 * 2**20
"""Distances and values in memory at a time."""


def knn_shapley(
    points_x: ArrayLike,
    points_y: ArrayLike,
    queries_x: ArrayLike,
    queries_y: ArrayLike,
    n_neighbours: int,
    *,
    centre: float = 0.0,
    progress: Progress = _SILENT,
) -> Iterator[tuple[slice, FloatArray]]:
    """Yields the values of all points for some queries at a time, so that memory stays constant.

    Args:
        points_x: [n, d] features of the points.
        points_y: [n] their labels, raw units.
        queries_x: [m, d] features of the target rows.
        queries_y: [m] their labels.
        n_neighbours: K.
        centre: Label that no neighbour at all predicts.
        progress: Told of queries.

    Yields:
        Positions of queries, and [q, n] values, squared label units.

    Raises:
        ValuationError: shapes disagree, a number is not finite, or K < 1.
    """
    x = finite_matrix("the points' features", points_x)
    y = finite_vector("the points' labels", points_y, len(x)) - centre
    queries = finite_matrix("the target's features", queries_x)
    targets = finite_vector("the target's labels", queries_y, len(queries)) - centre
    if n_neighbours < 1:
        raise ValuationError(f"the number of neighbours must be 1 or more, is {n_neighbours}")
    if len(x) == 0:
        raise ValuationError("there is no point to value")
    at_once = max(1, _BYTES // (8 * 6 * len(x)))
    squares = np.einsum("nd,nd->n", x, x)
    for start in range(0, len(queries), at_once):
        some = slice(start, min(start + at_once, len(queries)))
        # Distance less the query's own square, which does not change the order.
        distance = squares - 2 * queries[some] @ x.T
        order = np.argsort(distance, axis=1, kind="stable")
        ordered = _by_distance(y[order], targets[some], n_neighbours)
        values = np.empty_like(ordered)
        np.put_along_axis(values, order, ordered, axis=1)
        progress.advance(some.stop - some.start)
        yield some, values


def _by_distance(y: FloatArray, t: FloatArray, k: int) -> FloatArray:
    """Returns values [q, n] in the order of distance, for labels y [q, n] and targets t [q]."""
    n = y.shape[1]
    i = np.arange(1, n + 1, dtype=np.float64)
    values = np.empty_like(y)
    last = y[:, -1]
    others = (y.sum(axis=1) - last) / max(1, n - 1)
    # The farthest point counts only where fewer than K others came before it.
    share = min(k, n) / n
    values[:, -1] = -share / k * last * (last / k - 2 * t)
    values[:, -1] -= (min(k, n) * (min(k, n) - 1)) / (n * k * k) * last * others
    if n == 1:
        return values
    near = np.cumsum(y, axis=1)
    weight = np.zeros(n)  # of l, its part that does not depend on i
    weight[2:] = (
        np.minimum(k, i[2:] - 1) * np.minimum(k - 1, i[2:] - 2) / ((i[2:] - 1) * (i[2:] - 2))
    )
    weighted = y * weight
    beyond = np.cumsum(weighted[:, ::-1], axis=1)[:, ::-1]  # sum over l >= position
    at = np.arange(1, n)  # i = 1..n-1
    least = np.minimum(k, at).astype(np.float64)
    before = np.concatenate([np.zeros((len(y), 1)), near[:, : n - 2]], axis=1)  # sum over l < i
    inner = np.where(at > 1, (least - 1) / np.maximum(at - 1, 1), 0.0) * before
    inner += y[:, :-1] + y[:, 1:]
    tail = np.concatenate([beyond[:, 2:], np.zeros((len(y), 1))], axis=1)  # l >= i + 2
    inner += tail * at / least
    step = (y[:, 1:] - y[:, :-1]) / k * (least / at) * (inner / k - 2 * t[:, None])
    values[:, :-1] = values[:, -1:] + np.cumsum(step[:, ::-1], axis=1)[:, ::-1]
    return values
