"""The ridge proxy that judges every method, and the values that it gives in closed form."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from lipo_cli.progress import Progress, SilentProgress
from lipo_cli.settings import KnnSettings, TsdsSettings
from lipo_cli.valuation.arrays import FloatArray, IntArray, finite_vector
from lipo_cli.valuation.knn_shapley import knn_shapley
from lipo_cli.valuation.projection import Projection, choose_ridge, fit_projection
from lipo_cli.valuation.ridge_game import RidgeGame

_SILENT = SilentProgress()


@dataclass(frozen=True)
class Proxy:
    """Projected embeddings, and the ridge game on them.

    Attributes:
        projection: Scaler and components, fitted on primary train.
        ridge: The penalty, chosen on primary train or given.
        game: The game over the secondary points.
        players_z: [n, d] features of the secondary points.
        players_y: [n] their labels, raw units.
        val_z: [m, d] features of the validation rows.
        val_y: [m] their labels.
        mean: Mean label of primary train.
    """

    projection: Projection
    ridge: float
    game: RidgeGame
    players_z: FloatArray
    players_y: FloatArray
    val_z: FloatArray
    val_y: FloatArray
    mean: float


@dataclass(frozen=True)
class RowValues:
    """Values of n points, each the mean of its values by validation row.

    Attributes:
        values: [n] values, positive where a point helps, squared label units.
        standard_error: [n] of the mean over validation rows.
        fold_values: [n, F] parts of the values by fold; they sum to `values`.
    """

    values: FloatArray
    standard_error: FloatArray
    fold_values: FloatArray


def make_proxy(
    train_x: ArrayLike,
    train_y: ArrayLike,
    players_x: ArrayLike,
    players_y: ArrayLike,
    val_x: ArrayLike,
    val_y: ArrayLike,
    settings: TsdsSettings,
) -> Proxy:
    """Fits the projection on primary train and sets up the game.

    Args:
        train_x: [N, D] embeddings of primary train.
        train_y: [N] its labels, raw units.
        players_x: [n, D] embeddings of the secondary points.
        players_y: [n] their labels.
        val_x: [m, D] embeddings of the validation rows.
        val_y: [m] their labels.
        settings: Projection, penalty, game and folds.

    Raises:
        ValuationError: shapes disagree or a number is not finite.
    """
    projection = fit_projection(train_x, settings.components)
    train_z = projection.transform(train_x)
    labels = finite_vector("the train labels", train_y, len(train_z))
    ridge = settings.ridge or choose_ridge(
        train_z, labels, folds=settings.folds, seed=settings.seed
    )
    players_z, val_z = projection.transform(players_x), projection.transform(val_x)
    if settings.game == "secondary":
        game = RidgeGame.on_top_of(
            train_z, labels, players_z, players_y, val_z, val_y,
            ridge, settings.folds, settings.seed,
        )  # fmt: skip
    else:
        game = RidgeGame.from_empty(
            players_z, players_y, val_z, val_y,
            ridge, float(labels.mean()), settings.folds, settings.seed,
        )  # fmt: skip
    return Proxy(
        projection,
        ridge,
        game,
        players_z,
        finite_vector("the points' labels", players_y, len(players_z)),
        val_z,
        finite_vector("the validation labels", val_y, len(val_z)),
        float(labels.mean()),
    )


def leave_one_out_values(proxy: Proxy) -> RowValues:
    """Values points by how much the proxy's error grows without each, all others in place."""
    game = proxy.game
    return _over_rows([(slice(None), game.leave_one_out())], game.fold_of, game.n_players)


def knn_values(proxy: Proxy, settings: KnnSettings, progress: Progress = _SILENT) -> RowValues:
    """Values points by KNN-Shapley on the proxy's features (`knn_shapley`)."""
    progress.start("KNN-Shapley", len(proxy.val_y), "validation rows")
    try:
        chunks = knn_shapley(
            proxy.players_z,
            proxy.players_y,
            proxy.val_z,
            proxy.val_y,
            settings.neighbours,
            centre=proxy.mean,
            progress=progress,
        )
        return _over_rows(chunks, proxy.game.fold_of, len(proxy.players_y))
    finally:
        progress.finish()


def _over_rows(chunks: Iterable[tuple[slice, FloatArray]], fold_of: IntArray, n: int) -> RowValues:
    """Averages values [q, n] of some rows at a time over all m rows; nothing [m, n] is held."""
    m, n_folds = len(fold_of), int(fold_of.max()) + 1
    folds, squares = np.zeros((n, n_folds)), np.zeros(n)
    for rows, found in chunks:
        weights = np.zeros((len(found), n_folds))
        weights[np.arange(len(found)), fold_of[rows]] = 1 / m
        folds += found.T @ weights
        squares += np.einsum("qn,qn->n", found, found)
    values = folds.sum(axis=1)
    variance = np.maximum(squares / m - values**2, 0.0) * m / (m - 1)
    return RowValues(finite_vector("the values", values), np.sqrt(variance / m), folds)
