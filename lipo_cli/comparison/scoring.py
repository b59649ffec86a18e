"""Scores the secondary pool: embeddings of the reference model, a ridge proxy, and a method."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from lipo_cli.chem.fingerprints import highest_tanimoto, morgan_bits
from lipo_cli.comparison.ledger import Finished
from lipo_cli.comparison.prepare import Prepared
from lipo_cli.comparison.targets import Target, target_of
from lipo_cli.comparison.uncertain import spread_values
from lipo_cli.model.regressor import Regressor
from lipo_cli.progress import Progress, SilentProgress
from lipo_cli.settings import ScoringMethod, TrainingSettings, ValuationSettings
from lipo_cli.valuation.analysis import analyse_proxy
from lipo_cli.valuation.gradients import OutputGradients
from lipo_cli.valuation.influence import InfluenceResult, Molecules, influence
from lipo_cli.valuation.proxy import (
    Proxy,
    RowValues,
    knn_values,
    leave_one_out_values,
    make_proxy,
)
from lipo_cli.valuation.removal import optimal_subset
from lipo_cli.valuation.selection import PointScores, Selection
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
    proxy = _proxy(regressor, prepared, settings, listener)
    by_target = None
    if method == "tsds":
        analysis = analyse_proxy(proxy, settings.tsds, listener)
        valued: TsdsResult | RowValues | InfluenceResult = analysis.result
        optimal, figures = analysis.optimal, _sampling_figures(analysis.result)
        reason, converged = analysis.result.reason, analysis.result.converged
    elif method == "influence":
        target = target_of(prepared, settings.influence, proxy.game.fold_of)
        valued = found = _influence(regressor, prepared, target, settings, listener)
        optimal, figures = optimal_subset(proxy.game, found), _influence_figures(found)
        reason, converged = found.sentence(), found.converged
        if settings.influence.target == "test":
            reason += "; LEAKING: the target is the test split, nothing may be chosen by this"
        by_target = _by_target(found, target, prepared)
    elif method == "uncertain":
        valued, figures = spread_values(regressor, prepared, training, proxy.game.n_folds), {}
        optimal, converged = optimal_subset(proxy.game, valued), True
        reason = "the spread of predictions: how unsure the model is, not what a point is worth"
    else:
        valued, figures, reason = _closed_form(method, proxy, settings, listener)
        optimal, converged = optimal_subset(proxy.game, valued), True
    smiles = prepared.require_pool().examples.smiles
    scores = PointScores(valued.values, valued.standard_error, optimal.n_kept, smiles)
    at_all, at_none = optimal.pooled_curve["utility"].iloc[[0, -1]]
    return Scored(
        method=method,
        scores=scores,
        table=selection_table(prepared, scores, Selection("optimal", method=method)),
        curve=optimal.curve,
        figures={
            "n_points": float(len(valued.values)),
            "n_optimal": float(optimal.n_kept),
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
        sentence=optimal.sentence(),
        reason=reason,
        converged=converged,
        points=_known_of_points(regressor, prepared),
        residuals=valued.residuals if isinstance(valued, InfluenceResult) else (),
        by_target=by_target,
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
    regressor: Regressor, prepared: Prepared, settings: ValuationSettings, listener: Progress
) -> Proxy:
    pool = prepared.require_pool()
    train, validation = prepared.train, prepared.validation
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


def _influence(
    regressor: Regressor,
    prepared: Prepared,
    target: Target,
    settings: ValuationSettings,
    listener: Progress,
) -> InfluenceResult:
    train, points = prepared.train, prepared.require_pool().examples
    return influence(
        OutputGradients(regressor, settings.influence.part),
        Molecules(train.smiles, train.labels),
        Molecules(target.examples.smiles, target.examples.labels),
        Molecules(points.smiles, points.labels),
        settings.influence,
        fold_of=target.fold_of,
        n_folds=target.n_folds,
        by_row=target.by_row,
        progress=listener,
    )


def _influence_figures(found: InfluenceResult) -> dict[str, float]:
    figures = {
        "damping": found.damping,
        "largest_eigenvalue": found.largest,
        "products": float(found.iterations),
        "residual": found.residuals[-1],
        "n_parameters": float(found.n_parameters),
        "n_curvature": float(found.n_curvature),
    }
    if found.agreement is not None:
        figures["solver_agreement"] = found.agreement
    return figures


def _by_target(found: InfluenceResult, target: Target, prepared: Prepared) -> pd.DataFrame | None:
    """Returns the points with a column `target_ROW` of values for each target row."""
    if found.by_row is None:
        return None
    pool = prepared.require_pool()
    points = {"row": pool.rows, "smiles": pool.examples.smiles, "label": pool.examples.labels}
    columns = {f"target_{row}": found.by_row[:, i] for i, row in enumerate(target.rows)}
    return pd.DataFrame(points | columns)


def selection_table(prepared: Prepared, scores: PointScores, selection: Selection) -> pd.DataFrame:
    """Returns the value table of the pool with a selection by value marked."""
    pool = prepared.require_pool()
    selected = selection.select(scores, len(pool), np.random.default_rng(0))
    return value_table(pool.rows, pool.examples.smiles, pool.examples.labels, scores, selected)
