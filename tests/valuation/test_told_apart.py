"""What a scoring says of its values: how many differ from zero, and whether one of them holds."""

from __future__ import annotations

import numpy as np
import pytest

from lipo_cli.valuation.told_apart import told_from_zero

NONE_HOLDS = "no single value can be told from zero"


def test_one_strong_value_of_many_is_seen() -> None:
    """Their number alone says nothing: 16 of 300 at 5 % is what chance gives."""
    values = np.zeros(300)
    values[7] = -6.0
    said = told_from_zero(values, np.ones(300), 335, "rows")
    assert said == "1 of 300 values differ from zero at 5 %, 1 of them by Holm's correction (rows)"


@pytest.mark.parametrize(("n", "z", "held"), [(1, 30.0, 1), (2, 30.0, 2), (5, 1.5, 0)])
def test_few_values(n: int, z: float, held: int) -> None:
    said = told_from_zero(np.full(n, z), np.ones(n), 335, "rows")
    assert f"{held} of them by Holm" in said
    assert (NONE_HOLDS in said) == (held == 0)


def test_the_steps_of_holm() -> None:
    """With three values p must lie below 0.05 / 3, 0.05 / 2 and 0.05 in turn."""
    z = np.array([2.50, 2.30, 2.0])  # p = 0.0124, 0.0214, 0.0455 of a normal distribution
    assert "3 of them by Holm" in told_from_zero(z, np.ones(3), 10**6, "rows")
    assert "0 of them by Holm" in told_from_zero(z[1:], np.array([1.0, 1.0]) * 1.1, 10**6, "rows")


def test_a_value_without_any_spread() -> None:
    said = told_from_zero(np.array([0.0, 0.0]), np.zeros(2), 9, "rows")
    assert said.startswith("0 of 2 values")
    assert told_from_zero(np.array([0.0, 1.0]), np.zeros(2), 9, "rows").startswith("1 of 2 values")


def test_values_that_share_their_rows_seldom_pass_by_chance() -> None:
    """Rows in common move all values together: the number at 5 % then varies without bound."""
    rng = np.random.default_rng(0)
    loadings = rng.normal(size=(300, 3))
    passed, most = 0, 0
    for _ in range(200):
        rows = rng.normal(size=(336, 3)) @ loadings.T + 0.3 * rng.normal(size=(336, 300))
        error = rows.std(axis=0, ddof=1) / np.sqrt(336)
        said = told_from_zero(rows.mean(axis=0), error, 335, "rows")
        most = max(most, int(said.split()[0]))
        passed += NONE_HOLDS not in said
    assert most > 60  # four times what chance gives of independent values
    assert passed <= 18  # 5 % of 200 are 10, three standard deviations above are 19
