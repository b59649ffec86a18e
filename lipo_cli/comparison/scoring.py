"""Scores the secondary pool: embeddings of the reference model, a ridge proxy, and a method."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from lipo_cli.chem.fingerprints import highest_tanimoto, morgan_bits
from lipo_cli.comparison.influence_scoring import (
    influence_figures,
    influence_values,
    values_by_target,
)
from lipo_cli.comparison.ledger import Finished
from lipo_cli.comparison.prepare import Prepared
from lipo_cli.comparison.targets import target_of
from lipo_cli.comparison.uncertain import spread_values
from lipo_cli.model.regressor import Regressor
from lipo_cli.progress import Progress, SilentProgress
from lipo_cli.settings import ScoringMethod, TrainingSettings, ValuationSettings
from lipo_cli.valuation.analysis import analyse_proxy
from lipo_cli.valuation.arrays import IntArray, ranks
from lipo_cli.valuation.influence import InfluenceResult
from lipo_cli.valuation.proxy import (
    Proxy,
    RowValues,
    knn_values,
    leave_one_out_values,
    make_proxy,
)
from lipo_cli.valuation.removal import optimal_subset
from lipo_cli.valuation.selection import LEAKING, PointScores, Selection
from lipo_cli.valuation.table import value_table
from lipo_cli.valuation.tsds import TsdsResult


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
        converged: Whether standard errors, or the residual of a system, became small enough.
        points: What is known of the points beside their values, where they were computed now:
            `model_error` |prediction - label|, `similarity` highest Tanimoto similarity to train.
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
    regressor: Regressor,
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
        regressor: The reference model, fine-tuned on primary train.
        prepared: Dataset, split and pool.
        settings: Game, proxy, and those of the method.
        training: How the reference model was fine-tuned.
        progress: Told of embedding, permutations, gradients and products.

    Raises:
        DataError: there is no pool.
        ValuationError: a score is not finite, or the method cannot be carried out.
    """
    listener = progress or SilentProgress()
    if method == "influence":
        target = target_of(prepared, settings.influence)
        proxy = _proxy(regressor, prepared, settings, listener, target.judged)
    else:
        proxy = _proxy(regressor, prepared, settings, listener)
    by_target, leaks = None, False
    if method == "tsds":
        analysis = analyse_proxy(proxy, settings.tsds, listener)
        valued: TsdsResult | RowValues | InfluenceResult = analysis.result
        optimal, figures = analysis.optimal, _sampling_figures(analysis.result)
        reason, converged = analysis.result.reason, analysis.result.converged
    elif method == "influence":
        valued = found = influence_values(
            regressor, prepared, target, proxy.game, settings.influence, listener
        )
        optimal, figures = optimal_subset(proxy.game, found), influence_figures(found)
        reason, converged = found.sentence(), found.converged
        leaks = settings.influence.target == "test"
        reason = f"{reason}; {LEAKING}" if leaks else reason
        by_target = values_by_target(found, target, prepared)
    elif method == "uncertain":
        valued, figures = spread_values(regressor, prepared, training, proxy.game.n_folds), {}
        optimal, converged = optimal_subset(proxy.game, valued), True
        reason = "the spread of predictions: how unsure the model is, not what a point is worth"
    else:
        valued, figures, reason = _closed_form(method, proxy, settings, listener)
        optimal, converged = optimal_subset(proxy.game, valued), True
    worth = method != "uncertain"
    n_kept = optimal.n_kept if worth else None
    smiles = prepared.require_pool().examples.smiles
    scores = PointScores(valued.values, valued.standard_error, n_kept, smiles)
    at_all, at_none = optimal.pooled_curve["utility"].iloc[[0, -1]]
    return Scored(
        method=method,
        scores=scores,
        table=selection_table(prepared, scores, method, leaks=leaks),
        curve=optimal.curve,
        figures={
            "n_points": float(len(valued.values)),
            **({"n_optimal": float(optimal.n_kept)} if worth else {}),
            "n_positive": float((valued.values > 0).sum()),
            "n_components": float(proxy.projection.components.shape[1]),
            "ridge": float(proxy.ridge),
            "converged": float(converged),
            "value_spread": float(valued.values.std()),
            "median_standard_error": float(np.median(valued.standard_error)),
            "proxy_val_rmse_none": float(np.sqrt(-at_none)),
            "proxy_val_rmse_all": float(np.sqrt(-at_all)),
            **figures,
        },
        sentence=optimal.sentence() if worth else "",
        reason=reason,
        converged=converged,
        points=_known_of_points(regressor, prepared),
        residuals=valued.residuals if isinstance(valued, InfluenceResult) else (),
        by_target=by_target,
        leaks=leaks,
    )


def _known_of_points(regressor: Regressor, prepared: Prepared) -> pd.DataFrame:
    pool = prepared.require_pool().examples
    return pd.DataFrame(
        {
            "model_error": np.abs(regressor.predict(pool.smiles, views=1) - pool.labels),
            "similarity": highest_tanimoto(
                morgan_bits(pool.smiles), morgan_bits(prepared.train.smiles)
            ),
        }
    )


def _proxy(
    regressor: Regressor,
    prepared: Prepared,
    settings: ValuationSettings,
    listener: Progress,
    judged: IntArray | None = None,
) -> Proxy:
    """Returns the proxy, judged by these validation rows; None: all of them."""
    pool = prepared.require_pool()
    train, validation = prepared.train, prepared.validation
    if judged is not None:
        validation = validation.take(judged)
    listener.start("embedding", 3, "sets")
    embedded = []
    for part in (train, validation, pool.examples):
        embedded.append(regressor.embed(part.smiles))
        listener.advance(1)
    listener.finish()
    return make_proxy(
        embedded[0],
        train.labels,
        embedded[2],
        pool.examples.labels,
        embedded[1],
        validation.labels,
        settings.tsds,
    )


def _sampling_figures(result: TsdsResult) -> dict[str, float]:
    return {"n_permutations": float(result.n_permutations)}


def _closed_form(
    method: ScoringMethod, proxy: Proxy, settings: ValuationSettings, listener: Progress
) -> tuple[RowValues, dict[str, float], str]:
    """Returns values, numbers and a sentence of a method that the proxy answers at once."""
    if method == "loo":
        return leave_one_out_values(proxy), {}, "closed form on the ridge proxy"
    k = settings.knn.neighbours
    values = knn_values(proxy, settings.knn, listener)
    return values, {"neighbours": float(k)}, f"exact for the mean of {k} nearest neighbours"


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
