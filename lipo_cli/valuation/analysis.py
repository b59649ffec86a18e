"""From embeddings to values and the optimal subset, in one call."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from lipo_cli.progress import Progress, SilentProgress
from lipo_cli.settings import TsdsSettings
from lipo_cli.valuation.arrays import FloatArray
from lipo_cli.valuation.projection import Projection
from lipo_cli.valuation.proxy import Proxy, make_proxy
from lipo_cli.valuation.removal import OptimalSubset, optimal_subset
from lipo_cli.valuation.ridge_game import RidgeGame
from lipo_cli.valuation.tsds import TsdsResult, ts_dshapley

_SILENT = SilentProgress()


@dataclass(frozen=True)
class TsdsAnalysis:
    """A finished valuation; selections by value (`Selection.select`) take it as it is.

    Attributes:
        projection: Scaler and components, fitted on primary train.
        ridge: The penalty of the proxy, chosen on primary train or given.
        game: The game that was played.
        result: Values by point and fold.
        optimal: The optimal subset with its removal curve.
        proxy_rmse_none: Validation RMSE of the proxy without any of the points, label units.
        proxy_rmse_all: The same with all of them.
    """

    projection: Projection
    ridge: float
    game: RidgeGame
    result: TsdsResult
    optimal: OptimalSubset
    proxy_rmse_none: float
    proxy_rmse_all: float

    @property
    def values(self) -> FloatArray:
        """[n] values, positive where a point helps."""
        return self.result.values

    @property
    def standard_error(self) -> FloatArray:
        """[n] standard errors of the values."""
        return self.result.standard_error

    @property
    def n_optimal(self) -> int:
        """How many points the removal curve keeps."""
        return self.optimal.n_kept


def analyse_tsds(
    train_x: ArrayLike,
    train_y: ArrayLike,
    players_x: ArrayLike,
    players_y: ArrayLike,
    val_x: ArrayLike,
    val_y: ArrayLike,
    settings: TsdsSettings,
    progress: Progress = _SILENT,
) -> TsdsAnalysis:
    """Values secondary points by TS-DShapley on a ridge proxy.

    Args:
        train_x: [N, D] embeddings of primary train.
        train_y: [N] its labels, raw units.
        players_x: [n, D] embeddings of the secondary points.
        players_y: [n] their labels.
        val_x: [m, D] embeddings of the validation rows, the target of the values.
        val_y: [m] their labels.
        settings: Projection, penalty, game and stopping.
        progress: Hears of permutations.

    Raises:
        ValuationError: shapes disagree or a number is not finite.
    """
    proxy = make_proxy(train_x, train_y, players_x, players_y, val_x, val_y, settings)
    return analyse_proxy(proxy, settings, progress)


def analyse_proxy(
    proxy: Proxy, settings: TsdsSettings, progress: Progress = _SILENT
) -> TsdsAnalysis:
    """Values the points of a proxy's game by TS-DShapley, and chooses how many to keep.

    Args:
        proxy: The game and its features.
        settings: Sampling and stopping.
        progress: Hears of permutations.

    Raises:
        ValuationError: a number is not finite.
    """
    game = proxy.game
    result = ts_dshapley(game, settings, progress)
    optimal = optimal_subset(game, result)
    at_all, at_none = optimal.pooled_curve["utility"].iloc[[0, -1]]
    return TsdsAnalysis(
        projection=proxy.projection,
        ridge=proxy.ridge,
        game=game,
        result=result,
        optimal=optimal,
        proxy_rmse_none=float(np.sqrt(-at_none)),
        proxy_rmse_all=float(np.sqrt(-at_all)),
    )
