r"""The ridge game: players are points, the utility is minus the validation error of a ridge fit.

Let lambda be the ridge penalty and c_z, c_y the means of primary train. For a set S of players,
with B the base rows (primary train in game A, none in game B),

    w(S), b(S) = argmin  sum_{i in B + S} (y_i - c_y - b - (z_i - c_z)^T w)^2
                         + lambda ||w||^2 + mu b^2,
    U(S) = -1/m sum_{v=1..m} (y_v - c_y - b(S) - (z_v - c_z)^T w(S))^2.

Game A (`on_top_of`): mu = 0, so that U(S) is the score of scikit-learn's `Ridge(alpha=lambda,
fit_intercept=True)` on the rows of train and S together. Game B (`from_empty`): mu = lambda, since
a set of few players needs a prior on its level too; U(empty) predicts c_y everywhere.

The intercept is the players' to move: were it train's alone, an offset that their labels share
(another assay, another unit) would be told from none only as far as the slopes can follow it.

U is additive over validation rows, hence over folds: U = sum_f U_f with
U_f(S) = -1/m sum_{v in fold f} (...)^2.

Source: Schoch, Mishra and Ji 2023, "Data Selection for Fine-tuning Large Language Models Using
Transferred Shapley Values" (the proxy on frozen representations); the exact path in place of refits
is in `ridge_paths`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg import LinAlgError, cho_solve, cholesky, solve_triangular

from lipo_cli.errors import ValuationError
from lipo_cli.valuation.arrays import (
    BoolArray,
    FloatArray,
    IntArray,
    distinct_positions,
    finite_matrix,
    finite_vector,
)
from lipo_cli.valuation.ridge_paths import make_path


@dataclass(frozen=True)
class RidgeData:
    """Features [., d + 1] and labels of the base, the players and the validation rows.

    Features and labels are centred; the last feature is 1, whose weight is the intercept.
    """

    base_z: FloatArray
    base_y: FloatArray
    players_z: FloatArray
    players_y: FloatArray
    val_z: FloatArray
    val_y: FloatArray


class RidgeGame:
    """A game over n points on a ridge proxy. Build it by `on_top_of` or `from_empty`.

    Args:
        data: Features and labels.
        ridge: The penalty lambda > 0 of the slopes.
        intercept_ridge: The penalty mu >= 0 of the intercept; 0 needs a base row.
        n_folds: Validation folds F, 1 <= F <= validation rows.
        seed: Of the assignment of validation rows to folds.

    Raises:
        ValuationError: shapes disagree, a number is not finite, there is no player, or the folds
            or the penalty make no sense.
    """

    def __init__(
        self, data: RidgeData, ridge: float, intercept_ridge: float, n_folds: int, seed: int
    ) -> None:
        n, m = len(data.players_z), len(data.val_z)
        if not (np.isfinite(ridge) and ridge > 0):
            raise ValuationError(f"the ridge penalty must be positive, is {ridge}")
        if n == 0:
            raise ValuationError("there is no point to value")
        if not 1 <= n_folds <= m:
            raise ValuationError(f"{n_folds} folds need as many validation rows, there are {m}")
        self.ridge = float(ridge)
        self._data = data
        self._penalties = np.full(data.players_z.shape[1], self.ridge)
        self._penalties[-1] = intercept_ridge
        self._n_folds = n_folds
        self._fold_of = (np.random.default_rng(seed).permutation(m) % n_folds).astype(np.int64)
        self._fold_weights = np.zeros((m, n_folds))
        self._fold_weights[np.arange(m), self._fold_of] = 1.0 / m
        self._squares = np.empty((n + 1, m))  # of `marginals`; untouched, it takes no memory
        self._conditioned = _conditioned_on_base(data, self._penalties)
        self._path = make_path(*self._conditioned)

    @classmethod
    def on_top_of(
        cls,
        train_z: ArrayLike,
        train_y: ArrayLike,
        players_z: ArrayLike,
        players_y: ArrayLike,
        val_z: ArrayLike,
        val_y: ArrayLike,
        ridge: float,
        n_folds: int = 5,
        seed: int = 0,
    ) -> RidgeGame:
        """Game A: the players join the primary train set.

        Args:
            train_z: [N, d] features of primary train.
            train_y: [N] its labels, raw units.
            players_z: [n, d] features of the points to value.
            players_y: [n] their labels, raw units.
            val_z: [m, d] features of the validation rows.
            val_y: [m] their labels, raw units.
            ridge: The penalty lambda.
            n_folds: Validation folds F.
            seed: Of the assignment of validation rows to folds.

        Raises:
            ValuationError: see the class.
        """
        train_z = finite_matrix("the train features", train_z)
        train_y = finite_vector("the train labels", train_y, len(train_z))
        if len(train_z) == 0:
            raise ValuationError("primary train is empty")
        centre, mean = train_z.mean(axis=0), float(train_y.mean())
        players, labels, rows, targets = _checked(players_z, players_y, val_z, val_y, centre)
        data = RidgeData(
            _with_constant(train_z - centre), train_y - mean,
            players, labels - mean, rows, targets - mean,
        )  # fmt: skip
        return cls(data, ridge, 0.0, n_folds, seed)

    @classmethod
    def from_empty(
        cls,
        players_z: ArrayLike,
        players_y: ArrayLike,
        val_z: ArrayLike,
        val_y: ArrayLike,
        ridge: float,
        mean: float,
        n_folds: int = 5,
        seed: int = 0,
    ) -> RidgeGame:
        """Game B: the players start from the empty set, which predicts `mean` everywhere.

        Args:
            players_z: [n, d] features of the points to value, centred by primary train.
            players_y: [n] their labels, raw units.
            val_z: [m, d] features of the validation rows, centred by primary train.
            val_y: [m] their labels, raw units.
            ridge: The penalty lambda.
            mean: The mean label of primary train.
            n_folds: Validation folds F.
            seed: Of the assignment of validation rows to folds.

        Raises:
            ValuationError: see the class.
        """
        if not np.isfinite(mean):
            raise ValuationError(f"the mean label must be finite, is {mean}")
        players, labels, rows, targets = _checked(players_z, players_y, val_z, val_y, None)
        empty = np.empty((0, players.shape[1]))
        data = RidgeData(empty, np.empty(0), players, labels - mean, rows, targets - mean)
        return cls(data, ridge, ridge, n_folds, seed)

    @property
    def n_players(self) -> int:
        """The number of players n."""
        return len(self._data.players_z)

    @property
    def n_folds(self) -> int:
        """The number of validation folds F."""
        return self._n_folds

    @property
    def fold_of(self) -> IntArray:
        """[m] the fold of each validation row."""
        return self._fold_of

    def marginals(self, permutation: Sequence[int] | IntArray) -> FloatArray:
        """Returns [k, F] marginal contributions to U_f as the players join one after another.

        Args:
            permutation: [k] distinct players; k < n gives the leading part of a permutation.

        Raises:
            ValuationError: a player is unknown or named twice.
        """
        order = distinct_positions(permutation, self.n_players)
        squares = self._squares[: len(order) + 1]
        np.square(self._path.errors(order), out=squares)
        sums = squares @ self._fold_weights
        return np.asarray(sums[:-1] - sums[1:])

    def squared_errors(
        self, permutation: Sequence[int] | IntArray, rows: BoolArray | None = None
    ) -> FloatArray:
        """Returns [k+1, m] squared validation errors after the first 0, 1, ..., k players.

        Args:
            permutation: [k] distinct players.
            rows: [m] which validation rows are wanted; None: all of them. Of a large pool a copy
                of all would be the half of the memory.

        Raises:
            ValuationError: a player is unknown or named twice.
        """
        errors = self._path.errors(distinct_positions(permutation, self.n_players))
        if rows is None:
            return np.asarray(np.square(errors))
        wanted = errors[:, rows]
        return np.asarray(np.square(wanted, out=wanted))

    def leave_one_out(self) -> FloatArray:
        """Returns [m, n]: how much row v's squared error grows without player i, in closed form.

        The mean over rows is U(all) - U(all but i).

        Removing row i of a ridge fit moves its weights by -A^-1 z_i r_i / (1 - h_i), with the
        residual r_i, the leverage h_i = z_i^T A^-1 z_i and A = Z^T Z plus the penalties (Cook &
        Weisberg 1982).
        """
        players, labels, rows, base_errors = self._conditioned
        system = players.T @ players
        system.flat[:: len(system) + 1] += 1.0  # the penalty, conditioned on the base
        factor = _factor(system)
        solved = cho_solve((factor, True), players.T)  # [d, n]
        weights = solved @ labels
        leverage = np.einsum("nd,dn->n", players, solved)
        scale = (labels - players @ weights) / (1 - leverage)
        errors = base_errors - rows @ weights
        without = errors[:, None] + (rows @ solved) * scale
        return np.asarray(without**2 - errors[:, None] ** 2)

    def utility(self, subset: Sequence[int] | IntArray) -> float:
        """Returns U(subset) by a direct least-squares refit: the slow truth, for checks.

        It shares nothing with `marginals` but the data: the penalties enter as d + 1 more rows.
        """
        players = distinct_positions(subset, self.n_players)
        data = self._data
        shrunk = np.diag(np.sqrt(self._penalties))
        rows = np.vstack([data.base_z, data.players_z[players], shrunk])
        labels = np.concatenate([data.base_y, data.players_y[players], np.zeros(len(shrunk))])
        weights = np.linalg.lstsq(rows, labels, rcond=None)[0]
        return -float(np.mean((data.val_y - data.val_z @ weights) ** 2))


def _checked(
    players_z: ArrayLike,
    players_y: ArrayLike,
    val_z: ArrayLike,
    val_y: ArrayLike,
    centre: FloatArray | None,
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    players = finite_matrix("the points' features", players_z)
    labels = finite_vector("the points' labels", players_y, len(players))
    rows = finite_matrix("the validation features", val_z)
    targets = finite_vector("the validation labels", val_y, len(rows))
    width = players.shape[1] if centre is None else len(centre)
    if width == 0 or players.shape[1] != width or rows.shape[1] != width:
        raise ValuationError(
            f"features must have the same width: {width}, {players.shape[1]}, {rows.shape[1]}"
        )
    if centre is not None:
        players, rows = players - centre, rows - centre
    return _with_constant(players), labels, _with_constant(rows), targets


def _with_constant(features: FloatArray) -> FloatArray:
    return np.column_stack([features, np.ones(len(features))])


def _factor(system: FloatArray) -> FloatArray:
    """Returns the lower Cholesky factor of a ridge system."""
    try:
        return np.asarray(cholesky(system, lower=True))
    except (LinAlgError, ValueError) as error:  # the latter: squares of the features overflowed
        raise ValuationError(
            "the ridge system is not positive definite",
            hint="check the embeddings for extreme numbers; a larger ridge penalty may help",
        ) from error


def _conditioned_on_base(
    data: RidgeData, penalties: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Returns whitened players and rows, and the labels and errors that the base fit leaves.

    With A = X^T X + diag(penalties) = C C^T, features times C^{-T} have the kernel z A^{-1} z'^T,
    and the penalty on top of the base becomes 1.
    """
    system = data.base_z.T @ data.base_z
    system.flat[:: len(system) + 1] += penalties
    factor = _factor(system)
    weights = cho_solve((factor, True), data.base_z.T @ data.base_y)
    players = solve_triangular(factor, data.players_z.T, lower=True).T
    rows = solve_triangular(factor, data.val_z.T, lower=True).T
    labels = data.players_y - data.players_z @ weights
    errors = data.val_y - data.val_z @ weights
    return np.ascontiguousarray(players), labels, np.ascontiguousarray(rows), errors
