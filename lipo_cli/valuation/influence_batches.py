"""Influence where the gradients do not fit: products with the curvature over batches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lipo_cli.progress import Progress
from lipo_cli.valuation.curvature import ModelCurvature
from lipo_cli.valuation.influence_task import InfluenceResult, Task
from lipo_cli.valuation.lissa import lissa
from lipo_cli.valuation.solvers import Solution, conjugate_gradient
from lipo_cli.valuation.spectrum import largest_eigenvalue, power_iteration

STOCHASTIC_RESIDUAL = 0.1
"""What a series over batches may leave: its noise hardly changes ranks (tested), more would."""
_PROBE = 256
"""Molecules whose curvature stands for that of all, where lambda_max is wanted for the damping."""


@dataclass(frozen=True)
class _System:
    """H + lambda I, and what solves it."""

    curvature: ModelCurvature
    damping: float
    largest: float
    solver: str
    largest_of_a_batch: float | None

    def solve(self, task: Task, b: Tensor, seed: int, progress: Progress) -> Solution:
        """Solves for one right-hand side [P]."""
        tolerance = task.settings.tolerance
        if self.solver == "cg":
            return conjugate_gradient(
                self.curvature, b[:, None], self.damping, tolerance=tolerance, progress=progress
            )
        return lissa(
            self.curvature,
            b[:, None],
            self.damping,
            tolerance=tolerance,
            stochastic=True,
            largest=self.largest_of_a_batch,
            seed=seed,
            progress=progress,
        )


def over_batches(task: Task, progress: Progress) -> InfluenceResult:
    """Solves a system for each fold of the target rows, or for each row where that is asked for.

    The spread of the parts is the standard error, and holds the noise of the batches too.

    Raises:
        ValuationError: a gradient is not finite, or the system cannot be solved.
    """
    system = _measured(task, progress)
    solutions = _solutions(task, system, progress)
    parts = task.values_along(torch.cat([each.x for each in solutions], dim=1), progress)
    summed = task.summed(parts)
    left = max(solution.residual for solution in solutions)
    # Conjugate gradients in float32 stop by a recurrence that drifts a little.
    lissa_s = system.solver == "lissa"
    allowed = STOCHASTIC_RESIDUAL if lissa_s else 10 * task.settings.tolerance
    return InfluenceResult(
        **vars(summed),
        solver=system.solver,
        damping=system.damping,
        largest=system.largest,
        iterations=sum(solution.iterations for solution in solutions),
        residuals=(1.0, left),
        agreement=None,
        converged=left <= allowed,
        n_parameters=task.gradients.n_parameters,
        n_curvature=len(task.curved),
        n_train=task.n_train,
    )


def _measured(task: Task, progress: Progress) -> _System:
    """Measures the largest eigenvalue, and with it the damping and the scale of a series."""
    settings, smiles = task.settings, task.curved.smiles
    labels = torch.from_numpy(task.curved.labels)
    curvature = ModelCurvature(
        task.gradients, smiles, labels, settings.curvature, settings.molecules_per_product
    )
    probed = np.random.default_rng(settings.seed).permutation(len(smiles))[:_PROBE]
    probe = ModelCurvature(
        task.gradients,
        [smiles[i] for i in probed.tolist()],
        labels[torch.from_numpy(probed)],
        settings.curvature,
    )
    progress.start("largest eigenvalue", None, "products")
    spectrum = power_iteration(
        probe.apply, probe.dim, probe.dtype, tolerance=0.05, at_most=15, progress=progress
    )
    solver = "lissa" if settings.solver == "auto" else settings.solver
    of_a_batch = None
    if solver == "lissa":
        of_a_batch = largest_eigenvalue(curvature, stochastic=True, seed=settings.seed)
    progress.finish()
    damping = settings.damping * abs(spectrum.largest)
    return _System(curvature, damping, spectrum.largest, solver, of_a_batch)


def _solutions(task: Task, system: _System, progress: Progress) -> list[Solution]:
    gradients, target = task.gradients, task.target
    error = gradients.predictions(target.smiles).double() - torch.from_numpy(target.labels)
    solutions = []
    progress.start(f"influence ({system.solver})", None, "products")
    for part, of_rows in enumerate(torch.from_numpy(task.part_weights()).T):
        b = gradients.weighted(target.smiles, (2 * error * of_rows).to(gradients.dtype))
        solutions.append(system.solve(task, b, task.settings.seed + part, progress))
    progress.finish()
    return solutions
