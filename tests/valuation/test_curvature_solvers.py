"""Exact, conjugate-gradient and LiSSA solutions against the dense inverse."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lipo_cli.errors import ValuationError
from lipo_cli.valuation.curvature import RowCurvature
from lipo_cli.valuation.lissa import lissa
from lipo_cli.valuation.solvers import Solution, conjugate_gradient, exact
from lipo_cli.valuation.spectrum import power_iteration

N, D = 60, 40
CONDITIONS = (1, 10, 1e2, 1e3, 1e5)


def rows_of(condition: float, n: int = N, d: int = D) -> torch.Tensor:
    """Returns [n, d] rows whose Gauss-Newton matrix has this condition number."""
    generator = torch.Generator().manual_seed(0)
    k = min(n, d)
    left, _ = torch.linalg.qr(torch.randn(n, k, generator=generator, dtype=torch.float64))
    right, _ = torch.linalg.qr(torch.randn(d, k, generator=generator, dtype=torch.float64))
    sizes = torch.logspace(0, -np.log10(condition) / 2, k, dtype=torch.float64)
    return 3 * left @ torch.diag(sizes) @ right.T


def dense_solution(rows: torch.Tensor, b: torch.Tensor, damping: float) -> torch.Tensor:
    """Returns the solution by the explicit inverse."""
    matrix = 2 / len(rows) * rows.T @ rows + damping * torch.eye(rows.shape[1]).double()
    return torch.linalg.inv(matrix) @ b


def right_hand_sides(d: int = D, k: int = 3) -> torch.Tensor:
    """Returns [d, k] random columns."""
    return torch.randn(d, k, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def error_of(found: Solution, truth: torch.Tensor) -> float:
    """Returns the largest relative error over the columns."""
    return float(((found.x - truth).norm(dim=0) / truth.norm(dim=0)).max())


def largest(rows: torch.Tensor) -> float:
    """Returns the largest eigenvalue of the Gauss-Newton matrix."""
    return float(2 / len(rows) * torch.linalg.matrix_norm(rows, 2) ** 2)


@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("share", [0.3, 0.01])
@pytest.mark.parametrize(("n", "d"), [(60, 40), (25, 40), (15, 50)])
def test_every_solver_meets_the_dense_inverse_without_being_tuned(condition, share, n, d):
    rows, b = rows_of(condition, n, d), right_hand_sides(d)
    damping = share * largest(rows)
    truth = dense_solution(rows, b, damping)
    curvature = RowCurvature(rows)
    assert error_of(exact(curvature, b, damping), truth) < 1e-10
    for found in (
        conjugate_gradient(curvature, b, damping, tolerance=1e-5),
        lissa(curvature, b, damping, tolerance=1e-5),
    ):
        assert found.residual <= 1e-5
        assert error_of(found, truth) < 1e-3


def test_a_stochastic_series_comes_near_the_dense_inverse_and_says_how_near():
    rows, b = rows_of(10), right_hand_sides()
    damping = 0.1 * largest(rows)
    truth = dense_solution(rows, b, damping)
    found = lissa(RowCurvature(rows, batch=30), b, damping, tolerance=1e-3, stochastic=True)
    again = lissa(RowCurvature(rows, batch=30), b, damping, tolerance=1e-3, stochastic=True)
    assert torch.equal(found.x, again.x)
    assert error_of(found, truth) < 0.1
    left = b - 2 / N * rows.T @ (rows @ found.x) - damping * found.x
    assert found.residual == pytest.approx(float((left.norm(dim=0) / b.norm(dim=0)).max()))


class Indefinite:
    """diag(-1, 1, ..., 1): a curvature with a direction that bends down."""

    dim = 6
    dtype = torch.float64

    def apply(self, v: torch.Tensor) -> torch.Tensor:
        """Returns the product."""
        signs = torch.ones(self.dim, dtype=self.dtype)
        signs[0] = -1
        return signs.reshape(-1, *[1] * (v.ndim - 1)) * v

    def sample(self, v: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
        """Returns the same."""
        return self.apply(v)


@pytest.mark.parametrize("stochastic", [False, True])
def test_a_hopeless_series_ends_in_one_line_with_advice(stochastic):
    b = right_hand_sides(6, 1)
    with pytest.raises(ValuationError, match=r"diverges|bends down") as caught:
        lissa(Indefinite(), b, 0.5, stochastic=stochastic)
    assert "raise --damping" in str(caught.value)
    with pytest.raises(ValuationError, match="bends down"):
        conjugate_gradient(Indefinite(), b, 0.5)


def test_a_series_that_would_be_too_deep_is_refused_before_it_starts():
    rows = rows_of(10)
    with pytest.raises(ValuationError, match="would need"):
        lissa(RowCurvature(rows), right_hand_sides(), 1e-6 * largest(rows), at_most=1000)


@pytest.mark.parametrize("damping", [0.0, -1.0, float("nan")])
@pytest.mark.parametrize("solve", [exact, conjugate_gradient, lissa])
def test_a_damping_that_is_not_positive_is_refused(solve, damping):
    with pytest.raises(ValuationError, match="damping must be positive"):
        solve(RowCurvature(rows_of(10)), right_hand_sides(), damping)


def test_conjugate_gradients_that_run_out_of_products_say_so():
    rows = rows_of(1e5)
    with pytest.raises(ValuationError, match="after 2 products"):
        conjugate_gradient(RowCurvature(rows), right_hand_sides(), 1e-6 * largest(rows), at_most=2)


@pytest.mark.parametrize("condition", CONDITIONS[1:])
def test_power_iteration_finds_the_largest_eigenvalue(condition):
    rows = rows_of(condition)
    found = power_iteration(
        RowCurvature(rows).apply, D, torch.float64, tolerance=1e-3, at_most=5000
    )
    assert found.largest == pytest.approx(largest(rows), rel=1e-2)
    assert found.error <= 1e-3 * found.largest


def test_no_curvature_at_all_is_said():
    with pytest.raises(ValuationError, match="the curvature is zero"):
        power_iteration(lambda v: 0 * v, 3, torch.float64)
