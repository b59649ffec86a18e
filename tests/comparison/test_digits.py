"""Errors of any size are shown with the digits that tell them apart."""

from __future__ import annotations

import math

import pytest

from lipo_cli.comparison.digits import USUAL, decimals, difference_text, rmse_text


@pytest.mark.parametrize(
    ("error", "n", "text"),
    [
        (0.612345, 3, "0.6123"),
        (12.3456, 2, "12.346"),
        (4321.9, 0, "4321.9"),
        (0.012, 5, "0.012000"),
        (1e-5, 8, "0.000010000"),
        (1.57e-6, 9, "0.0000015700"),
        (1.2346e-9, 12, "0.0000000012346"),
    ],
)
def test_digits_follow_the_size_of_an_error(error: float, n: int, text: str) -> None:
    assert decimals([error]) == n
    assert rmse_text(error) == text


def test_the_median_of_the_known_errors_decides() -> None:
    assert decimals([1e-5, 2e-5, 50.0]) == decimals([2e-5])
    assert decimals([None, math.nan, math.inf, 0.0, 12.0]) == 2
    assert decimals(iter([0.6])) == 3


@pytest.mark.parametrize("errors", [[], [None], [0.0, math.nan]])
def test_where_nothing_is_known_digits_are_the_usual(errors: list[float | None]) -> None:
    assert decimals(errors) == USUAL


def test_no_error_is_no_text() -> None:
    assert rmse_text(None) == ""
    assert difference_text(None, None, None, 3) == ""


@pytest.mark.parametrize("scale", [0.6, 12, 1e-5, 1e-9])
def test_differences_that_matter_are_told_apart(scale: float) -> None:
    """A hundredth of an error is seen in its text, and as a difference."""
    assert rmse_text(scale) != rmse_text(1.01 * scale)
    digits = decimals([scale])
    low, high = -0.01 * scale, 0.02 * scale
    delta, ends = difference_text(0.01 * scale, low, high, digits).split(" ", 1)
    shown = [delta, *ends.strip("[]").split(", ")]
    assert [float(text) for text in shown] == pytest.approx(
        [0.01 * scale, low, high], abs=10.0**-digits
    )
    assert [text[0] for text in shown] == ["+", "-", "+"]
    assert all(set(text[1:]) - {"0", "."} for text in shown)
    assert difference_text(0.01 * scale, None, high, digits) == delta
