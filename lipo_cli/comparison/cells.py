"""One cell: fine-tune on primary train and the chosen points, measure on validation and test."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lipo_cli.comparison.ledger import Finished, Ledger, Recorder, code_version
from lipo_cli.comparison.plan import Cell, labelled
from lipo_cli.comparison.prepare import Prepared, digest
from lipo_cli.comparison.uncertainty import calibration_of, measured_numbers, predict_parts
from lipo_cli.model.adapters import DEFAULT_LAYER_DECAY, DEFAULT_LEARNING_RATE
from lipo_cli.model.base import resolve_base
from lipo_cli.model.precision import has_bf16, pick_device
from lipo_cli.model.regressor import Regressor
from lipo_cli.progress import Progress
from lipo_cli.settings import Peft, Settings, TrainingSettings
from lipo_cli.training.examples import Examples
from lipo_cli.training.finetune import FitResult, fit

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


class CellSettings(Settings):
    """The parameters of a cell's run."""

    selection: str
    peft: Peft
    seed: int
    dataset: str
    split: str
    training: TrainingSettings


@dataclass(frozen=True)
class CellResult:
    """What a cell came to; RMSE and MAE in raw label units.

    Attributes:
        status: `finished` or `failed`; a failed cell has an error and no numbers.
        model: The pretrained model; None where one model is compared.
        split: The seed of the split; None where one split is compared.
        reused: Whether a finished run of equal settings, data and code was found.
        history: The training curve.
        test_coverage: Share of test labels inside their 90 % interval, calibrated on validation.
        test_interval: The interval's mean width.
        test_error_ratio: RMS error of the most uncertain fifth over that of the least; None where
            a molecule is predicted once.
        predictions: Columns part, row, smiles, measured, predicted, spread of validation and test.
    """

    selection: str
    peft: Peft
    seed: int
    role: str
    status: Literal["finished", "failed"]
    model: str | None = None
    split: int | None = None
    run_id: str | None = None
    reused: bool = False
    error: str | None = None
    n_selected: int | None = None
    n_train: int | None = None
    n_truncated: int | None = None
    n_unknown: int | None = None
    trainable_parameters: int | None = None
    seconds: float | None = None
    best_epoch: int | None = None
    val_rmse: float | None = None
    test_rmse: float | None = None
    test_mae: float | None = None
    test_r2: float | None = None
    test_spearman: float | None = None
    test_coverage: float | None = None
    test_interval: float | None = None
    test_error_ratio: float | None = None
    history: list[dict[str, float]] = field(default_factory=list, repr=False)
    predictions: pd.DataFrame = field(default_factory=pd.DataFrame, repr=False)

    @property
    def label(self) -> str:
        """Names selection and model."""
        return labelled(self.selection, self.model)

    def as_dict(self) -> dict[str, Any]:
        """Returns the numbers without curve and predictions, as `--json` prints them."""
        light = replace(self, history=[], predictions=pd.DataFrame())
        return {k: v for k, v in asdict(light).items() if k not in ("history", "predictions")}


def cell_fingerprint(
    cell: Cell, rows: NDArray[np.int64], prepared: Prepared, training: TrainingSettings
) -> str:
    """Names everything that decides a cell's numbers: settings, data, chosen rows, base, code."""
    resolved = effective(cell.training(training), cell.peft, added=len(rows) > 0)
    return resolved.fingerprint(
        # Nothing chosen is the control over again: found, not trained.
        selection=str(cell.choice.selection) if len(rows) else "none",
        peft=cell.peft,
        seed=cell.seed,
        dataset=prepared.dataset.name,
        split=prepared.split.name,
        train=digest(training_examples(prepared, rows)),
        validation=digest(prepared.validation),
        test=digest(prepared.part("test")),
        base=resolve_base(resolved.model).fingerprint,
        code=code_version(),
    )


def effective(training: TrainingSettings, peft: Peft, *, added: bool = True) -> TrainingSettings:
    """Returns the settings with what `auto` and the method's defaults come to on this machine.

    Args:
        training: The settings.
        peft: The method.
        added: Whether secondary points are trained on; equal steps mean nothing without.
    """
    device = pick_device(training.device)
    rate, decay = training.learning_rate, training.layer_decay
    bf16 = training.precision == "auto" and has_bf16(device)
    return training.model_copy(
        update={
            "learning_rate": DEFAULT_LEARNING_RATE[peft] if rate is None else rate,
            "layer_decay": DEFAULT_LAYER_DECAY[peft] if decay is None else decay,
            "device": device.type,
            "precision": "bf16" if bf16 or training.precision == "bf16" else "float32",
            "equal_steps": training.equal_steps and added,
        }
    )


def cell_settings(cell: Cell, prepared: Prepared, training: TrainingSettings) -> CellSettings:
    """Returns the parameters of a cell's run."""
    return CellSettings(
        selection=cell.choice.name,
        peft=cell.peft,
        seed=cell.seed,
        dataset=prepared.dataset.name,
        split=prepared.split.name,
        training=effective(cell.training(training), cell.peft),
    )


def epoch_size(prepared: Prepared, training: TrainingSettings) -> int | None:
    """Returns the rows of an epoch where all models are to take equal steps, else None."""
    return len(prepared.train) if training.equal_steps else None


def training_examples(prepared: Prepared, rows: NDArray[np.int64]) -> Examples:
    """Returns primary train, joined by the points at these positions of the pool."""
    if len(rows) == 0:
        return prepared.train
    return prepared.train.joined(prepared.require_pool(at_least=1).examples.take(rows))


def run_cell(
    cell: Cell,
    rows: NDArray[np.int64],
    prepared: Prepared,
    training: TrainingSettings,
    ledger: Ledger,
    *,
    progress: Progress | None = None,
    on_epoch: Callable[[dict[str, float]], None] | None = None,
) -> CellResult:
    """Finds the cell's finished record, or trains, measures and records it.

    A run that was killed goes on after its last finished epoch.

    Args:
        cell: Selection, method and seed.
        rows: Positions in the pool to add to primary train.
        prepared: Dataset, split and pool.
        training: How to fine-tune.
        ledger: Where results are kept.
        progress: Told of every batch.
        on_epoch: Called with each row of the curve.

    Raises:
        TrainingError: the training diverged.
    """
    fingerprint = cell_fingerprint(cell, rows, prepared, training)
    if (found := ledger.find(fingerprint)) is not None:
        return _from_found(cell, found)
    settings = cell_settings(cell, prepared, training)
    tags = {
        "selection": cell.choice.name,
        "peft": cell.peft,
        "seed": cell.seed,
        "base": Path(settings.training.model).name,
        "role": cell.choice.role,
        "dataset": prepared.dataset.name,
        "split": prepared.split.name,
        "scope": prepared.scope(),
    }
    with ledger.record("cell", cell.name, fingerprint, settings, tags) as record:
        state = ledger.scratch / f"{fingerprint}.pt"
        regressor = Regressor.from_base(cell.peft, cell.training(training), cell.seed)
        train = training_examples(prepared, rows)
        log_inputs(record, prepared, rows)
        result = fit(
            regressor,
            train,
            prepared.validation,
            seed=cell.seed,
            epoch_size=epoch_size(prepared, training),
            progress=progress,
            resume_file=state,
            on_epoch=on_epoch,
        )
        measured = _measure(cell, regressor, result, prepared, len(rows), record.run_id)
        record_fit(record, regressor, measured, prepared)
    state.unlink(missing_ok=True)
    return measured


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


def _measure(
    cell: Cell,
    regressor: Regressor,
    result: FitResult,
    prepared: Prepared,
    n_selected: int,
    run_id: str,
) -> CellResult:
    predictions = predict_parts(regressor, prepared)
    calibration = calibration_of(predictions)
    numbers: dict[str, Any] = {**measured_numbers(predictions, calibration)}
    if calibration is not None:
        regressor.manifest["calibration"] = calibration.as_dict()
    return CellResult(
        selection=cell.choice.name,
        peft=cell.peft,
        seed=cell.seed,
        role=cell.choice.role,
        status="finished",
        model=cell.model,
        split=cell.split,
        run_id=run_id,
        n_selected=n_selected,
        n_train=len(prepared.train) + n_selected,
        n_truncated=result.n_truncated,
        n_unknown=result.n_unknown,
        trainable_parameters=regressor.parameters().trainable,
        seconds=result.seconds,
        best_epoch=result.best_epoch,
        **numbers,
        history=result.history,
        predictions=predictions,
    )


def _from_found(cell: Cell, found: Finished) -> CellResult:
    """Reads a cell's result back from its record."""
    numbers: dict[str, Any] = {
        name: value
        for name, value in found.metrics.items()
        if name in CellResult.__dataclass_fields__
    }
    for name in _COUNTS:
        if name in numbers:
            numbers[name] = int(numbers[name])
    return CellResult(
        selection=cell.choice.name,
        peft=cell.peft,
        seed=cell.seed,
        role=cell.choice.role,
        status="finished",
        model=cell.model,
        split=cell.split,
        run_id=found.run_id,
        reused=True,
        history=[
            {name.removeprefix(_CURVE): value for name, value in row.items()}
            for row in found.epochs([_CURVE + name for name in CURVES])
        ],
        predictions=pd.read_parquet(found.artifact("tables/predictions.parquet")),
        **numbers,
    )
