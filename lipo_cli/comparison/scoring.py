"""Scores the secondary pool: embeddings of the reference model, a ridge proxy, and a method."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from lipo_cli.chem.fingerprints import highest_tanimoto, morgan_bits
from lipo_cli.comparison.ledger import Finished
from lipo_cli.comparison.prepare import Prepared
from lipo_cli.model.regressor import Regressor
from lipo_cli.progress import Progress, SilentProgress
from lipo_cli.settings import ScoringMethod, ValuationSettings
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
    record: Finished | None = None


def score_pool(
    method: ScoringMethod,
    regressor: Regressor,
    prepared: Prepared,
    settings: ValuationSettings,
    progress: Progress | None = None,
) -> Scored:
    """Values every point of the pool, and reads off a removal curve how many to keep.

    The proxy's features are mean-pooled embeddings of the reference model, standardised and
    projected by what primary train alone says; the curve is that of the proxy whatever the method.
    The target is the validation split; the test split is not read.

    Args:
        method: `tsds`, `influence`, `knn` or `loo`.
        regressor: The reference model, fine-tuned on primary train.
        prepared: Dataset, split and pool.
        settings: Game, proxy, and those of the method.
        progress: Told of embedding, permutations, gradients and products.

    Raises:
        DataError: there is no pool.
        ValuationError: a score is not finite, or the method cannot be carried out.
    """
    listener = progress or SilentProgress()
    proxy = _proxy(regressor, prepared, settings, listener)
    if method == "tsds":
        analysis = analyse_proxy(proxy, settings.tsds, listener)
        valued: TsdsResult | RowValues | InfluenceResult = analysis.result
        optimal, figures = analysis.optimal, _sampling_figures(analysis.result)
        reason, converged = analysis.result.reason, analysis.result.converged
    else:
        valued, figures, reason = _closed_form(
            method, regressor, prepared, proxy, settings, listener
        )
        optimal = optimal_subset(proxy.game, valued)
        converged = valued.converged if isinstance(valued, InfluenceResult) else True
    scores = PointScores(valued.values, valued.standard_error, optimal.n_kept)
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
    method: ScoringMethod,
    regressor: Regressor,
    prepared: Prepared,
    proxy: Proxy,
    settings: ValuationSettings,
    listener: Progress,
) -> tuple[RowValues | InfluenceResult, dict[str, float], str]:
    """Returns values, numbers and a sentence of a method that draws no permutations."""
    if method == "loo":
        return leave_one_out_values(proxy), {}, "closed form on the ridge proxy"
    if method == "knn":
        k = settings.knn.neighbours
        return (
            knn_values(proxy, settings.knn, listener),
            {"neighbours": float(k)},
            (f"exact for the mean of {k} nearest neighbours"),
        )
    train, validation = prepared.train, prepared.validation
    points = prepared.require_pool().examples
    found = influence(
        OutputGradients(regressor, settings.influence.part),
        Molecules(train.smiles, train.labels),
        Molecules(validation.smiles, validation.labels),
        Molecules(points.smiles, points.labels),
        settings.influence,
        fold_of=proxy.game.fold_of,
        progress=listener,
    )
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
    return found, figures, found.sentence()


def selection_table(prepared: Prepared, scores: PointScores, selection: Selection) -> pd.DataFrame:
    """Returns the value table of the pool with a selection by value marked."""
    pool = prepared.require_pool()
    selected = selection.select(scores, len(pool), np.random.default_rng(0))
    return value_table(pool.rows, pool.examples.smiles, pool.examples.labels, scores, selected)
