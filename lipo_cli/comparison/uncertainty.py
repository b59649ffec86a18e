"""What a model's predictions and their spread come to: errors, and intervals that are measured."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lipo_cli.comparison.metrics import regression_metrics
from lipo_cli.comparison.prepare import Prepared
from lipo_cli.model.calibration import Calibration, calibrate, coverage, error_by_fifth
from lipo_cli.model.ensemble import Ensemble, spread
from lipo_cli.model.regressor import Regressor

Floats = NDArray[np.float64]


def predict_parts(model: Regressor | Ensemble, prepared: Prepared) -> pd.DataFrame:
    """Returns predictions of validation and test.

    Columns: part, row, smiles, measured, predicted, and spread, the standard deviation over
    members and SMILES (0 where there is one of each).
    """
    frames = []
    for part in ("val", "test"):
        positions = prepared.split.part(part)
        frame = prepared.dataset.primary.frame.iloc[positions]
        examples = prepared.part(part)
        views = model.predict_views(examples.smiles)
        frames.append(
            pd.DataFrame(
                {
                    "part": part,
                    "row": frame["row"].to_numpy(),
                    "smiles": examples.smiles,
                    "measured": examples.labels,
                    "predicted": model.average(views),
                    "spread": spread(views, model.weights(views.shape[1])),
                }
            )
        )
    return pd.concat(frames, ignore_index=True)


def calibration_of(predictions: pd.DataFrame) -> Calibration | None:
    """Returns the interval that the validation rows give; None where they are too few."""
    predicted, measured, spreads = _columns(predictions, "val")
    return calibrate(predicted, measured, spreads)


def measured_numbers(
    predictions: pd.DataFrame, calibration: Calibration | None
) -> dict[str, float | None]:
    """Returns val_rmse, and of the test rows rmse, mae, r2, spearman and the interval's quality.

    `test_coverage` is the share of measured values inside their interval, `test_interval` its mean
    width, `test_error_ratio` the RMS error of the most uncertain fifth over that of the least; None
    where there is no calibration, or no spread to sort by.
    """
    predicted, measured, _ = _columns(predictions, "val")
    numbers: dict[str, float | None] = {"val_rmse": regression_metrics(predicted, measured)["rmse"]}
    predicted, measured, spreads = _columns(predictions, "test")
    found = regression_metrics(predicted, measured)
    numbers |= {f"test_{name}": found[name] for name in ("rmse", "mae", "r2", "spearman")}
    numbers |= dict.fromkeys(("test_coverage", "test_interval", "test_error_ratio"))
    if calibration is not None:
        low, high = calibration.interval(predicted, spreads)
        numbers["test_coverage"] = coverage(low, high, measured)
        numbers["test_interval"] = float(np.mean(high - low))
        if np.ptp(spreads) > 0:
            numbers["test_error_ratio"] = error_by_fifth(predicted - measured, spreads)
    return numbers


def _columns(predictions: pd.DataFrame, part: str) -> tuple[Floats, Floats, Floats]:
    rows = predictions[predictions["part"] == part]
    predicted, measured, spreads = (
        rows[name].to_numpy(np.float64) for name in ("predicted", "measured", "spread")
    )
    return predicted, measured, spreads
