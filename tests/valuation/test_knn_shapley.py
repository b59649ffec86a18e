"""KNN-Shapley against enumeration of every subset."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from lipo_cli.errors import ValuationError
from lipo_cli.valuation import knn_shapley as module
from lipo_cli.valuation.knn_shapley import knn_shapley


def problem(n: int, m: int = 3, seed: int = 0):
    """Returns features and labels of n points and m queries."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 2)), rng.normal(size=n), rng.normal(size=(m, 2)), rng.normal(size=m)


def values_of(*arguments, **more) -> np.ndarray:
    """Returns [m, n] values."""
    return np.concatenate([found for _, found in knn_shapley(*arguments, **more)])


def enumerated(x, y, queries, targets, k, centre=0.0) -> np.ndarray:
    """Returns [m, n] Shapley values by the subset formula."""
    n, values = len(x), np.zeros((len(queries), len(x)))

    def utility(subset, j):
        near = sorted(subset, key=lambda i: float(((x[i] - queries[j]) ** 2).sum()))[:k]
        return -((sum(y[i] - centre for i in near) / k - (targets[j] - centre)) ** 2)

    for j, i in itertools.product(range(len(queries)), range(n)):
        rest = [other for other in range(n) if other != i]
        for size in range(n):
            weight = math.factorial(size) * math.factorial(n - size - 1) / math.factorial(n)
            for subset in itertools.combinations(rest, size):
                gain = utility((*subset, i), j) - utility(subset, j)
                values[j, i] += weight * gain
    return values


@pytest.mark.parametrize("n", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("k", [1, 2, 3, 5, 11])
def test_values_equal_enumeration(n, k):
    data = problem(n)
    np.testing.assert_allclose(
        values_of(*data, k, centre=0.4), enumerated(*data, k, 0.4), rtol=0, atol=1e-12
    )


def test_values_sum_to_the_gain_over_nothing():
    x, y, queries, targets = problem(200, 7)
    found = values_of(x, y, queries, targets, 5)
    near = np.argsort(((queries[:, None] - x) ** 2).sum(axis=2), axis=1)[:, :5]
    all_ = -((y[near].mean(axis=1) - targets) ** 2)
    np.testing.assert_allclose(found.sum(axis=1), all_ + targets**2, atol=1e-10)


def test_values_do_not_depend_on_the_order_of_the_file_nor_on_the_chunks(monkeypatch):
    x, y, queries, targets = problem(50, 9)
    found = values_of(x, y, queries, targets, 3)
    order = np.random.default_rng(1).permutation(50)
    np.testing.assert_allclose(values_of(x[order], y[order], queries, targets, 3), found[:, order])
    monkeypatch.setattr(module, "_BYTES", 1)
    chunks = list(knn_shapley(x, y, queries, targets, 3))
    assert [part for part, _ in chunks] == [slice(i, i + 1) for i in range(9)]
    np.testing.assert_allclose(np.concatenate([each for _, each in chunks]), found, atol=1e-14)


def test_no_neighbour_and_no_point_are_refused():
    x, y, queries, targets = problem(3)
    with pytest.raises(ValuationError, match="neighbours must be"):
        values_of(x, y, queries, targets, 0)
    with pytest.raises(ValuationError, match="no point"):
        values_of(x[:0], y[:0], queries, targets, 1)
