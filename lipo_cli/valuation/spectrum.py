"""The largest eigenvalue of a curvature, by power iteration."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from lipo_cli.errors import ValuationError
from lipo_cli.progress import Progress, SilentProgress
from lipo_cli.valuation.curvature import Curvature

HINT = "raise --damping, or take --curvature gauss-newton"
"""What to do about a curvature that is not positive."""
_SILENT = SilentProgress()
_PROBED = 4
"""Batches that the largest eigenvalue of any batch is guessed from."""


@dataclass(frozen=True)
class Spectrum:
    """What power iteration found.

    Attributes:
        largest: The eigenvalue of largest magnitude, as a Rayleigh quotient.
        error: |H v - largest v| for the unit vector v: an eigenvalue lies this near.
        iterations: Products spent.
    """

    largest: float
    error: float
    iterations: int


def power_iteration(
    product: Callable[[Tensor], Tensor],
    dim: int,
    dtype: torch.dtype,
    *,
    seed: int = 0,
    tolerance: float = 0.02,
    at_most: int = 100,
    progress: Progress = _SILENT,
) -> Spectrum:
    """Estimates the eigenvalue of largest magnitude.

    Args:
        product: v [D] to H v.
        dim: D.
        dtype: Of the vectors.
        seed: Of the first vector.
        tolerance: Stops when the estimate's relative error bound is below this.
        at_most: Products.
        progress: Told of every product.

    Raises:
        ValuationError: a product is not finite, or H is zero.
    """
    generator = torch.Generator().manual_seed(seed)
    v = torch.randn(dim, generator=generator, dtype=dtype)
    v /= v.norm()
    largest, error = 0.0, math.inf
    for i in range(1, at_most + 1):
        image = product(v)
        progress.advance(1)
        if not torch.isfinite(image).all():
            raise ValuationError("a product with the curvature is not finite", hint=HINT)
        largest = float(v @ image)
        error = float((image - largest * v).norm())
        size = float(image.norm())
        if size == 0:
            raise ValuationError("the curvature is zero: no molecule moves a prediction")
        if error <= tolerance * abs(largest):
            return Spectrum(largest, error, i)
        v = image / size
    return Spectrum(largest, error, at_most)


def largest_eigenvalue(curvature: Curvature, *, stochastic: bool = False, seed: int = 0) -> float:
    """Returns the largest eigenvalue that a product may have, by power iteration.

    Args:
        curvature: H.
        stochastic: Of batches, the largest of a few; else of the whole.
        seed: Of vectors and batches.
    """
    if not stochastic:
        spectrum = power_iteration(curvature.apply, curvature.dim, curvature.dtype, seed=seed)
        return abs(spectrum.largest) + spectrum.error
    bounds = []
    for batch in range(_PROBED):
        spectrum = power_iteration(
            partial(_sampled, curvature, (seed, 2**31, batch)),
            curvature.dim,
            curvature.dtype,
            seed=seed,
            tolerance=0.1,
            at_most=10,
        )
        bounds.append(abs(spectrum.largest) + spectrum.error)
    return max(bounds)


def _sampled(curvature: Curvature, stream: tuple[int, ...], v: Tensor) -> Tensor:
    # The same stream at every call: the same batch.
    return curvature.sample(v, np.random.default_rng(list(stream)))
