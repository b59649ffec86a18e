"""Solving (H + lambda I) x = b exactly or by conjugate gradients, where H is known by products."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lipo_cli.errors import ValuationError
from lipo_cli.progress import Progress, SilentProgress
from lipo_cli.valuation.curvature import Curvature, RowCurvature
from lipo_cli.valuation.spectrum import HINT

_SILENT = SilentProgress()
_ROUNDING = 1e-5
"""A relative residual that arithmetic in float64 may leave."""


@dataclass(frozen=True)
class Solution:
    """An approximate solution of (H + lambda I) x = b.

    Attributes:
        x: [D, k].
        iterations: Products with H spent on it.
        residuals: Largest |b - (H + lambda I) x| / |b| over the columns, at each look.
        sigma: The scale of the series; None for other solvers.
    """

    x: Tensor
    iterations: int
    residuals: tuple[float, ...]
    sigma: float | None = None

    @property
    def residual(self) -> float:
        """The last residual."""
        return self.residuals[-1]


def exact(curvature: RowCurvature, b: Tensor, damping: float) -> Solution:
    """Solves by a Cholesky factorisation, of N x N or D x D, whichever is smaller.

    With R [N, D] and N < D: (2/N R^T R + lambda I)^-1 b = (b - R^T (R R^T + N lambda/2 I)^-1 R b)
    / lambda (Woodbury).

    Args:
        curvature: Gradients in memory.
        b: [D, k].
        damping: lambda > 0.

    Raises:
        ValuationError: the damping is lost in rounding.
    """
    check_damping(damping)
    rows, (n, d) = curvature.rows, curvature.rows.shape
    if n < d:
        gram = rows @ rows.T
        gram.diagonal().add_(n * damping / 2)
        x = (b - rows.T @ _solve_positive(gram, rows @ b)) / damping
    else:
        matrix = curvature.matrix().clone()
        matrix.diagonal().add_(damping)
        x = _solve_positive(matrix, b)
    residual = residual_of(curvature.apply, x, b, damping)
    if not residual <= _ROUNDING:
        raise ValuationError(
            f"the exact solution leaves a residual of {residual:.2g}: the damping {damping:.2g} is "
            "lost in rounding",
            hint="raise --damping",
        )
    return Solution(x, 1, (residual,))


def _solve_positive(matrix: Tensor, b: Tensor) -> Tensor:
    factor, failed = torch.linalg.cholesky_ex(matrix)
    if int(failed):
        raise ValuationError("the damped curvature is not positive in float64", hint=HINT)
    return torch.cholesky_solve(b, factor)


def conjugate_gradient(
    curvature: Curvature,
    b: Tensor,
    damping: float,
    *,
    tolerance: float = 1e-4,
    at_most: int = 1000,
    progress: Progress = _SILENT,
) -> Solution:
    """Solves by conjugate gradients (Hestenes & Stiefel 1952), each column by itself.

    Args:
        curvature: H.
        b: [D, k].
        damping: lambda > 0.
        tolerance: Of the relative residual.
        at_most: Products with the block of columns.
        progress: Told of every product.

    Raises:
        ValuationError: H + lambda I is not positive along a direction, or the residual stays
            above the tolerance.
    """
    check_damping(damping)
    x, r = torch.zeros_like(b), b.clone()
    p, squares = r.clone(), r.square().sum(dim=0)
    size = b.norm(dim=0).clamp(min=torch.finfo(b.dtype).tiny)
    residuals = [1.0]
    for i in range(1, at_most + 1):
        image = curvature.apply(p) + damping * p
        progress.advance(1, residual=residuals[-1])
        bend = (p * image).sum(dim=0)
        open_ = squares.sqrt() > tolerance * size
        if not (bend[open_] > 0).all():  # nor where it is no number
            raise ValuationError(
                "the damped curvature is not positive: it bends down along a direction",
                hint=HINT,
            )
        step = torch.where(open_, squares / bend.where(open_, torch.ones_like(bend)), 0.0)
        x = x + step * p
        r = r - step * image
        after = r.square().sum(dim=0)
        p = r + torch.where(open_, after / squares.clamp(min=torch.finfo(b.dtype).tiny), 0.0) * p
        squares = after
        residuals.append(float((squares.sqrt() / size).max()))
        if residuals[-1] <= tolerance:
            # The recurrence's residual drifts from the true one in float32.
            residuals[-1] = residual_of(curvature.apply, x, b, damping)
            return Solution(x, i, tuple(residuals))
    raise ValuationError(
        f"conjugate gradients: residual {residuals[-1]:.2g} after {at_most} products, "
        f"asked for {tolerance:g}",
        hint="raise --damping",
    )


def residual_of(product: Callable[[Tensor], Tensor], x: Tensor, b: Tensor, damping: float) -> float:
    """Returns the largest |b - (H + lambda I) x| / |b| over the columns."""
    left = (b - product(x) - damping * x).norm(dim=0)
    return float((left / b.norm(dim=0).clamp(min=torch.finfo(b.dtype).tiny)).max())


def check_damping(damping: float) -> None:
    """Raises ValuationError where the damping is not positive."""
    if not (math.isfinite(damping) and damping > 0):
        raise ValuationError(f"the damping must be positive, is {damping}")
