"""Influence in the space that all gradients span: exact algebra, whatever the solver."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor

from lipo_cli.errors import ValuationError
from lipo_cli.progress import Progress, SilentProgress
from lipo_cli.settings import InfluenceSettings
from lipo_cli.valuation.arrays import FloatArray, finite_vector
from lipo_cli.valuation.curvature import RowCurvature
from lipo_cli.valuation.gradient_span import spanned
from lipo_cli.valuation.influence_task import InfluenceResult, Task
from lipo_cli.valuation.lissa import lissa
from lipo_cli.valuation.solvers import Solution, conjugate_gradient, exact
from lipo_cli.valuation.spectrum import power_iteration

_SILENT = SilentProgress()
_DIRECTIONS = 2**28
"""Numbers of the directions along which points are read at a time: a GiB."""


@dataclass(frozen=True)
class _System:
    """H + lambda I in coordinates, and what solves it."""

    curvature: RowCurvature
    settings: InfluenceSettings
    damping: float
    largest: float

    @classmethod
    def of(cls, rows: Tensor, settings: InfluenceSettings) -> _System:
        """Measures the largest eigenvalue of the curvature of gradients [N, r]."""
        curvature = RowCurvature(rows)
        spectrum = power_iteration(curvature.apply, curvature.dim, curvature.dtype, tolerance=1e-3)
        return cls(curvature, settings, settings.damping * spectrum.largest, spectrum.largest)

    @property
    def solver(self) -> str:
        """What solves it."""
        return "exact" if self.settings.solver == "auto" else self.settings.solver

    def solve(self, b: Tensor, progress: Progress) -> Solution:
        """Solves for right-hand sides [r, k]."""
        progress.start(f"influence ({self.solver})", None, "products")
        found = self._solved(self.solver, b, progress)
        progress.finish()
        return found

    def checked(self, b: Tensor) -> Tensor | None:
        """Returns another solver's solution to compare with; its failure is no failure of ours."""
        try:
            return self._solved("cg" if self.solver != "cg" else "exact", b, _SILENT).x
        except ValuationError:
            return None

    def _solved(self, solver: str, b: Tensor, progress: Progress) -> Solution:
        curvature, damping, settings = self.curvature, self.damping, self.settings
        if solver == "exact":
            return exact(curvature, b, damping)
        if solver == "cg":
            return conjugate_gradient(
                curvature, b, damping, tolerance=settings.tolerance, progress=progress
            )
        return lissa(
            curvature,
            b,
            damping,
            tolerance=settings.tolerance,
            seed=settings.seed,
            progress=progress,
        )


def in_their_span(task: Task, progress: Progress) -> InfluenceResult:
    """Solves on the coordinates of all molecules' gradients in what they span.

    Raises:
        ValuationError: a gradient is not finite, or the system cannot be solved.
    """
    sets = (task.curved, task.target, task.points)
    smiles = [text for part in sets for text in part.smiles]
    span = spanned(task.gradients, smiles, task.settings.table_gib, progress)
    ends = np.cumsum([0, *map(len, sets)])
    curved, target, points = (span.rows[a:b] for a, b in pairwise(ends))
    system = _System.of(curved, task.settings)
    to_lower = _loss_gradients(target, span.predictions[ends[1] : ends[2]], task)
    b = to_lower.mean(dim=0)[:, None]
    solution, other = system.solve(b, progress), system.checked(b)
    error = torch.from_numpy(span.predictions[ends[2] :] - task.points.labels)
    weights = 2 * error[:, None] / task.n_train
    values = (points @ solution.x * weights)[:, 0].numpy()
    check = None if other is None else (points @ other * weights)[:, 0]
    # One column per target row, exactly: their spread is the standard error of the mean.
    by_row = exact(system.curvature, to_lower.T, system.damping).x
    columns: FloatArray = (points @ by_row * weights).numpy()
    m = len(task.target)
    return InfluenceResult(
        values=finite_vector("the values", values),
        standard_error=columns.std(axis=1, ddof=1) / math.sqrt(m),
        fold_values=columns @ task.fold_weights(),
        solver=system.solver,
        damping=system.damping,
        largest=system.largest,
        iterations=solution.iterations,
        residuals=solution.residuals,
        agreement=_agreement(values, check),
        converged=solution.residual <= task.settings.tolerance,
        freedom=m - 1,
        n_parameters=task.gradients.n_parameters,
        n_curvature=len(task.curved),
        n_train=task.n_train,
        by_row=columns if task.by_row else None,
        halves_agree=_halves_agree(task, curved, b, points, weights, system.damping),
    )


def over_a_pool(task: Task, progress: Progress) -> InfluenceResult:
    """Solves in the span of train and target gradients, and reads the points in batches.

    For pools whose gradients would not fit: nothing of a point is kept but its values by fold, or
    by target row where those are wanted. No second solver is asked.

    Raises:
        ValuationError: a gradient is not finite, or the system cannot be solved.
    """
    smiles = [*task.curved.smiles, *task.target.smiles]
    span = spanned(task.gradients, smiles, task.settings.table_gib, progress)
    n = len(task.curved)
    system = _System.of(span.rows[:n], task.settings)
    to_lower = _loss_gradients(span.rows[n:], span.predictions[n:], task)
    solution = system.solve(to_lower.T @ torch.from_numpy(task.part_weights()), progress)
    at_once = max(1, _DIRECTIONS // task.gradients.n_parameters)
    read = [
        task.values_along(span.directions(task.gradients, smiles, some), progress)
        for some in solution.x.split(at_once, dim=1)
    ]
    summed = task.summed(np.concatenate(read, axis=1))
    return InfluenceResult(
        **vars(summed),
        solver=system.solver,
        damping=system.damping,
        largest=system.largest,
        iterations=solution.iterations,
        residuals=solution.residuals,
        agreement=None,
        converged=solution.residual <= task.settings.tolerance,
        n_parameters=task.gradients.n_parameters,
        n_curvature=n,
        n_train=task.n_train,
    )


def _loss_gradients(rows: Tensor, predictions: FloatArray, task: Task) -> Tensor:
    """Returns [m, r] the gradient of each target row's squared error."""
    return 2 * rows * torch.from_numpy(predictions - task.target.labels)[:, None]


def _halves_agree(
    task: Task, curved: Tensor, b: Tensor, points: Tensor, weights: Tensor, damping: float
) -> float | None:
    """Returns how alike values by two halves of the curvature's molecules rank.

    No bound on how far the values agree with those by all molecules: what too few molecules miss
    is missing in both halves.
    """
    if len(curved) >= task.n_train or len(curved) < 4:
        return None
    one, other = (
        (points @ exact(RowCurvature(curved[start::2]), b, damping).x * weights)[:, 0]
        for start in (0, 1)
    )
    return _agreement(one.numpy(), other)


def _agreement(values: FloatArray, others: Tensor | None) -> float | None:
    """Returns the rank correlation of two solvers' values; None where it means nothing."""
    if others is None or len(values) < 3 or np.ptp(values) == 0 or np.ptp(others.numpy()) == 0:
        return None
    return float(spearmanr(values, others.numpy()).statistic)
