"""Overlap of selections and rank correlation of values."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lipo_cli.errors import ValuationError
from lipo_cli.valuation.agreement import jaccard, spearman

POSITIONS = st.sets(st.integers(0, 30))


def test_jaccard_of_known_sets():
    assert jaccard([1, 2, 3], [2, 3, 4]) == 0.5
    assert jaccard(np.array([1, 2]), [3]) == 0
    assert jaccard([], []) == 1
    assert jaccard([], [1]) == 0


@given(POSITIONS, POSITIONS)
def test_jaccard_is_symmetric_and_one_only_for_equal_sets(a, b):
    assert jaccard(a, b) == jaccard(b, a)
    assert 0 <= jaccard(a, b) <= 1
    assert (jaccard(a, b) == 1) == (a == b)


def test_spearman_of_known_ranks():
    assert spearman([1, 2, 3, 4], [10, 20, 30, 4000]) == pytest.approx(1)
    assert spearman([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)
    # 1 - 6 sum d^2 / (n (n^2 - 1)) with d = 1, -1, 0, 0.
    assert spearman([1, 2, 3, 4], [2, 1, 3, 4]) == pytest.approx(1 - 12 / 60)


@pytest.mark.parametrize(
    ("a", "b"),
    [([1], [2]), ([1, 1], [1, 2]), ([1, 2], [3, 3]), ([1, np.nan], [1, 2]), ([1], [1, 2])],
)
def test_an_undefined_correlation_is_an_error_not_nan(a, b):
    with pytest.raises(ValuationError):
        spearman(a, b)
