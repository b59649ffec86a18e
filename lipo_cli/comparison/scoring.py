"""Scores the secondary pool: embeddings of the reference model, a ridge proxy, and a method."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from lipo_cli.comparison.fitted import Fitted
from lipo_cli.comparison.ledger import Finished
from lipo_cli.comparison.prepare import Prepared
from lipo_cli.comparison.scoring_methods import Ground, value
from lipo_cli.progress import Progress, SilentProgress
from lipo_cli.settings import ScoringMethod, TrainingSettings, ValuationSettings
from lipo_cli.valuation.arrays import ranks
from lipo_cli.valuation.removal import optimal_subset
from lipo_cli.valuation.selection import PointScores, Selection
from lipo_cli.valuation.table import value_table

WITHOUT_POINTS: dict[str, str] = {
    "secondary": "with none",
    "empty": "by train's mean label (game `empty` leaves primary train out)",
}
"""How the proxy of each game predicts without any secondary point."""


@dataclass(frozen=True)
class Scored:
    """The values of the pool and what they rest on.

    Attributes:
        method: What gave the values.
        scores: Values, standard errors and the number that the removal curve keeps.
        table: The value table with the optimal selection marked.
        curve: The cross-fitted removal curve.
        figures: Numbers about the computation (permutations, ridge, relative error, ...).
        sentence: What the removal curve says, in one line.
        reason: Why the sampling stopped, or how the system was solved.
        converged: Whether the sampling's errors, or the residual of a system, became small enough.
        points: What is known of the points beside their values, where they were computed now:
            `model_error` |prediction - label|, `similarity` highest Tanimoto similarity to train
            (NaN for points of a large pool that were not compared).
        residuals: Of the system that was solved, product by product, where one was.
        by_target: A column of values for each target row that was named, else None.
        leaks: Whether the target was the test split: nothing may be chosen by such values.
        record: The finished record, whose artifacts hold the figures.
    """

    method: ScoringMethod
    scores: PointScores
    table: pd.DataFrame
    curve: pd.DataFrame
    figures: dict[str, float] = field(default_factory=dict)
    sentence: str = ""
    reason: str = ""
    converged: bool = True
    points: pd.DataFrame = field(default_factory=pd.DataFrame)
    residuals: tuple[float, ...] = ()
    by_target: pd.DataFrame | None = None
    leaks: bool = False
    record: Finished | None = None


def score_pool(
    method: ScoringMethod,
    fitted: Fitted,
    prepared: Prepared,
    settings: ValuationSettings,
    training: TrainingSettings,
    progress: Progress | None = None,
) -> Scored:
    """Values every point of the pool, and reads off a removal curve how many to keep.

    The proxy's features are mean-pooled embeddings of the reference model, standardised and
    projected by what primary train alone says; the curve is that of the proxy whatever the method.
    The target is the validation split; only influence, and only where its settings say so, reads
    the test split, and then says that it leaks.

    Args:
        method: `tsds`, `influence`, `knn`, `loo` or `uncertain`.
        fitted: The reference model, fine-tuned on primary train.
        prepared: Dataset, split and pool.
        settings: Game, proxy, and those of the method.
        training: How the reference model was fine-tuned.
        progress: Told of embedding, permutations, gradients and products.

    Raises:
        DataError: there is no pool.
        ValuationError: a score is not finite, or the method cannot be carried out.
    """
    ground = Ground.of(method, fitted, prepared, settings, progress or SilentProgress())
    found = value(method, ground, settings, training)
    result, proxy = found.result, ground.proxy
    optimal = optimal_subset(proxy.game, result)
    worth = method != "uncertain"
    n_kept = optimal.n_kept if worth else None
    smiles = prepared.require_pool().examples.smiles
    scores = PointScores(result.values, result.standard_error, n_kept, smiles)
    at_all, at_none = optimal.pooled_curve["utility"].iloc[[0, -1]]
    return Scored(
        method=method,
        scores=scores,
        table=selection_table(prepared, scores, method, leaks=found.leaks),
        curve=optimal.curve,
        figures={
            "n_points": float(len(result.values)),
            **({"n_optimal": float(optimal.n_kept)} if worth else {}),
            "n_positive": float((result.values > 0).sum()),
            "n_components": float(proxy.projection.components.shape[1]),
            "ridge": float(proxy.ridge),
            "converged": float(found.converged),
            "value_spread": float(result.values.std()),
            "median_standard_error": float(np.median(result.standard_error)),
            "proxy_val_rmse_none": float(np.sqrt(-at_none)),
            "proxy_val_rmse_all": float(np.sqrt(-at_all)),
            **found.figures,
        },
        sentence=optimal.sentence(WITHOUT_POINTS[settings.tsds.game]) if worth else "",
        reason=found.reason,
        converged=found.converged,
        points=ground.known_of_points(),
        residuals=found.residuals,
        by_target=found.by_target,
        leaks=found.leaks,
    )


def selection_table(
    prepared: Prepared, scores: PointScores, method: ScoringMethod, *, leaks: bool
) -> pd.DataFrame:
    """Returns the value table of the pool with what the removal curve keeps marked.

    A spread is no value: nothing is marked by it.
    """
    pool = prepared.require_pool()
    rule = Selection("none") if scores.n_optimal is None else Selection("optimal", method=method)
    selected = rule.select(scores, len(pool), np.random.default_rng(0))
    if scores.n_optimal is None:
        ranked = [
            f"rank {rank} of {len(pool)} by spread, no choice" for rank in ranks(scores.values)
        ]
        selected = replace(selected, reasons=tuple(ranked))
    if leaks:
        selected = selected.leaking()
    return value_table(pool.rows, pool.examples.smiles, pool.examples.labels, scores, selected)
