r"""Influence functions: what adding a point would do to the target loss, to first order.

Training minimises L = 1/N sum_i (f_i - y_i)^2 over primary train. Adding a point z with the weight
of one molecule moves the parameters by -1/N (H + lambda I)^-1 grad L(z), hence the target loss by
-value(z) with

    value(z) = 1/N grad L_target^T (H + lambda I)^-1 grad L(z),    lambda = damping * lambda_max(H).

A value above 0 means that the point lowers the target loss; its unit is that of the loss, squared
label units. H is the Gauss-Newton matrix of L (or its Hessian), L_target the mean squared error
over the target rows.

Sources: Koh & Liang 2017 (influence functions); Martens 2010 and Schraudolph 2002 (Gauss-Newton
damping); Bae et al. 2022 (what the damped form estimates for a network that was stopped early).
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from scipy.stats import spearmanr
from scipy.stats import t as student
from torch import Tensor

from lipo_cli.errors import ValuationError
from lipo_cli.progress import Progress, SilentProgress
from lipo_cli.settings import InfluenceSettings
from lipo_cli.valuation.arrays import FloatArray, IntArray, finite_vector
from lipo_cli.valuation.curvature import ModelCurvature, RowCurvature
from lipo_cli.valuation.gradient_table import GradientTable, as_tensor
from lipo_cli.valuation.gradients import OutputGradients
from lipo_cli.valuation.lissa import lissa
from lipo_cli.valuation.solvers import Solution, conjugate_gradient, exact
from lipo_cli.valuation.spectrum import largest_eigenvalue, power_iteration

_SILENT = SilentProgress()
STOCHASTIC_RESIDUAL = 0.1
"""What a series over batches may leave: its noise hardly changes ranks (tested), more would."""
_PROBE = 256
"""Molecules whose curvature stands for that of all, where lambda_max is wanted for the damping."""


@dataclass(frozen=True)
class Molecules:
    """SMILES with labels [n] in raw units."""

    smiles: Sequence[str]
    labels: FloatArray

    def __len__(self) -> int:
        return len(self.smiles)


@dataclass(frozen=True)
class InfluenceResult:
    """Values of n points, positive where a point lowers the target loss.

    Attributes:
        values: [n] values, squared label units.
        standard_error: [n] over target rows: what another choice of them would do.
        fold_values: [n, F] parts of the values by fold of the target rows; they sum to `values`.
        solver: What solved the system.
        damping: lambda.
        largest: The largest eigenvalue of H.
        iterations: Products with H.
        residuals: Of the system, on the way.
        agreement: Rank correlation with the values of another solver; None where none was run or
            it did not get there.
        converged: Whether the residual is as small as asked for; of a stochastic series, which
            ends in noise, below `STOCHASTIC_RESIDUAL`.
        freedom: Degrees of freedom of the standard errors: target rows, or folds, less one.
        n_parameters: P.
        n_curvature: Molecules that H was measured on.
    """

    values: FloatArray
    standard_error: FloatArray
    fold_values: FloatArray
    solver: str
    damping: float
    largest: float
    iterations: int
    residuals: tuple[float, ...]
    agreement: float | None
    converged: bool
    freedom: int
    n_parameters: int
    n_curvature: int

    def sentence(self) -> str:
        """Returns how it was computed and how far the values can be told from nothing."""
        limit = float(student.ppf(0.975, self.freedom))
        told = int((np.abs(self.values) > limit * self.standard_error).sum())
        text = (
            f"{self.solver} on {self.n_parameters:,} parameters, {self.iterations:,} products, "
            f"residual {self.residuals[-1]:.2g}, damping {self.damping:.3g} "
            f"(largest eigenvalue {self.largest:.3g}); {told} of {len(self.values)} values differ "
            "from zero at 5 %"
        )
        expected = math.ceil(0.05 * len(self.values))
        if told <= 2 * expected:
            text += f", and chance alone gives {expected}: these scores cannot be told from zero"
        if not self.converged:
            text += "; the system is not solved well: raise --damping, or take --solver cg"
        return text


def influence(
    gradients: OutputGradients,
    train: Molecules,
    target: Molecules,
    points: Molecules,
    settings: InfluenceSettings,
    *,
    fold_of: IntArray,
    progress: Progress = _SILENT,
) -> InfluenceResult:
    """Values points by their influence on the target loss.

    Where the gradients of all molecules fit the table (`settings.table_gib`) the system is solved
    in the space that they span, exactly, whatever the solver; else matrix-free, by products over
    batches of molecules.

    Args:
        gradients: Of the fitted regressor.
        train: Primary train: its loss has the curvature.
        target: The rows whose loss is to fall.
        points: The points to value.
        settings: Curvature, solver, damping.
        fold_of: [m] the fold of each target row, 0..F-1.
        progress: Told of gradients and products.

    Raises:
        ValuationError: a gradient is not finite, the system cannot be solved, or the solver does
            not fit.
    """
    rng = np.random.default_rng(settings.seed)
    chosen = np.arange(len(train))
    if settings.curvature_rows is not None and settings.curvature_rows < len(train):
        chosen = np.sort(rng.choice(len(train), settings.curvature_rows, replace=False))
    curved = Molecules([train.smiles[i] for i in chosen.tolist()], train.labels[chosen])
    n_rows = len(curved) + len(target) + len(points)
    size = 4 * n_rows * gradients.n_parameters / 2**30
    # In memory there are some float64 matrices of the rows by what they span.
    algebra = 4 * 8 * n_rows * min(n_rows, gradients.n_parameters) / 2**30
    room = max(size, algebra) <= settings.table_gib
    fits = room and settings.curvature == "gauss-newton"
    if fits:
        return _in_their_span(
            gradients, curved, target, points, len(train), settings, fold_of, progress
        )
    if settings.solver == "exact":
        raise ValuationError(
            f"the exact solver needs the Gauss-Newton curvature and {max(size, algebra):.1f} GiB "
            f"of gradients (allowed: {settings.table_gib:g})",
            hint="take --solver lissa or cg, --parameters head, or fewer --curvature-rows",
        )
    return _matrix_free(gradients, curved, target, points, len(train), settings, fold_of, progress)


def _in_their_span(
    gradients: OutputGradients,
    train: Molecules,
    target: Molecules,
    points: Molecules,
    n_train: int,
    settings: InfluenceSettings,
    fold_of: IntArray,
    progress: Progress,
) -> InfluenceResult:
    sets = (train, target, points)
    ends = np.cumsum([0, *map(len, sets)])
    residuals = []
    with tempfile.TemporaryDirectory(prefix="lipo-gradients-") as scratch:
        table = GradientTable(Path(scratch) / "rows.npy", int(ends[-1]), gradients.n_parameters)
        progress.start("gradients", int(ends[-1]), "molecules")
        for start, part in zip(ends[:-1], sets, strict=True):
            found = table.fill(int(start), gradients.jacobian(part.smiles, progress), len(part))
            residuals.append(found - part.labels)
        progress.finish()
        rows = as_tensor(table.coordinates())
    train_rows, target_rows, point_rows = (rows[a:b] for a, b in pairwise(ends))
    curvature = RowCurvature(train_rows)
    spectrum = power_iteration(curvature.apply, curvature.dim, curvature.dtype, tolerance=1e-3)
    damping = settings.damping * spectrum.largest
    to_lower = 2 * target_rows * torch.from_numpy(residuals[1])[:, None]  # [m, D] grad L by row
    b = to_lower.mean(dim=0)[:, None]
    asked = "exact" if settings.solver == "auto" else settings.solver
    progress.start(f"influence ({asked})", None, "products")
    solution = _solved(asked, curvature, b, damping, settings, progress)
    other = _checked("cg" if asked != "cg" else "exact", curvature, b, damping, settings)
    progress.finish()
    weights = 2 * torch.from_numpy(residuals[2]) / n_train
    values = ((point_rows @ solution.x)[:, 0] * weights).numpy()
    check = None if other is None else (point_rows @ other)[:, 0] * weights
    # One column per target row, exactly: their spread is the standard error of the mean.
    by_row = (point_rows @ exact(curvature, to_lower.T, damping).x * weights[:, None]).numpy()
    m = len(target)
    folds = np.zeros((m, int(fold_of.max()) + 1))
    folds[np.arange(m), fold_of] = 1 / m
    return InfluenceResult(
        values=finite_vector("the values", values),
        standard_error=by_row.std(axis=1, ddof=1) / math.sqrt(m),
        fold_values=by_row @ folds,
        solver=asked,
        damping=damping,
        largest=spectrum.largest,
        iterations=solution.iterations,
        residuals=solution.residuals,
        agreement=_agreement(values, check),
        converged=solution.residual <= settings.tolerance,
        freedom=m - 1,
        n_parameters=gradients.n_parameters,
        n_curvature=len(train),
    )


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


def _matrix_free(
    gradients: OutputGradients,
    train: Molecules,
    target: Molecules,
    points: Molecules,
    n_train: int,
    settings: InfluenceSettings,
    fold_of: IntArray,
    progress: Progress,
) -> InfluenceResult:
    labels = torch.from_numpy(train.labels)
    curvature = ModelCurvature(
        gradients, train.smiles, labels, settings.curvature, settings.molecules_per_product
    )
    probed = np.random.default_rng(settings.seed).permutation(len(train))[:_PROBE]
    probe = ModelCurvature(
        gradients,
        [train.smiles[i] for i in probed.tolist()],
        labels[torch.from_numpy(probed)],
        settings.curvature,
    )
    progress.start("largest eigenvalue", None, "products")
    spectrum = power_iteration(
        probe.apply, probe.dim, probe.dtype, tolerance=0.05, at_most=15, progress=progress
    )
    damping = settings.damping * abs(spectrum.largest)
    solver = "lissa" if settings.solver == "auto" else settings.solver
    largest = None
    if solver == "lissa":
        largest = largest_eigenvalue(curvature, stochastic=True, seed=settings.seed)
    progress.finish()
    m, n_folds = len(target), int(fold_of.max()) + 1
    error = gradients.predictions(target.smiles).double() - torch.from_numpy(target.labels)
    solutions = []
    progress.start(f"influence ({solver})", None, "products")
    for fold in range(n_folds):
        # Each fold's part of the gradient by itself: their spread is the standard error, and holds
        # the noise of the batches too.
        weights = torch.where(torch.from_numpy(fold_of == fold), 2 * error / m, 0.0)
        b = gradients.weighted(target.smiles, weights.to(gradients.dtype))[:, None]
        solutions.append(
            lissa(
                curvature,
                b,
                damping,
                tolerance=settings.tolerance,
                stochastic=True,
                largest=largest,
                seed=settings.seed + fold,
                progress=progress,
            )
            if solver == "lissa"
            else conjugate_gradient(
                curvature, b, damping, tolerance=settings.tolerance, progress=progress
            )
        )
    progress.finish()
    progress.start("values", n_folds * len(points), "molecules")
    columns = []
    for solution in solutions:
        predicted, slopes = gradients.along(points.smiles, solution.x[:, 0], progress)
        residual = predicted.double() - torch.from_numpy(points.labels)
        columns.append((2 * residual * slopes.double() / n_train).numpy())
    progress.finish()
    fold_values = np.stack(columns, axis=1)
    left = max(solution.residual for solution in solutions)
    # Conjugate gradients in float32 stop by a recurrence that drifts a little.
    allowed = STOCHASTIC_RESIDUAL if solver == "lissa" else 10 * settings.tolerance
    sizes = np.bincount(fold_of, minlength=n_folds) / m
    means = fold_values / sizes  # what each fold alone would say
    error_of_mean = means.std(axis=1, ddof=1) / math.sqrt(n_folds)
    return InfluenceResult(
        values=finite_vector("the values", fold_values.sum(axis=1)),
        standard_error=error_of_mean,
        fold_values=fold_values,
        solver=solver,
        damping=damping,
        largest=spectrum.largest,
        iterations=sum(solution.iterations for solution in solutions),
        residuals=(1.0, left),
        agreement=None,
        converged=left <= allowed,
        freedom=n_folds - 1,
        n_parameters=gradients.n_parameters,
        n_curvature=len(train),
    )
