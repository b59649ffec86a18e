r"""Validation errors of a ridge fit after each point of a sequence, without refitting.

Both classes answer the same question exactly, in float64. Given whitened features P (n players),
Q (m validation rows), residual labels y and errors e of the base fit, the fit after the points S
has the errors

    e_S = e - Q P_S^T (P_S P_S^T + I)^{-1} y_S.

With the Cholesky factor L of (P_pi P_pi^T + I), z = L^{-1} y_pi and V = L^{-1} P_pi Q^T, the errors
after k points are e - sum_{j<=k} z_j V_j, since the leading k x k block of L is the factor of the
leading block (Rasmussen and Williams 2006, algorithm 2.1, read row by row).

`DualPath` factorises the n x n matrix at once: O(n^3/3 + n^2 m). `PrimalPath` does the same by
blocks while it carries the r x r posterior covariance along: O(4 n r^2 + 2 n r m), which wins where
the players outnumber the features.

Neither is safe to share between threads: large arrays are allocated once, because mapping a few
megabytes anew for every permutation takes as long as the arithmetic.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from scipy.linalg import blas, lapack

from lipo_cli.errors import ValuationError
from lipo_cli.valuation.arrays import FloatArray, IntArray

BLOCK = 48
"""Points that `PrimalPath` adds at a time: large enough for BLAS, small against r."""


class ErrorPath(Protocol):
    """Validation errors along a sequence of points."""

    def errors(self, order: IntArray) -> FloatArray:
        """Returns [k+1, m] errors after 0..k points: read only, overwritten by the next call."""


def make_path(
    players: FloatArray, labels: FloatArray, rows: FloatArray, errors: FloatArray
) -> ErrorPath:
    """Returns the cheaper of the two paths.

    Args:
        players: [n, r] whitened features P of the players.
        labels: [n] their labels, less the base prediction.
        rows: [m, r] whitened features Q of the validation rows.
        errors: [m] labels of the validation rows, less the base prediction.
    """
    n, r = players.shape
    kind = PrimalPath if n > 2 * r else DualPath
    return kind(players, labels, rows, errors)


def _factor(matrix: FloatArray) -> FloatArray:
    """Returns the lower Cholesky factor (Fortran order), destroying the symmetric `matrix`."""
    factor, info = lapack.dpotrf(matrix.T, lower=1, overwrite_a=1, clean=0)
    if info != 0:
        raise ValuationError(
            "the ridge system of a permutation is not positive definite",
            hint="a larger ridge penalty helps",
        )
    return np.asarray(factor)


def _solve_in_place(factor: FloatArray, right: FloatArray) -> FloatArray:
    """Returns L^-1 B for a C-ordered B, which it overwrites."""
    solved = blas.dtrsm(1.0, factor, right.T, side=1, lower=1, trans_a=1, overwrite_b=1)
    return np.asarray(solved).T


class DualPath:
    """One Cholesky factorisation in the space of the players. Arguments as in `make_path`."""

    def __init__(
        self, players: FloatArray, labels: FloatArray, rows: FloatArray, errors: FloatArray
    ) -> None:
        n, m = len(players), len(rows)
        self._kernel = players @ players.T
        self._kernel.flat[:: n + 1] += 1.0
        self._columns = np.column_stack([players @ rows.T, labels])
        self._gathered = np.empty(n * n)
        self._block = np.empty(n * n)
        self._right = np.empty((n, m + 1))
        self._errors = np.empty((n + 1, m))
        self._errors[0] = errors

    def errors(self, order: IntArray) -> FloatArray:
        """Returns [k+1, m] errors after 0..k points: read only, overwritten by the next call."""
        k, n, m = len(order), len(self._kernel), self._errors.shape[1]
        gathered = self._gathered[: k * n].reshape(k, n)
        block = self._block[: k * k].reshape(k, k)
        right = self._right[:k]
        # mode="clip" writes straight into `out`; the caller has checked the positions.
        self._kernel.take(order, axis=0, out=gathered, mode="clip")
        gathered.take(order, axis=1, out=block, mode="clip")
        self._columns.take(order, axis=0, out=right, mode="clip")
        if k:
            right = _solve_in_place(_factor(block), right)
        steps = right[:, :m]
        steps *= right[:, m:]
        errors = self._errors[: k + 1]
        # A loop over rows: numpy's cumsum along axis 0 walks down columns and takes twice as long.
        for j in range(k):
            np.subtract(errors[j], steps[j], out=errors[j + 1])
        return errors


class PrimalPath:
    """The same factorisation block by block in the space of features.

    M is the posterior covariance (P_S^T P_S + I)^{-1} and c = M P_S^T y_S the weights after the
    points S. A block B of new points has the conditional covariance S_B = P_B M P_B^T + I = L L^T;
    with T = L^{-1} P_B M and z = L^{-1} (y_B - P_B c), each new point adds z_j T_j to c, and M
    loses T^T T. Arguments as in `make_path`.
    """

    def __init__(
        self, players: FloatArray, labels: FloatArray, rows: FloatArray, errors: FloatArray
    ) -> None:
        n, r = players.shape
        self._players = players
        self._labels = labels
        # The last weight is a constant 1 that carries the base errors: one product does all.
        self._readout = np.vstack([-rows.T, errors])
        self._weights = np.zeros((n + 1, r + 1))
        self._weights[:, r] = 1.0
        self._errors = np.empty((n + 1, len(rows)))

    def errors(self, order: IntArray) -> FloatArray:
        """Returns [k+1, m] errors after 0..k points: read only, overwritten by the next call."""
        k, r = len(order), self._players.shape[1]
        features, labels = self._players[order], self._labels[order]
        weights = self._weights[: k + 1]
        covariance = np.eye(r)
        for start in range(0, k, BLOCK):
            stop = min(start + BLOCK, k)
            block = features[start:stop]
            right = np.empty((stop - start, r + 1))
            np.matmul(block, covariance, out=right[:, :r])
            right[:, r] = labels[start:stop] - block @ weights[start, :r]
            conditional = right[:, :r] @ block.T
            conditional.flat[:: stop - start + 1] += 1.0
            right = _solve_in_place(_factor(conditional), right)
            gains = right[:, :r]
            if stop < k:
                covariance -= gains.T @ gains
            steps = gains * right[:, r:]
            np.cumsum(steps, axis=0, out=weights[start + 1 : stop + 1, :r])
            weights[start + 1 : stop + 1, :r] += weights[start, :r]
        errors = self._errors[: k + 1]
        np.matmul(weights, self._readout, out=errors)
        return errors
