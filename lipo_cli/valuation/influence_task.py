"""What influence functions are asked, and what they answer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from lipo_cli.errors import ValuationError
from lipo_cli.progress import Progress
from lipo_cli.settings import InfluenceSettings
from lipo_cli.valuation.arrays import FloatArray, IntArray, finite_vector
from lipo_cli.valuation.gradients import OutputGradients
from lipo_cli.valuation.told_apart import told_from_zero


@dataclass(frozen=True)
class Molecules:
    """SMILES with labels [n] in raw units."""

    smiles: Sequence[str]
    labels: FloatArray

    def __len__(self) -> int:
        return len(self.smiles)

    def take(self, positions: IntArray) -> Molecules:
        """Returns these molecules, in this order."""
        return Molecules([self.smiles[i] for i in positions.tolist()], self.labels[positions])


@dataclass(frozen=True)
class Summed:
    """Values that were solved in parts; the fields are those of `InfluenceResult`."""

    values: FloatArray
    standard_error: FloatArray
    freedom: int
    fold_values: FloatArray
    by_row: FloatArray | None


@dataclass(frozen=True)
class Task:
    """A fitted model, the molecules that decide, and those to value.

    Attributes:
        gradients: Of the fitted regressor.
        curved: The train molecules that the curvature is measured on.
        n_train: How many the model was trained on.
        target: [m] the rows whose loss is to fall.
        points: [n] the points to value.
        settings: Curvature, solver, damping.
        fold_of: [m] the fold of each target row, 0..n_folds-1.
        n_folds: Folds.
        by_row: Whether a column of values for each target row is wanted.
    """

    gradients: OutputGradients
    curved: Molecules
    n_train: int
    target: Molecules
    points: Molecules
    settings: InfluenceSettings
    fold_of: IntArray
    n_folds: int
    by_row: bool = False

    def on_some(self, n_rows: int) -> Task:
        """Returns the task with the curvature of so many train molecules, drawn at random."""
        n = len(self.curved)
        if n_rows >= n:
            return self
        rng = np.random.default_rng(self.settings.seed)
        chosen = np.sort(rng.choice(n, n_rows, replace=False))
        return replace(self, curved=self.curved.take(chosen))

    def fold_weights(self) -> FloatArray:
        """Returns [m, F] what each target row's values count in the parts by fold."""
        m = len(self.target)
        folds = np.zeros((m, self.n_folds))
        folds[np.arange(m), self.fold_of] = 1 / m
        return folds

    def part_weights(self) -> FloatArray:
        """Returns [m, k] what each target row's values count in the parts; a part may be empty.

        The parts are the folds, or where values by row are wanted the rows.
        """
        m = len(self.target)
        return np.eye(m) / m if self.by_row else self.fold_weights()

    def summed(self, parts: FloatArray) -> Summed:
        """Returns the values whose parts [n, k] were solved, with the error that they show.

        Raises:
            ValuationError: all target rows are in one part, or a value is not finite.
        """
        m = len(self.target)
        sizes = self.part_weights().sum(axis=0)
        held = sizes > 0
        if held.sum() < 2:
            raise ValuationError("a standard error needs target rows in two folds or more")
        means = parts[:, held] / sizes[held]  # what each part alone would say
        return Summed(
            values=finite_vector("the values", parts.sum(axis=1)),
            standard_error=means.std(axis=1, ddof=1) / math.sqrt(means.shape[1]),
            freedom=means.shape[1] - 1,
            fold_values=m * parts @ self.fold_weights() if self.by_row else parts,
            by_row=m * parts if self.by_row else None,
        )

    def values_along(self, directions: Tensor, progress: Progress) -> FloatArray:
        """Returns the points' values [n, k] by solutions [P, k], reading every point once."""
        progress.start("values", len(self.points), "molecules")
        predicted, slopes = self.gradients.along(self.points.smiles, directions, progress)
        progress.finish()
        error = predicted.double() - torch.from_numpy(self.points.labels)
        return np.asarray((2 * error[:, None] * slopes.double() / self.n_train).numpy())


@dataclass(frozen=True)
class InfluenceResult:
    """Values of n points, positive where a point lowers the target loss.

    Attributes:
        values: [n] values, squared label units.
        standard_error: [n] over target rows, or over folds of them where those were solved: what
            another choice of rows would do.
        fold_values: [n, F] parts of the values by fold of the target rows; they sum to `values`,
            to the solver's tolerance where it is not the exact one.
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
        n_train: Molecules that the model was trained on.
        by_row: [n, m] values by target row, whose mean over rows `values` is, as far as above,
            where asked for.
        halves_agree: Where H was measured on some of train: the rank correlation of the values with
            H of one half of these molecules and those with H of the other.
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
    n_train: int
    by_row: FloatArray | None = None
    halves_agree: float | None = None

    def curvature_of(self) -> str:
        """Returns which molecules the curvature was measured on."""
        if self.n_curvature >= self.n_train:
            return f"curvature of all {self.n_train:,} train molecules"
        text = f"curvature of {self.n_curvature:,} of {self.n_train:,} train molecules"
        if self.halves_agree is None:
            return f"{text}, drawn at random (which the standard errors leave out)"
        return (
            f"{text}, drawn at random (which the standard errors leave out; values by the two "
            f"halves of them rank alike by {self.halves_agree:.2f})"
        )

    def how(self) -> str:
        """Returns what solved the system, on what, and how well."""
        return (
            f"{self.solver} on {self.n_parameters:,} parameters, {self.curvature_of()}, "
            f"{self.iterations:,} products, "
            f"residual {self.residuals[-1]:.2g}, damping {self.damping:.3g} "
            f"(largest eigenvalue {self.largest:.3g})"
        )

    def sentence(self) -> str:
        """Returns how it was computed and how far the values can be told from nothing."""
        errors_of = f"standard errors over {self.freedom + 1} parts of the target"
        told = told_from_zero(self.values, self.standard_error, self.freedom, errors_of)
        text = f"{self.how()}; {told}"
        if not self.converged:
            text += "; the system is not solved well: raise --damping, or take --solver cg"
        return text
