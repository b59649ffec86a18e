"""How a cell is kept, and read back: the data that went in, curve, numbers, predictions, model."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lipo_cli.comparison.cell_result import CellResult
from lipo_cli.comparison.ledger import Finished, Recorder
from lipo_cli.comparison.plan import Cell
from lipo_cli.comparison.prepare import Prepared
from lipo_cli.model.regressor import Regressor

CURVES = ("train_loss", "train_rmse", "val_rmse", "learning_rate", "seconds")
_CURVE = "curve/"
"""Curves and results share names (val_rmse): MLflow would show the last epoch as the result."""
_COUNTS = (
    "n_selected",
    "n_train",
    "n_truncated",
    "n_unknown",
    "trainable_parameters",
    "best_epoch",
)


def log_inputs(
    record: Recorder, prepared: Prepared, rows: NDArray[np.int64], *, test: bool = True
) -> None:
    """Keeps which molecules went in, with the checksums of their files."""
    primary = prepared.dataset.primary
    parts = (("train", "train"), ("val", "validation"), ("test", "test"))
    for part, context in parts if test else parts[:2]:
        frame = primary.frame.iloc[prepared.split.part(part)][["row", "smiles", "label"]]
        name = f"{prepared.dataset.name}-{part}"
        record.dataset(frame, name, primary.path.name, context, primary.sha256)
    if len(rows):
        pool = prepared.require_pool(at_least=1)
        frame = pool.table.frame.iloc[pool.positions[rows]][["row", "smiles", "label"]]
        name = f"{prepared.dataset.name}-secondary"
        record.dataset(frame, name, pool.table.path.name, "secondary", pool.table.sha256)


def record_fit(
    record: Recorder, regressor: Regressor, result: CellResult, prepared: Prepared
) -> None:
    """Keeps curve, numbers, predictions and the model of a fitted regressor."""
    numbers = {
        name: value
        for name, value in result.as_dict().items()
        if isinstance(value, int | float)
        and not isinstance(value, bool)
        and name not in ("seed", "split")
    }
    # MLflow's UI compares runs by what was kept first, unless it is told otherwise.
    first = ("val_rmse", "test_rmse")
    record.metrics({name: value for name, value in numbers.items() if name in first})
    record.metrics({name: value for name, value in numbers.items() if name not in first})
    record.history([curve_names(row) for row in result.history])
    record.table(result.predictions, "predictions")
    regressor.manifest |= {
        "dataset": prepared.dataset.name,
        "scope": prepared.scope(),
        "val_rmse": result.val_rmse,
    }
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "regressor"
        regressor.save(folder)
        record.model(folder, prepared.train.smiles[:3])


def curve_names(row: Mapping[str, float]) -> dict[str, float]:
    """Returns a row of a training curve under the names of a record's curves."""
    return {name if name == "epoch" else _CURVE + name: value for name, value in row.items()}


def read_result(cell: Cell, found: Finished) -> CellResult:
    """Reads a cell's result back from its record."""
    numbers: dict[str, Any] = {
        name: value
        for name, value in found.metrics.items()
        if name in CellResult.__dataclass_fields__
    }
    for name in _COUNTS:
        if name in numbers:
            numbers[name] = int(numbers[name])
    return CellResult.of(
        cell,
        "finished",
        run_id=found.run_id,
        reused=True,
        history=[
            {name.removeprefix(_CURVE): value for name, value in row.items()}
            for row in found.epochs([_CURVE + name for name in CURVES])
        ],
        predictions=pd.read_parquet(found.artifact("tables/predictions.parquet")),
        **numbers,
    )
