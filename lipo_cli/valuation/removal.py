"""The removal curve: the validation score as points leave from the lowest value up.

One factorisation gives a whole curve: points that join from the highest value down are the leading
blocks of one permutation. The number to keep is chosen on rows that did not set the values: for
each validation fold the order comes from the values of the other folds, and the curve is read on
that fold; the folds' rows together make one cross-fitted curve over all validation rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from lipo_cli.errors import ValuationError
from lipo_cli.valuation.arrays import FloatArray, IntArray, finite_vector, order_best_first
from lipo_cli.valuation.game import RowGame
from lipo_cli.valuation.tsds import TsdsResult

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


@dataclass(frozen=True)
class OptimalSubset:
    """The points to keep, and the evidence.

    Attributes:
        positions: [n_kept] positions of the kept points, ascending; may be empty.
        n_kept: Where the cross-fitted curve peaks.
        curve: The cross-fitted curve; columns as `removal_curve`.
        pooled_curve: The curve of the final order on the rows that set it: optimistic by design.
    """

    positions: IntArray
    n_kept: int
    curve: pd.DataFrame
    pooled_curve: pd.DataFrame

    def sentence(self) -> str:
        """Returns the finding in one line, with its uncertainty."""
        peak = self.curve.loc[self.curve["n_kept"] == self.n_kept].iloc[0]
        return (
            f"keeping {self.n_kept} of {len(self.curve) - 1} points: held-out mean squared error "
            f"lower by {peak['gain_over_all']:.4g} +- {peak['gain_over_all_error']:.2g} than with "
            f"all, by {peak['gain_over_none']:.4g} +- {peak['gain_over_none_error']:.2g} than "
            "with none"
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
        squares[:, held_out] = game.squared_errors(order_best_first(others))[:, held_out]
    return curve_of(squares)


def curve_of(squares: FloatArray) -> pd.DataFrame:
    """Returns the curve of [n+1, m] squared errors, row k with the best k points kept.

    Raises:
        ValuationError: there are fewer than two validation rows, hence no errors.
    """
    if squares.shape[1] < 2:
        raise ValuationError("the removal curve needs two or more validation rows")
    n = len(squares) - 1
    backward = squares[::-1]
    over_all, over_none = squares[n] - backward, squares[0] - backward
    return pd.DataFrame(
        {
            "n_removed": np.arange(n + 1),
            "n_kept": np.arange(n, -1, -1),
            "utility": -backward.mean(axis=1),
            "utility_error": _error_of_mean(backward),
            "gain_over_all": over_all.mean(axis=1),
            "gain_over_all_error": _error_of_mean(over_all),
            "gain_over_none": over_none.mean(axis=1),
            "gain_over_none_error": _error_of_mean(over_none),
        },
        columns=list(CURVE_COLUMNS),
    )


def peak_of(curve: pd.DataFrame) -> int:
    """Returns the number kept at the curve's peak; ties keep more.

    Raises:
        ValuationError: the curve is not finite.
    """
    utility = finite_vector("the removal curve", curve["utility"].to_numpy())
    # Equal subsets reached by different arithmetic differ in the last digits: that is a tie.
    tied = utility >= utility.max() - 1e-12 * np.abs(utility).max()
    return int(curve["n_kept"].to_numpy()[tied].max())


def optimal_subset(game: RowGame, result: TsdsResult) -> OptimalSubset:
    """Chooses how many points to keep on held-out folds, then keeps those of the highest values.

    Args:
        game: The game that the values come from.
        result: Its values, by fold.

    Raises:
        ValuationError: the values do not belong to the game, or it has fewer than two folds.
    """
    values = finite_vector("the values", result.values, game.n_players)
    curve = cross_fitted_curve(game, result.fold_values)
    n_kept = peak_of(curve)
    positions = np.sort(order_best_first(values)[:n_kept])
    return OptimalSubset(positions, n_kept, curve, removal_curve(game, values))


def _error_of_mean(rows: FloatArray) -> FloatArray:
    """Returns the standard error of each row's mean."""
    return np.asarray(rows.std(axis=1, ddof=1) / np.sqrt(rows.shape[1]))
