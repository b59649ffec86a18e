"""Influence on a comparison's fitted model: its target, its values, and what is said of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from lipo_cli.comparison.fitted import Fitted
from lipo_cli.comparison.prepare import Prepared
from lipo_cli.comparison.targets import Target
from lipo_cli.progress import Progress
from lipo_cli.settings import InfluenceSettings
from lipo_cli.valuation.ekfac import EkfacResult
from lipo_cli.valuation.gradients import OutputGradients
from lipo_cli.valuation.influence import InfluenceResult, Molecules, influence
from lipo_cli.valuation.ridge_game import RidgeGame


def influence_values(
    fitted: Fitted,
    prepared: Prepared,
    target: Target,
    game: RidgeGame,
    settings: InfluenceSettings,
    listener: Progress,
) -> InfluenceResult:
    """Values the pool by influence; parts by fold are those that the game's rows may see.

    Args:
        fitted: The model, and what it has embedded.
        prepared: Dataset, split and pool.
        target: The rows whose loss is to fall.
        game: The game whose rows judge the removal curve.
        settings: Curvature, solver, damping.
        listener: Told of gradients and products.

    Raises:
        ValuationError: a gradient is not finite, or the system cannot be solved.
    """
    train, points = prepared.train, prepared.require_pool().examples
    found = influence(
        OutputGradients(fitted.regressor, settings.part, fitted.by_molecule()),
        Molecules(train.smiles, train.labels),
        Molecules(target.examples.smiles, target.examples.labels),
        Molecules(points.smiles, points.labels),
        settings,
        fold_of=target.fold_of(game),
        n_folds=game.n_folds,
        by_row=target.by_row,
        progress=listener,
    )
    if not target.apart:
        return found
    # No row that judges had a say: every fold may see all of the values.
    same = np.repeat(found.values[:, None] / game.n_folds, game.n_folds, axis=1)
    return replace(found, fold_values=same)


def influence_figures(found: InfluenceResult) -> dict[str, float]:
    """Returns numbers about the computation."""
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
    if isinstance(found, EkfacResult):
        figures["n_parameters_left_out"] = float(sum(count for _, count in found.left_out))
    return figures


def values_by_target(
    found: InfluenceResult, target: Target, prepared: Prepared
) -> pd.DataFrame | None:
    """Returns the points with a column `target_ROW` of values for each target row, if named."""
    if found.by_row is None:
        return None
    pool = prepared.require_pool()
    points = {"row": pool.rows, "smiles": pool.examples.smiles, "label": pool.examples.labels}
    columns = {f"target_{row}": found.by_row[:, i] for i, row in enumerate(target.rows)}
    return pd.DataFrame(points | columns)
