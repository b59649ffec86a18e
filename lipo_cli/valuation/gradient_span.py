"""Where a network's gradients at some thousand molecules lie: coordinates in what they span."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lipo_cli.progress import Progress
from lipo_cli.valuation.arrays import FloatArray
from lipo_cli.valuation.gradient_table import (
    GradientTable,
    Slab,
    as_tensor,
    in_basis,
    scratch_file,
    slabs,
)
from lipo_cli.valuation.gradients import OutputGradients

MOST_PASSES = 16
"""Times that molecules are differentiated at most; more would take longer than a series."""


@dataclass(frozen=True)
class Span:
    """Gradients of molecules as coordinates in the space that they span.

    Attributes:
        rows: [M, r] coordinates, float64.
        predictions: [M] of the molecules, raw units.
        by_parameter: Whether the coordinates are the parameters themselves; else the columns of
            `rows` are orthogonal.
    """

    rows: Tensor
    predictions: FloatArray
    by_parameter: bool

    def directions(self, gradients: OutputGradients, smiles: Sequence[str], x: Tensor) -> Tensor:
        """Returns coordinates x [r, k] as directions [P, k] of the parameters.

        In an orthogonal basis they are sums of the molecules' gradients, a backward pass for each.
        """
        if self.by_parameter:
            return x.to(gradients.dtype)
        weights = self.rows @ (x / self.rows.square().sum(dim=0)[:, None])
        columns = [gradients.weighted(smiles, each.to(gradients.dtype)) for each in weights.T]
        return torch.stack(columns, dim=1)


def table_size(gradients: OutputGradients, n_rows: int) -> float:
    """Returns GiB of the gradients of so many molecules."""
    return 4 * n_rows * gradients.n_parameters / 2**30


def fits(gradients: OutputGradients, n_rows: int, table_gib: float) -> bool:
    """Says whether the span of so many molecules' gradients can be had in this room."""
    # In memory there are some float64 matrices of the rows by what they span.
    algebra = 6 * 8 * n_rows * min(n_rows, gradients.n_parameters) / 2**30
    return algebra <= table_gib and len(_parts(gradients, n_rows, table_gib)) <= MOST_PASSES


def _parts(gradients: OutputGradients, n_rows: int, table_gib: float) -> list[Slab]:
    """Returns the parts of the parameters whose tables have room, a pass over molecules each."""
    return slabs(gradients.sizes, max(1, int(table_gib * 2**30 / (4 * n_rows))))


def spanned(
    gradients: OutputGradients, smiles: Sequence[str], table_gib: float, progress: Progress
) -> Span:
    """Differentiates molecules and finds coordinates of their gradients.

    Args:
        gradients: Of the fitted regressor.
        smiles: [M] molecules.
        table_gib: Disk for gradients: what is larger is done in parts, with a pass for each.
        progress: Told of every molecule of every pass.

    Raises:
        ValuationError: a gradient is not finite, all are zero, or the disk is full.
    """
    m, p = len(smiles), gradients.n_parameters
    parts = _parts(gradients, m, table_gib)
    gram: FloatArray = np.zeros((m, m))
    progress.start("gradients", m * len(parts), "molecules")
    with scratch_file() as file:
        for part in parts:
            table = GradientTable(file, m, part.width)
            jacobian = gradients.jacobian(smiles, progress, part.names)
            predictions = table.fill(0, jacobian, m, part.start)
            if p <= m and len(parts) == 1:
                progress.finish()
                return Span(as_tensor(table.whole()), predictions, by_parameter=True)
            gram += table.gram()
    progress.finish()
    return Span(as_tensor(in_basis(gram)), predictions, by_parameter=False)
