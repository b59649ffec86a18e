"""Scores the secondary pool: embeddings of the reference model, ridge proxy, TS-DShapley."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from lipo_cli.comparison.prepare import Prepared
from lipo_cli.model.regressor import Regressor
from lipo_cli.progress import Progress, SilentProgress
from lipo_cli.settings import TsdsSettings
from lipo_cli.valuation.analysis import analyse_tsds
from lipo_cli.valuation.selection import PointScores, Selection
from lipo_cli.valuation.table import value_table


@dataclass(frozen=True)
class Scored:
    """The values of the pool and what they rest on.

    Attributes:
        scores: Values, standard errors and the number that the removal curve keeps.
        table: The value table with the optimal selection marked.
        curve: The cross-fitted removal curve.
        figures: Numbers about the computation (permutations, ridge, relative error, ...).
        sentence: What the removal curve says, in one line.
        reason: Why the sampling stopped.
        converged: Whether the standard errors became as small as asked for.
    """

    scores: PointScores
    table: pd.DataFrame
    curve: pd.DataFrame
    figures: dict[str, float] = field(default_factory=dict)
    sentence: str = ""
    reason: str = ""
    converged: bool = True


def score_tsds(
    regressor: Regressor,
    prepared: Prepared,
    settings: TsdsSettings,
    progress: Progress | None = None,
) -> Scored:
    """Values every point of the pool by TS-DShapley (Schoch et al. 2023) on a ridge proxy.

    The features are mean-pooled embeddings of the reference model, standardised and projected by
    what primary train alone says. The target is the validation split; the test split is not read.

    Args:
        regressor: The reference model, fine-tuned on primary train.
        prepared: Dataset, split and pool.
        settings: Game, proxy and stopping.
        progress: Told of embedding and permutations.

    Raises:
        DataError: there is no pool.
        ValuationError: a score is not finite.
    """
    listener = progress or SilentProgress()
    pool = prepared.require_pool()
    train, validation = prepared.train, prepared.validation
    listener.start("embedding", 3, "sets")
    embedded = []
    for part in (train, validation, pool.examples):
        embedded.append(regressor.embed(part.smiles))
        listener.advance(1)
    listener.finish()
    analysis = analyse_tsds(
        embedded[0],
        train.labels,
        embedded[2],
        pool.examples.labels,
        embedded[1],
        validation.labels,
        settings,
        listener,
    )
    result, optimal = analysis.result, analysis.optimal
    scores = PointScores(result.values, result.standard_error, optimal.n_kept)
    return Scored(
        scores=scores,
        table=selection_table(prepared, scores, Selection("optimal")),
        curve=optimal.curve,
        figures={
            "n_points": float(len(pool)),
            "n_optimal": float(optimal.n_kept),
            "n_positive": float((result.values > 0).sum()),
            "n_permutations": float(result.n_permutations),
            "n_components": float(analysis.projection.components.shape[1]),
            "ridge": float(analysis.ridge),
            "converged": float(result.converged),
            "value_spread": float(result.values.std()),
            "median_standard_error": float(np.median(result.standard_error)),
            "proxy_val_rmse_none": analysis.proxy_rmse_none,
            "proxy_val_rmse_all": analysis.proxy_rmse_all,
        },
        sentence=optimal.sentence(),
        reason=result.reason,
        converged=result.converged,
    )


def selection_table(prepared: Prepared, scores: PointScores, selection: Selection) -> pd.DataFrame:
    """Returns the value table of the pool with a selection by value marked."""
    pool = prepared.require_pool()
    selected = selection.select(scores, len(pool), np.random.default_rng(0))
    return value_table(pool.rows, pool.examples.smiles, pool.examples.labels, scores, selected)
