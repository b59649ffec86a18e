"""Stopping criteria and their combinations."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lipo_cli.valuation.stopping import (
    MaxPermutations,
    MinPermutations,
    RelativeStandardError,
    Snapshot,
)

RULE = MaxPermutations(100) | (MinPermutations(20) & RelativeStandardError(0.1))


def test_a_small_error_stops_but_not_too_early():
    assert not RULE.check(Snapshot(10, 0.01, 1.0)).stop
    verdict = RULE.check(Snapshot(20, 0.01, 1.0))
    assert (verdict.stop, verdict.converged) == (True, True)
    assert "0.01 of the values' spread" in verdict.reason


def test_the_maximum_stops_without_convergence():
    verdict = RULE.check(Snapshot(100, 0.5, 1.0))
    assert (verdict.stop, verdict.converged) == (True, False)
    assert verdict.reason == "100 of at most 100 permutations"


def test_convergence_at_the_maximum_counts_as_convergence():
    assert RULE.check(Snapshot(100, 0.01, 1.0)).converged


def test_equal_values_without_error_have_converged_and_with_error_have_not():
    assert RelativeStandardError(0.1).check(Snapshot(50, 0.0, 0.0)).converged
    assert not RelativeStandardError(0.1).check(Snapshot(50, 1e-9, 0.0)).stop


def test_an_unknown_error_does_not_stop():
    assert not RelativeStandardError(1e9).check(Snapshot(50, float("inf"), 1.0)).stop


@given(n=st.integers(0, 50), a=st.integers(1, 50), b=st.integers(1, 50))
def test_or_and_and_follow_logic(n, a, b):
    first, second, snapshot = MaxPermutations(a), MinPermutations(b), Snapshot(n, 1.0, 1.0)
    assert (first | second).check(snapshot).stop == (n >= a or n >= b)
    assert (first & second).check(snapshot).stop == (n >= a and n >= b)
    assert not (first & second).check(snapshot).converged
