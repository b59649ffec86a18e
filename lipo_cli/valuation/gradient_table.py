"""Gradients of a few thousand molecules as a table on disk, and the small space that they span.

M gradients of P parameters span at most M dimensions. Everything that influence functions compute
(products with the Gauss-Newton matrix, its inverse, inner products of gradients) stays inside that
span, so that after one Gram matrix the exact same numbers follow from M x M arithmetic in float64.
Inner products are sums over parameters: where the table of all of them has no room, it is made and
read for some parameters after the others, at the price of differentiating once for each part.
"""

from __future__ import annotations

import errno
import math
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import BufferedRandom
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


@dataclass(frozen=True)
class Slab:
    """Some neighbouring numbers of a flat vector of parameters.

    Attributes:
        names: The parameters that they belong to.
        start: The first of them, counted from the first number of `names`.
        stop: One past the last.
    """

    names: tuple[str, ...]
    start: int
    stop: int

    @property
    def width(self) -> int:
        """How many."""
        return self.stop - self.start


@contextmanager
def scratch_file() -> Iterator[BufferedRandom]:
    """Yields a file without a name: nothing of it is left, whatever ends the process."""
    # Closed below: a `with` would tell once more, by a traceback, what could not be written.
    stream = tempfile.TemporaryFile(prefix="lipo-gradients-")  # noqa: SIM115
    try:
        yield stream
    finally:
        with suppress(OSError):  # what could not be written has been told
            stream.close()


class GradientTable:
    """M gradients [M, P] in a file, float32.

    Columns lie in blocks of some neighbouring ones, each block [M, width] for itself: it is read at
    one go into memory that is used again. (Mapped, what was read counted as memory of the process,
    at the price of a page fault every 4 KiB.)

    Args:
        file: Where it lies, open for writing and reading; what it holds is overwritten.
        n_rows: M.
        n_parameters: P.

    Raises:
        ValuationError: there is no room for it.
    """

    def __init__(self, file: BufferedRandom, n_rows: int, n_parameters: int) -> None:
        self._file = file
        self._n_rows = n_rows
        width = max(1, _COLUMN_BYTES // (4 * max(1, n_rows)))
        self._columns = [
            (start, min(start + width, n_parameters)) for start in range(0, n_parameters, width)
        ]
        self._size = 4 * n_rows * n_parameters
        try:
            # A sparse file would be made on a full disk too, and writing to it kill the process.
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, self._size)
            elif shutil.disk_usage(tempfile.gettempdir()).free < self._size:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            else:
                file.truncate(self._size)
        except OSError as error:
            raise self._no_room(error) from None

    def fill(
        self,
        start: int,
        rows: Iterable[tuple[Tensor, Tensor, Tensor]],
        n: int,
        first_column: int = 0,
    ) -> FloatArray:
        """Takes in the gradients of n molecules from row `start` on.

        Args:
            start: Row of the first molecule.
            rows: What `OutputGradients.jacobian` yields.
            n: Molecules.
            first_column: Of the gradients; the table is as wide as what it takes of them.

        Returns:
            [n] their predictions.

        Raises:
            ValuationError: a gradient is not finite, or cannot be written.
        """
        predictions = np.empty(n)
        stop = first_column + self._columns[-1][1]
        for positions, values, gradients in rows:
            taken = np.asarray(gradients.numpy()[:, first_column:stop], np.float32)
            # The sum is finite where every number is, and needs no table of its own.
            if not math.isfinite(taken.sum(dtype=np.float64)):
                raise ValuationError("a gradient is not finite", hint="the model has diverged")
            try:
                self._write(start + positions.numpy(), taken)
            except OSError as error:
                raise self._no_room(error) from None
            predictions[positions.numpy()] = values.numpy()
        return predictions

    def _write(self, places: NDArray[np.int64], rows: NDArray[np.float32]) -> None:
        for place, row in zip(places.tolist(), rows, strict=True):
            for a, b in self._columns:
                self._file.seek(4 * (a * self._n_rows + place * (b - a)))
                self._file.write(row[a:b].data)
        self._file.flush()

    def _no_room(self, error: OSError) -> ValuationError:
        return ValuationError(
            f"{self._size / 2**30:.1f} GiB of gradients cannot be kept: {error.strerror}",
            where=Path(tempfile.gettempdir()),
            hint="free space, or set TMPDIR to another disk",
        )

    def _blocks(self) -> Iterator[tuple[int, int, NDArray[np.float32]]]:
        """Yields first and last column and the block [M, width]: overwritten by the next."""
        widest = max(b - a for a, b in self._columns)
        memory = np.empty(self._n_rows * widest, np.float32)
        for a, b in self._columns:
            block = memory[: self._n_rows * (b - a)].reshape(self._n_rows, b - a)
            self._file.seek(4 * a * self._n_rows)
            if self._file.readinto(block.data) != block.nbytes:
                raise ValuationError("the gradients' file was cut short")
            yield a, b, block

    def gram(self) -> FloatArray:
        """Returns the inner products [M, M]: float32 products, summed in float64."""
        total = np.zeros((self._n_rows, self._n_rows))
        for _, _, block in self._blocks():
            # Fortran order without a copy: the transpose of a C-ordered block.
            total += ssyrk(1.0, block.T, trans=1, lower=1)
        lower = np.tril(total)
        found: FloatArray = lower + np.tril(total, -1).T
        return found

    def whole(self) -> FloatArray:
        """Returns the table [M, P] in memory, float64."""
        found = np.empty((self._n_rows, self._columns[-1][1]))
        for a, b, block in self._blocks():
            found[:, a:b] = block
        return found


def slabs(sizes: Mapping[str, int], room: int) -> list[Slab]:
    """Cuts a flat vector of parameters into parts of at most `room` numbers.

    Whole parameters share a part where they fit, in their order; one that is larger than the room
    is cut.

    Args:
        sizes: Numbers of each parameter.
        room: Numbers of a part, at least 1.
    """
    found: list[Slab] = []
    names: list[str] = []
    width = 0
    for name, size in sizes.items():
        if names and width + size > room:
            found.append(Slab(tuple(names), 0, width))
            names, width = [], 0
        if size > room:
            found += [Slab((name,), a, min(a + room, size)) for a in range(0, size, room)]
            continue
        names.append(name)
        width += size
    return [*found, Slab(tuple(names), 0, width)] if names else found


def in_basis(gram: FloatArray) -> FloatArray:
    """Returns rows [M, r] in an orthonormal basis of their span, from their Gram matrix [M, M].

    Inner products are kept, up to directions that float32 cannot tell from nothing.

    Raises:
        ValuationError: every row is zero.
    """
    eigenvalues, vectors = eigh(gram)
    kept = eigenvalues > _NEGLIGIBLE * eigenvalues[-1]
    if not kept.any():
        raise ValuationError("all gradients are zero: there is nothing to weigh")
    found: FloatArray = vectors[:, kept] * np.sqrt(eigenvalues[kept])
    return found


def as_tensor(rows: FloatArray) -> Tensor:
    """Returns float64 rows as a tensor over the same memory."""
    return torch.from_numpy(np.ascontiguousarray(rows))
