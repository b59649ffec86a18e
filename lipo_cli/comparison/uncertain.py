"""How unsure a model is of each point: no value, but what active learning would ask for first."""

from __future__ import annotations

import math

import numpy as np

from lipo_cli.comparison.prepare import Prepared
from lipo_cli.model.ensemble import KERNEL_SHARE, spread
from lipo_cli.model.kernel import KernelReadout
from lipo_cli.model.regressor import Regressor
from lipo_cli.settings import TrainingSettings
from lipo_cli.valuation.proxy import RowValues

VIEWS = 8
"""SMILES of a molecule that the network reads."""


def spread_values(
    regressor: Regressor, prepared: Prepared, training: TrainingSettings, n_folds: int
) -> RowValues:
    """Returns the spread of an ensemble's predictions of the pool, raw label units.

    The ensemble is the reference network, reading several SMILES of a molecule, and a kernel
    readout of the pretrained encoder, fitted on primary train: those that `lipo finetune` would
    join. No label of the pool and no target row has a say, so that every fold says the same.

    Args:
        regressor: The reference model.
        prepared: Dataset, split and pool.
        training: Names the pretrained model.
        n_folds: Validation folds of the removal curve.

    Returns:
        Standard deviations. There are two predictors, hence one degree of freedom: the standard
        error of a deviation is then spread / sqrt(2), and no finer than that.

    Raises:
        ModelError: the pretrained model cannot be used.
    """
    train, pool = prepared.train, prepared.require_pool().examples
    readout = KernelReadout.fit(training, train.smiles, train.labels)
    network = regressor.predict_views(pool.smiles, views=VIEWS)
    # One column of the readout, which reads one SMILES: repeated, it would count for less.
    views = np.column_stack([network, readout.predict(pool.smiles, views=1)])
    weights = np.append((1 - KERNEL_SHARE) * regressor.weights(VIEWS), KERNEL_SHARE)
    found = spread(views, weights)
    folds = np.repeat(found[:, None] / n_folds, n_folds, axis=1)
    return RowValues(found, found / math.sqrt(2), folds)
