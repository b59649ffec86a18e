"""The moving average of the weights, against the sum written out."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lipo_cli.training.averaging import WeightAverage
from lipo_cli.training.examples import Examples
from lipo_cli.training.finetune import fit
from tests.fixtures.models import LABELS, SMILES, tiny_regressor

NAME = "classifier.out_proj.weight"


def test_average_is_the_recursion_by_hand(tiny: Path) -> None:
    regressor = tiny_regressor(tiny)
    average = WeightAverage(0.9)
    parameter = dict(regressor.model.named_parameters())[NAME]
    expected = None
    for step in range(1, 101):
        with torch.no_grad():
            parameter.fill_(float(step))
        average.update(regressor)
        keep = min(0.9, (1 + step) / (10 + step))
        expected = float(step) if expected is None else keep * expected + (1 - keep) * step
    assert average.weights is not None
    assert average.weights[NAME].flatten()[0].item() == pytest.approx(expected, rel=1e-5)
    assert 85 < average.weights[NAME].flatten()[0].item() < 95  # about 1 / (1 - 0.9) steps back


def test_average_is_in_the_model_while_it_is_asked_for(tiny: Path) -> None:
    regressor = tiny_regressor(tiny)
    parameter = dict(regressor.model.named_parameters())[NAME]
    average = WeightAverage(0.5)
    for value in (0.0, 1.0):
        with torch.no_grad():
            parameter.fill_(value)
        average.update(regressor)
    with average.in_place(regressor):
        inside = parameter.flatten()[0].item()
    assert 0 < inside < 1
    assert parameter.flatten()[0].item() == 1.0


def test_what_is_kept_is_the_average_of_the_best_epoch(tiny: Path) -> None:
    """The validation RMSE of the best epoch is that of the weights that are left in the model."""
    train, validation = Examples(SMILES[:9], LABELS[:9]), Examples(SMILES[9:], LABELS[9:])
    runs = {}
    for decay in (0.0, 0.9):
        regressor = tiny_regressor(
            tiny, epochs=4, batch_size=3, averaging=decay, precision="float32", learning_rate=1e-2
        )
        result = fit(regressor, train, validation, seed=0)
        error = regressor.predict(validation.smiles) - validation.labels
        assert result.best_val_rmse == pytest.approx(float((error**2).mean() ** 0.5), rel=1e-6)
        runs[decay] = result
    losses = {d: [row["train_loss"] for row in run.history] for d, run in runs.items()}
    assert losses[0.0] == losses[0.9]  # the average watches and does not steer
    assert runs[0.0].best_val_rmse != runs[0.9].best_val_rmse
