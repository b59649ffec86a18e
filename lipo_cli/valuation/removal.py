"""The removal curve: the validation score as points leave from the lowest value up.

One factorisation gives a whole curve: points that join from the highest value down are the leading
blocks of one permutation. The number to keep is chosen on rows that did not set the values: for
each validation fold the order comes from the values of the other folds, and the curve is read on
that fold; the folds' rows together make one cross-fitted curve over all validation rows.

The height of that curve's peak is no estimate of the gain: the largest of n+1 noisy numbers lies
above its own mean, and it can never be below the ends. So the whole choice is repeated without each
fold in turn and judged on the fold left out (nested cross-validation; Varma and Simon 2006, "Bias
in error estimation when using cross-validation for model selection").
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Protocol

import numpy as np
import pandas as pd

from lipo_cli.errors import ValuationError
from lipo_cli.valuation.arrays import FloatArray, IntArray, finite_vector, order_best_first
from lipo_cli.valuation.game import RowGame

CURVE_COLUMNS = (
    "n_removed",
    "n_kept",
    "utility",
    "utility_error",
    "gain_over_all",
    "gain_over_all_error",
    "gain_over_none",
    "gain_over_none_error",
)


_ROWS_AT_ONCE = 4096


class FoldedValues(Protocol):
    """Values whose parts by fold of the validation rows are known, whatever method gave them."""

    @property
    def values(self) -> FloatArray:
        """[n] values, positive where a point helps."""

    @property
    def fold_values(self) -> FloatArray:
        """[n, F] the parts of the values by fold of the game; they sum to `values`."""


@dataclass(frozen=True)
class OptimalSubset:
    """The points to keep, and the evidence.

    Attributes:
        positions: [n_kept] positions of the kept points, ascending; may be empty.
        n_kept: Where the cross-fitted curve peaks.
        curve: The cross-fitted curve; columns as `removal_curve`. Its gains at the peak are
            optimistic, because the peak was chosen by them.
        pooled_curve: The curve of the final order on the rows that set it: optimistic by design.
        honest_gain_over_all: Nested estimate of how much lower the held-out mean squared error is
            than with all points, squared label units; negative where it is higher. This and the
            next three are None for a game of two folds, which leaves no fold to choose on.
        honest_gain_over_all_error: Its standard error over validation rows, with each fold's choice
            taken as given: somewhat too small, since the folds' choices share rows.
        honest_gain_over_none: The same against none of the points.
        honest_gain_over_none_error: Its standard error, likewise.
    """

    positions: IntArray
    n_kept: int
    curve: pd.DataFrame
    pooled_curve: pd.DataFrame
    honest_gain_over_all: float | None = None
    honest_gain_over_all_error: float | None = None
    honest_gain_over_none: float | None = None
    honest_gain_over_none_error: float | None = None

    def sentence(self, none: str = "with none") -> str:
        """Returns the finding in one line, with its uncertainty.

        Args:
            none: How the game predicts without any point.
        """
        kept = f"keeping {self.n_kept} of {len(self.curve) - 1} points"
        over_all = _lower_by(self.honest_gain_over_all, self.honest_gain_over_all_error)
        over_none = _lower_by(self.honest_gain_over_none, self.honest_gain_over_none_error)
        if over_all is None or over_none is None:
            return f"{kept}; no honest estimate of the gain, which takes three or more folds"
        return (
            f"{kept}; nested estimate of what choosing so does to the held-out mean squared error: "
            f"{over_all} than with all, {over_none} than {none} (+- over rows alone, somewhat "
            "too small)"
        )


def removal_curve(game: RowGame, values: FloatArray) -> pd.DataFrame:
    """Returns the score after each removal, from the lowest value up.

    Args:
        game: The game, whose utility is minus a mean over validation rows.
        values: [n] values that set the order; ties keep the later rows' removal first.

    Returns:
        n+1 rows, the first with all points: `n_removed`, `n_kept`, `utility` with its standard
        error over validation rows, and the gains in utility over keeping all and keeping none with
        the standard errors of these paired differences.

    Raises:
        ValuationError: the values are not finite or not one per player.
    """
    values = finite_vector("the values", values, game.n_players)
    return curve_of(game.squared_errors(order_best_first(values)))


def cross_fitted_curve(game: RowGame, fold_values: FloatArray) -> pd.DataFrame:
    """Returns the removal curve whose order, on each fold, the other folds' values set.

    Args:
        game: The game.
        fold_values: [n, F] the values by fold.

    Raises:
        ValuationError: there are fewer than two folds.
    """
    n_folds = fold_values.shape[1]
    if n_folds < 2 or n_folds != game.n_folds:
        raise ValuationError("cross-fitting needs the values of two or more folds of the game")
    squares = np.empty((game.n_players + 1, len(game.fold_of)))
    for fold in range(n_folds):
        others = np.delete(fold_values, fold, axis=1).sum(axis=1)
        held_out = game.fold_of == fold
        squares[:, held_out] = game.squared_errors(order_best_first(others), held_out)
    return curve_of(squares)


def nested_gains(game: RowGame, fold_values: FloatArray) -> tuple[FloatArray, FloatArray] | None:
    """Returns what choosing the number to keep gains on rows that had no part in the choice.

    Without fold f, the number to keep is the peak of the curve that is cross-fitted among the other
    folds: on fold g the order comes from the values of the folds other than f and g. It is judged
    on fold f, in the order that the folds other than f set. The procedure is the one that chooses
    `n_kept`, from one fold less.

    Args:
        game: The game.
        fold_values: [n, F] the values by fold.

    Returns:
        [m] squared error of each validation row with all points minus that with the points kept,
        and [m] the same with none; None below three folds.
    """
    n, n_folds = game.n_players, fold_values.shape[1]
    if n_folds < 3:
        return None
    total = fold_values.sum(axis=1)
    # Row k of column f: the squared errors of the other folds' rows with k points kept, summed.
    inner = np.zeros((n + 1, n_folds))
    for first, second in combinations(range(n_folds), 2):
        others = total - fold_values[:, first] - fold_values[:, second]
        of_both = (game.fold_of == first) | (game.fold_of == second)
        squares = game.squared_errors(order_best_first(others), of_both)
        of_first = game.fold_of[of_both] == first
        inner[:, first] += squares[:, ~of_first].sum(axis=1)
        inner[:, second] += squares[:, of_first].sum(axis=1)
    over_all, over_none = np.empty((2, len(game.fold_of)))
    for fold in range(n_folds):
        held_out = game.fold_of == fold
        n_kept = _most_at_peak(-inner[:, fold])
        order = order_best_first(total - fold_values[:, fold])
        squares = game.squared_errors(order, held_out)
        over_all[held_out] = squares[n] - squares[n_kept]
        over_none[held_out] = squares[0] - squares[n_kept]
    return over_all, over_none


def curve_of(squares: FloatArray) -> pd.DataFrame:
    """Returns the curve of [n+1, m] squared errors, row k with the best k points kept.

    Raises:
        ValuationError: there are fewer than two validation rows, hence no errors.
    """
    if squares.shape[1] < 2:
        raise ValuationError("the removal curve needs two or more validation rows")
    n = len(squares) - 1
    columns = {name: np.empty(n + 1) for name in CURVE_COLUMNS[2:]}
    # Some rows at a time: of 100,000 points the differences would fill a gigabyte.
    for start in range(0, n + 1, _ROWS_AT_ONCE):
        some = slice(start, start + _ROWS_AT_ONCE)
        backward = squares[::-1][some]
        over_all, over_none = squares[n] - backward, squares[0] - backward
        columns["utility"][some] = -backward.mean(axis=1)
        columns["utility_error"][some] = _error_of_mean(backward)
        columns["gain_over_all"][some] = over_all.mean(axis=1)
        columns["gain_over_all_error"][some] = _error_of_mean(over_all)
        columns["gain_over_none"][some] = over_none.mean(axis=1)
        columns["gain_over_none_error"][some] = _error_of_mean(over_none)
    counts = {"n_removed": np.arange(n + 1), "n_kept": np.arange(n, -1, -1)}
    return pd.DataFrame(counts | columns, columns=list(CURVE_COLUMNS))


def peak_of(curve: pd.DataFrame) -> int:
    """Returns the number kept at the curve's peak; ties keep more.

    Raises:
        ValuationError: the curve is not finite.
    """
    utility = finite_vector("the removal curve", curve["utility"].to_numpy())
    by_kept = np.argsort(curve["n_kept"].to_numpy(), kind="stable")
    return int(curve["n_kept"].to_numpy()[by_kept[_most_at_peak(utility[by_kept])]])


def optimal_subset(game: RowGame, result: FoldedValues) -> OptimalSubset:
    """Chooses how many points to keep on held-out folds, then keeps those of the highest values.

    Args:
        game: The game that judges how many to keep.
        result: Values by the game's folds: its own, or those of another method.

    Raises:
        ValuationError: the values do not belong to the game, or it has fewer than two folds.
    """
    values = finite_vector("the values", result.values, game.n_players)
    curve = cross_fitted_curve(game, result.fold_values)
    n_kept = peak_of(curve)
    positions = np.sort(order_best_first(values)[:n_kept])
    pooled = removal_curve(game, values)
    gains = nested_gains(game, result.fold_values)
    if gains is None:
        return OptimalSubset(positions, n_kept, curve, pooled)
    over_all, over_none = gains
    return OptimalSubset(
        positions=positions,
        n_kept=n_kept,
        curve=curve,
        pooled_curve=pooled,
        honest_gain_over_all=float(over_all.mean()),
        honest_gain_over_all_error=float(_error_of_mean(over_all[None])[0]),
        honest_gain_over_none=float(over_none.mean()),
        honest_gain_over_none_error=float(_error_of_mean(over_none[None])[0]),
    )


def _most_at_peak(utility: FloatArray) -> int:
    """Returns the last position of the maximum."""
    # Equal subsets reached by different arithmetic differ in the last digits: that is a tie.
    tied = utility >= utility.max() - 1e-12 * np.abs(utility).max()
    return int(np.flatnonzero(tied)[-1])


def _lower_by(gain: float | None, error: float | None) -> str | None:
    if gain is None or error is None:
        return None
    return f"{'lower' if gain >= 0 else 'higher'} by {abs(gain):.2g} +- {error:.2g}"


def _error_of_mean(rows: FloatArray) -> FloatArray:
    """Returns the standard error of each row's mean."""
    return np.asarray(rows.std(axis=1, ddof=1) / np.sqrt(rows.shape[1]))
