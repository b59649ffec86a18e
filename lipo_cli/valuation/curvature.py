"""The curvature of a training loss, as products with vectors.

The loss is the mean squared error over N molecules, L = 1/N sum_i (f_i - y_i)^2 in raw label
units. Its Gauss-Newton matrix G = 2/N sum_i grad f_i grad f_i^T is positive semi-definite and
equals the Hessian where residuals vanish or predictions are linear in the parameters (Schraudolph
2002); the Hessian itself is not positive for a network away from a minimum.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from lipo_cli.valuation.gradients import OutputGradients

Kind = Literal["gauss-newton", "hessian"]


class Curvature(Protocol):
    """A symmetric matrix [D, D] known by its products."""

    @property
    def dim(self) -> int:
        """D."""

    @property
    def dtype(self) -> torch.dtype:
        """Of the vectors."""

    def apply(self, v: Tensor) -> Tensor:
        """Returns the matrix times v [D] or [D, k]."""

    def sample(self, v: Tensor, rng: np.random.Generator) -> Tensor:
        """Returns an unbiased estimate of `apply(v)` from some of the molecules."""


class RowCurvature:
    """2/N R^T R of gradients R [N, D] in memory: the Gauss-Newton matrix.

    Args:
        rows: [N, D] gradients of the predictions, or their coordinates.
        batch: Rows of a `sample`; None: all of them.
    """

    def __init__(self, rows: Tensor, batch: int | None = None) -> None:
        self.rows = rows
        self._batch = batch
        n, d = rows.shape
        # The product with the smaller of the two Gram matrices is the cheaper one.
        self._dense = 2 / n * rows.T @ rows if d <= 2 * n else None

    @property
    def dim(self) -> int:
        """D."""
        return self.rows.shape[1]

    @property
    def dtype(self) -> torch.dtype:
        """That of the rows."""
        return self.rows.dtype

    def apply(self, v: Tensor) -> Tensor:
        """Returns the matrix times v [D] or [D, k]."""
        if self._dense is not None:
            return self._dense @ v
        return 2 / len(self.rows) * (self.rows.T @ (self.rows @ v))

    def sample(self, v: Tensor, rng: np.random.Generator) -> Tensor:
        """Returns the same of a random batch of rows."""
        if self._batch is None or self._batch >= len(self.rows):
            return self.apply(v)
        rows = self.rows[torch.from_numpy(rng.choice(len(self.rows), self._batch, replace=False))]
        return 2 / len(rows) * (rows.T @ (rows @ v))

    def matrix(self) -> Tensor:
        """Returns the matrix [D, D]."""
        if self._dense is not None:
            return self._dense
        return 2 / len(self.rows) * self.rows.T @ self.rows


class ModelCurvature:
    """The curvature at a fitted regressor over molecules, one differentiation per product.

    Args:
        gradients: The regressor's gradients.
        smiles: [N] molecules of the training loss.
        labels: [N] their labels, raw units.
        kind: Gauss-Newton or the Hessian.
        batch: Molecules of a `sample`.
    """

    def __init__(
        self,
        gradients: OutputGradients,
        smiles: Sequence[str],
        labels: Tensor,
        kind: Kind = "gauss-newton",
        batch: int = 32,
    ) -> None:
        self._gradients = gradients
        self._smiles = list(smiles)
        self._labels = labels.to(gradients.dtype)
        self._kind = kind
        self._batch = batch

    @property
    def dim(self) -> int:
        """The number of parameters."""
        return self._gradients.n_parameters

    @property
    def dtype(self) -> torch.dtype:
        """That of the parameters."""
        return self._gradients.dtype

    def apply(self, v: Tensor) -> Tensor:
        """Returns the matrix over all molecules times v [D] or [D, 1]."""
        return self._product(np.arange(len(self._smiles)), v)

    def sample(self, v: Tensor, rng: np.random.Generator) -> Tensor:
        """Returns the same over a random batch of molecules."""
        n = len(self._smiles)
        return self._product(rng.choice(n, min(self._batch, n), replace=False), v)

    def _product(self, positions: np.ndarray, v: Tensor) -> Tensor:
        smiles = [self._smiles[i] for i in positions]
        columns = v.reshape(self.dim, -1).unbind(dim=1)
        if self._kind == "gauss-newton":
            found = [self._gradients.gauss_newton(smiles, column) for column in columns]
        else:
            labels = self._labels[torch.from_numpy(positions)]
            found = [self._gradients.hessian(smiles, labels, column) for column in columns]
        return torch.stack(found, dim=1).reshape(v.shape)
