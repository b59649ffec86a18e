"""Each method's way from a reference model and a ridge proxy to values of the pool."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import psutil

from lipo_cli.chem.fingerprints import highest_tanimoto, morgan_bits
from lipo_cli.comparison.fitted import Fitted
from lipo_cli.comparison.influence_scoring import (
    influence_figures,
    influence_values,
    values_by_target,
)
from lipo_cli.comparison.prepare import Prepared
from lipo_cli.comparison.targets import Target, target_of
from lipo_cli.comparison.uncertain import spread_values
from lipo_cli.errors import ValuationError
from lipo_cli.progress import Progress
from lipo_cli.settings import ScoringMethod, TrainingSettings, ValuationSettings
from lipo_cli.valuation.arrays import FloatArray
from lipo_cli.valuation.influence import InfluenceResult
from lipo_cli.valuation.proxy import (
    Proxy,
    RowValues,
    knn_values,
    leave_one_out_values,
    make_proxy,
)
from lipo_cli.valuation.ridge_game import RidgeGame
from lipo_cli.valuation.selection import LEAKING
from lipo_cli.valuation.told_apart import told_from_zero
from lipo_cli.valuation.tsds import row_errors, ts_dshapley

_POINTS_COMPARED = 1_000
"""Points whose similarity to train is looked up whatever the sizes are."""
_PAIRS_COMPARED = 30_000_000
"""Pairs of a point and a train molecule that are compared: some seconds."""
_CURVE_BYTES = 24
"""Memory for each pair of a point and a validation row: of the curve, and of leave-one-out, which
takes the most (measured)."""


@dataclass(frozen=True)
class Valued:
    """What a method says of the pool.

    Attributes:
        result: Values, standard errors and parts by fold.
        reason: Why the sampling stopped, or how the values were computed.
        figures: Numbers about the computation.
        converged: Whether the sampling's errors, or the residual of a system, became small enough.
        residuals: Of the system that was solved, product by product, where one was.
        by_target: A column of values for each target row that was named, else None.
        leaks: Whether the target was the test split.
    """

    result: RowValues | InfluenceResult
    reason: str
    figures: dict[str, float] = field(default_factory=dict)
    converged: bool = True
    residuals: tuple[float, ...] = ()
    by_target: pd.DataFrame | None = None
    leaks: bool = False


@dataclass(frozen=True)
class Ground:
    """What every method stands on.

    Attributes:
        fitted: The reference model.
        prepared: Dataset, split and pool.
        target: The rows whose loss is to fall, where a method's settings may name them.
        embedded: [n, D] embeddings of the pool.
        proxy: The ridge proxy on embeddings.
        listener: Told of the work.
    """

    fitted: Fitted
    prepared: Prepared
    target: Target | None
    embedded: FloatArray
    proxy: Proxy
    listener: Progress

    @classmethod
    def of(
        cls,
        method: ScoringMethod,
        fitted: Fitted,
        prepared: Prepared,
        settings: ValuationSettings,
        listener: Progress,
    ) -> Ground:
        """Embeds train, validation and pool, where no other method has, and makes the proxy.

        Raises:
            DataError: there is no pool, or a named target row is not in its split.
            ValuationError: the removal curve would not fit into memory.
        """
        target = target_of(prepared, settings.influence) if method == "influence" else None
        pool = prepared.require_pool().examples
        train, validation = prepared.train, prepared.validation
        if target is not None:
            validation = validation.take(target.judged)
        _check_room(len(pool), len(validation))
        rows = fitted.embed(train, validation, pool, progress=listener)
        proxy = make_proxy(
            rows[0],
            train.labels,
            rows[2],
            pool.labels,
            rows[1],
            validation.labels,
            settings.tsds,
        )
        return cls(fitted, prepared, target, rows[2], proxy, listener)

    def known_of_points(self) -> pd.DataFrame:
        """Returns each point's |prediction - label| and its highest similarity to train.

        The similarities are for a figure: of a large pool some hundred points stand for all, the
        others have none (NaN).
        """
        pool, train = self.prepared.require_pool().examples, self.prepared.train
        n_compared = max(_POINTS_COMPARED, _PAIRS_COMPARED // len(train))
        step = math.ceil(len(pool) / n_compared)
        similarity = np.full(len(pool), np.nan)
        similarity[::step] = highest_tanimoto(
            morgan_bits(pool.smiles[::step]), morgan_bits(train.smiles)
        )
        error = np.abs(self.fitted.regressor.predict_embedded(self.embedded) - pool.labels)
        return pd.DataFrame({"model_error": error, "similarity": similarity})


def _check_room(n_points: int, n_judging: int) -> None:
    """Checks that the removal curve, [points, rows that judge] some times over, has room.

    Raises:
        ValuationError: it needs more memory than there is.
    """
    needed = _CURVE_BYTES * n_points * n_judging
    there = psutil.virtual_memory().total
    if needed > there:
        raise ValuationError(
            f"the removal curve of {n_points:,} points on {n_judging:,} validation molecules takes "
            f"about {needed / 2**30:,.0f} GiB of memory, and this machine has "
            f"{there / 2**30:,.0f}",
            where="the secondary set",
            hint="take a part of it, or a smaller validation split (--fractions)",
        )


def value(
    method: ScoringMethod, ground: Ground, settings: ValuationSettings, training: TrainingSettings
) -> Valued:
    """Values the pool.

    Args:
        method: `tsds`, `influence`, `knn`, `loo` or `uncertain`.
        ground: Reference model, data and proxy.
        settings: Those of the method.
        training: How the reference model was fine-tuned.

    Raises:
        ValuationError: a score is not finite, or the method cannot be carried out.
    """
    if method == "tsds":
        return _by_sampling(ground, settings)
    if method == "influence":
        return _by_influence(ground, settings)
    if method == "knn":
        k = settings.knn.neighbours
        found = knn_values(ground.proxy, settings.knn, ground.listener)
        told = _told(found, ground.proxy.game, near_normal=False)
        reason = f"exact for the mean of {k} nearest neighbours; {told}"
        return Valued(found, reason, {"neighbours": float(k)})
    if method == "loo":
        found = leave_one_out_values(ground.proxy)
        return Valued(found, f"closed form on the ridge proxy; {_told(found, ground.proxy.game)}")
    n_folds = ground.proxy.game.n_folds
    return Valued(
        spread_values(ground.fitted.regressor, ground.prepared, training, n_folds),
        "the spread of predictions: how unsure the model is, not what a point is worth",
    )


def _by_sampling(ground: Ground, settings: ValuationSettings) -> Valued:
    game = ground.proxy.game
    result = ts_dshapley(game, settings.tsds, ground.listener)
    rows = row_errors(game, settings.tsds, result.n_permutations, ground.listener)
    found = RowValues(result.values, np.hypot(rows, result.standard_error), result.fold_values)
    figures = {
        "n_permutations": float(result.n_permutations),
        "median_sampling_error": float(np.median(result.standard_error)),
    }
    reason = f"{result.reason}; {_told(found, game, ' and the sampling')}"
    return Valued(found, reason, figures, converged=result.converged)


def _told(found: RowValues, game: RidgeGame, more: str = "", *, near_normal: bool = True) -> str:
    m = len(game.fold_of)
    errors_of = f"standard errors over {m} validation rows{more}"
    return told_from_zero(
        found.values, found.standard_error, m - 1, errors_of, near_normal=near_normal
    )


def _by_influence(ground: Ground, settings: ValuationSettings) -> Valued:
    assert ground.target is not None
    found = influence_values(
        ground.fitted,
        ground.prepared,
        ground.target,
        ground.proxy.game,
        settings.influence,
        ground.listener,
    )
    leaks = settings.influence.target == "test"
    return Valued(
        found,
        f"{found.sentence()}; {LEAKING}" if leaks else found.sentence(),
        influence_figures(found),
        converged=found.converged,
        residuals=found.residuals,
        by_target=values_by_target(found, ground.target, ground.prepared),
        leaks=leaks,
    )
