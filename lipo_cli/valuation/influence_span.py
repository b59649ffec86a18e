"""Influence in the space that all gradients span: exact algebra, whatever the solver."""

from __future__ import annotations

import math
import tempfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor

from lipo_cli.errors import ValuationError
from lipo_cli.progress import Progress, SilentProgress
from lipo_cli.settings import InfluenceSettings
from lipo_cli.valuation.arrays import FloatArray, finite_vector
from lipo_cli.valuation.curvature import RowCurvature
from lipo_cli.valuation.gradient_table import GradientTable, as_tensor
from lipo_cli.valuation.influence_task import InfluenceResult, Task
from lipo_cli.valuation.lissa import lissa
from lipo_cli.valuation.solvers import Solution, conjugate_gradient, exact
from lipo_cli.valuation.spectrum import power_iteration

_SILENT = SilentProgress()


def in_their_span(task: Task, progress: Progress) -> InfluenceResult:
    """Solves on the coordinates of all molecules' gradients in what they span.

    Raises:
        ValuationError: a gradient is not finite, or the system cannot be solved.
    """
    settings = task.settings
    curved, target, points, residuals = _coordinates(task, progress)
    curvature = RowCurvature(curved)
    spectrum = power_iteration(curvature.apply, curvature.dim, curvature.dtype, tolerance=1e-3)
    damping = settings.damping * spectrum.largest
    to_lower = 2 * target * torch.from_numpy(residuals[1])[:, None]  # [m, D] grad L by row
    b = to_lower.mean(dim=0)[:, None]
    asked = "exact" if settings.solver == "auto" else settings.solver
    progress.start(f"influence ({asked})", None, "products")
    solution = _solved(asked, curvature, b, damping, settings, progress)
    other = _checked("cg" if asked != "cg" else "exact", curvature, b, damping, settings)
    progress.finish()
    weights = 2 * torch.from_numpy(residuals[2]) / task.n_train
    values = ((points @ solution.x)[:, 0] * weights).numpy()
    check = None if other is None else (points @ other)[:, 0] * weights
    # One column per target row, exactly: their spread is the standard error of the mean.
    by_row = (points @ exact(curvature, to_lower.T, damping).x * weights[:, None]).numpy()
    m = len(task.target)
    return InfluenceResult(
        values=finite_vector("the values", values),
        standard_error=by_row.std(axis=1, ddof=1) / math.sqrt(m),
        fold_values=by_row @ task.fold_weights(),
        solver=asked,
        damping=damping,
        largest=spectrum.largest,
        iterations=solution.iterations,
        residuals=solution.residuals,
        agreement=_agreement(values, check),
        converged=solution.residual <= settings.tolerance,
        freedom=m - 1,
        n_parameters=task.gradients.n_parameters,
        n_curvature=len(task.curved),
        by_row=by_row if task.by_row else None,
    )


def _coordinates(task: Task, progress: Progress) -> tuple[Tensor, Tensor, Tensor, list[FloatArray]]:
    """Returns gradients of train, target and points in their span, and the residuals of each."""
    sets = (task.curved, task.target, task.points)
    ends = np.cumsum([0, *map(len, sets)])
    residuals = []
    with tempfile.TemporaryDirectory(prefix="lipo-gradients-") as scratch:
        file = Path(scratch) / "rows.npy"
        table = GradientTable(file, int(ends[-1]), task.gradients.n_parameters)
        progress.start("gradients", int(ends[-1]), "molecules")
        for start, part in zip(ends[:-1], sets, strict=True):
            jacobian = task.gradients.jacobian(part.smiles, progress)
            residuals.append(table.fill(int(start), jacobian, len(part)) - part.labels)
        progress.finish()
        rows = as_tensor(table.coordinates())
    curved, target, points = (rows[a:b] for a, b in pairwise(ends))
    return curved, target, points, residuals


def _checked(
    solver: str, curvature: RowCurvature, b: Tensor, damping: float, settings: InfluenceSettings
) -> Tensor | None:
    """Returns another solver's solution to compare with; its failure is no failure of ours."""
    try:
        return _solved(solver, curvature, b, damping, settings, _SILENT).x
    except ValuationError:
        return None


def _agreement(values: FloatArray, others: Tensor | None) -> float | None:
    """Returns the rank correlation of two solvers' values; None where it means nothing."""
    if others is None or len(values) < 3 or np.ptp(values) == 0 or np.ptp(others.numpy()) == 0:
        return None
    return float(spearmanr(values, others.numpy()).statistic)


def _solved(
    solver: str,
    curvature: RowCurvature,
    b: Tensor,
    damping: float,
    settings: InfluenceSettings,
    progress: Progress,
) -> Solution:
    if solver == "exact":
        return exact(curvature, b, damping)
    if solver == "cg":
        return conjugate_gradient(
            curvature, b, damping, tolerance=settings.tolerance, progress=progress
        )
    return lissa(
        curvature, b, damping, tolerance=settings.tolerance, seed=settings.seed, progress=progress
    )
