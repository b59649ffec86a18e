"""Gradients of a few thousand molecules as a table on disk, and the small space that they span.

M gradients of P parameters span at most M dimensions. Everything that influence functions compute
(products with the Gauss-Newton matrix, its inverse, inner products of gradients) stays inside that
span, so that after one Gram matrix the exact same numbers follow from M x M arithmetic in float64.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import eigh
from scipy.linalg.blas import ssyrk
from torch import Tensor

from lipo_cli.errors import ValuationError
from lipo_cli.valuation.arrays import FloatArray

_COLUMN_BYTES = 256 * 2**20
"""Of the table, read at a time."""
_NEGLIGIBLE = 1e-7
"""Directions that carry less than this share of the largest are rounding (float32 gradients)."""


class GradientTable:
    """M gradients [M, P] in a file, float32.

    Args:
        file: Where it lies; it is made anew.
        n_rows: M.
        n_parameters: P.

    Raises:
        ValuationError: the file cannot be made.
    """

    def __init__(self, file: Path, n_rows: int, n_parameters: int) -> None:
        size = 4 * n_rows * n_parameters
        try:
            # A sparse file would be made on a full disk too, and writing to it kill the process.
            with file.open("wb") as stream:
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(stream.fileno(), 0, size)
                elif shutil.disk_usage(file.parent).free < size:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                else:
                    stream.truncate(size)
            shape = (n_rows, n_parameters)
            self._rows: NDArray[np.float32] = np.memmap(file, np.float32, "r+", shape=shape)
        except OSError as error:
            raise ValuationError(
                f"{size / 2**30:.1f} GiB of gradients cannot be kept: {error.strerror}",
                where=file.parent,
                hint="free space, or set TMPDIR to another disk",
            ) from None

    def fill(self, start: int, rows: Iterable[tuple[Tensor, Tensor, Tensor]], n: int) -> FloatArray:
        """Takes in the gradients of n molecules from row `start` on.

        Args:
            start: Row of the first molecule.
            rows: What `OutputGradients.jacobian` yields.
            n: Molecules.

        Returns:
            [n] their predictions.

        Raises:
            ValuationError: a gradient is not finite.
        """
        predictions = np.empty(n)
        for positions, values, gradients in rows:
            block = gradients.numpy()
            if not np.isfinite(block).all():
                raise ValuationError("a gradient is not finite", hint="the model has diverged")
            self._rows[start + positions.numpy()] = block
            predictions[positions.numpy()] = values.numpy()
        return predictions

    def gram(self) -> FloatArray:
        """Returns the inner products [M, M]: float32 products, summed in float64."""
        m, p = self._rows.shape
        width = max(1, _COLUMN_BYTES // (4 * m))
        total = np.zeros((m, m))
        for start in range(0, p, width):
            # Fortran order without a copy: the transpose of a C-ordered block.
            block = np.ascontiguousarray(self._rows[:, start : start + width])
            total += ssyrk(1.0, block.T, trans=1, lower=1)
        lower = np.tril(total)
        found: FloatArray = lower + np.tril(total, -1).T
        return found

    def coordinates(self) -> FloatArray:
        """Returns the gradients [M, r] in an orthonormal basis of their span, float64.

        Where P <= M the gradients themselves are their coordinates. Inner products are those of the
        gradients, up to directions that float32 cannot tell from nothing.
        """
        m, p = self._rows.shape
        if p <= m:
            return np.asarray(self._rows, dtype=np.float64)
        eigenvalues, vectors = eigh(self.gram())
        kept = eigenvalues > _NEGLIGIBLE * eigenvalues[-1]
        if not kept.any():
            raise ValuationError("all gradients are zero: there is nothing to weigh")
        found: FloatArray = vectors[:, kept] * np.sqrt(eigenvalues[kept])
        return found


def as_tensor(rows: FloatArray) -> Tensor:
    """Returns float64 rows as a tensor over the same memory."""
    return torch.from_numpy(np.ascontiguousarray(rows))
