r"""LiSSA (Agarwal, Bullins & Hazan 2017; for influence functions Koh & Liang 2017), self-tuned.

(H + lambda I) x = b is solved by the Neumann series

    h_0 = b,   h_{t+1} = b + h_t - (H_t + lambda I) h_t / sigma,   x = h_T / sigma,

whose H_t may come from a batch of molecules. It converges where sigma exceeds half the largest
eigenvalue of H_t + lambda I; from that eigenvalue on by the factor 1 - lambda / sigma a step.
Nobody knows sigma and T beforehand, so they are measured here: the largest eigenvalue by power
iteration, sigma from it, the depth from T = sigma / lambda ln(1 / tolerance), and the residual is
watched.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from lipo_cli.errors import ValuationError
from lipo_cli.progress import Progress, SilentProgress
from lipo_cli.valuation.curvature import Curvature
from lipo_cli.valuation.solvers import Solution, check_damping, residual_of
from lipo_cli.valuation.spectrum import HINT, largest_eigenvalue

_SILENT = SilentProgress()
_MARGIN = 1.1
"""Sigma above the estimated largest eigenvalue: power iteration comes from below."""
_DOUBLINGS = 5
"""Times that sigma may be doubled before the series counts as hopeless."""


def lissa(
    curvature: Curvature,
    b: Tensor,
    damping: float,
    *,
    tolerance: float = 1e-4,
    stochastic: bool = False,
    largest: float | None = None,
    at_most: int = 100_000,
    seed: int = 0,
    progress: Progress = _SILENT,
) -> Solution:
    """Solves by the Neumann series, with sigma and depth measured.

    A series over all molecules has the residual h_{t+1} - h_t for nothing, and stops when it is
    small. A stochastic one does not settle on a point but moves around it: its iterates are
    averaged from the depth on, over as many steps again (Polyak & Juditsky 1992).

    Args:
        curvature: H.
        b: [D, k].
        damping: lambda > 0.
        tolerance: Of the relative residual; of a stochastic series, of what its start leaves.
        stochastic: Products over batches of molecules instead of all.
        largest: The largest eigenvalue that a product may have; None: measured here.
        at_most: Products of one series; a deeper one is refused before it starts.
        seed: Of batches and power iteration.
        progress: Told of every product.

    Raises:
        ValuationError: the series diverges, or would be deeper than allowed.
    """
    check_damping(damping)
    if largest is None:
        largest = largest_eigenvalue(curvature, stochastic=stochastic, seed=seed)
    sigma = _MARGIN * largest + damping
    if not stochastic:
        _check_depth(sigma, damping, tolerance, at_most, largest)
        x, residuals = _whole_series(curvature, b, damping, sigma, tolerance, progress)
        return Solution(x, len(residuals) - 1, tuple(residuals), sigma)
    spent = 0
    for doublings in range(_DOUBLINGS):
        # A batch may bend more than those that sigma was measured on.
        scale = sigma * 2**doublings
        depth = _check_depth(scale, damping, tolerance, at_most // 2, largest)
        rng = np.random.default_rng([seed, doublings])
        found, n = _sampled_series(curvature, b, damping, scale, depth, rng, progress)
        spent += n
        if found is not None:
            residual = residual_of(curvature.apply, found, b, damping)
            if residual < 1:
                return Solution(found, spent, (1.0, residual), scale)
    raise _diverged(scale)


def _check_depth(
    sigma: float, damping: float, tolerance: float, at_most: int, largest: float
) -> int:
    depth = math.ceil(sigma / damping * math.log(1 / tolerance))
    if depth > at_most:
        raise ValuationError(
            f"the series would need {depth:,} products (largest eigenvalue {largest:.3g}, damping "
            f"{damping:.3g}), {at_most:,} are allowed",
            hint="raise --damping, or take another --solver",
        )
    return depth


def _whole_series(
    curvature: Curvature,
    b: Tensor,
    damping: float,
    sigma: float,
    tolerance: float,
    progress: Progress,
) -> tuple[Tensor, list[float]]:
    size = b.norm(dim=0).clamp(min=torch.finfo(b.dtype).tiny)
    # The depth is that of exact arithmetic and of an eigenvalue that power iteration may miss by a
    # little: half as much again is not divergence yet.
    at_most = math.ceil(1.5 * sigma / damping * math.log(1 / tolerance)) + 1
    h, residuals = b.clone(), []
    for _ in range(at_most):
        change = b - (curvature.apply(h) + damping * h) / sigma
        residuals.append(float((change.norm(dim=0) / size).max()))
        progress.advance(1, residual=residuals[-1])
        if not residuals[-1] < 10:
            raise _diverged(sigma)
        if residuals[-1] <= tolerance:
            return h / sigma, residuals
        h = h + change
    raise ValuationError(
        f"the series stands at a residual of {residuals[-1]:.2g} after {at_most:,} products, "
        f"asked for {tolerance:g}: the curvature has a direction that bends down",
        hint=HINT,
    )


def _sampled_series(
    curvature: Curvature,
    b: Tensor,
    damping: float,
    sigma: float,
    depth: int,
    rng: np.random.Generator,
    progress: Progress,
) -> tuple[Tensor | None, int]:
    """Returns the averaged end of a stochastic series and its products; None where it diverges."""
    # |(H + lambda I)^-1 b| <= |b| / lambda, so that h = sigma x stays below this.
    bound = 2 * sigma / damping * b.norm(dim=0).max()
    h, mean = b.clone(), torch.zeros_like(b)
    for t in range(2 * depth):
        h = b + h - (curvature.sample(h, rng) + damping * h) / sigma
        progress.advance(1)
        if not bool(h.norm(dim=0).max() <= bound):
            return None, t + 1
        if t >= depth:
            mean += (h - mean) / (t - depth + 1)
    return mean / sigma, 2 * depth


def _diverged(sigma: float) -> ValuationError:
    return ValuationError(f"the series diverges (sigma {sigma:.3g})", hint=HINT)
