"""One cell: fine-tune on primary train and the chosen points, measure on validation and test."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lipo_cli.comparison.cell_record import log_inputs, read_result, record_fit
from lipo_cli.comparison.cell_result import CellResult
from lipo_cli.comparison.ledger import Ledger, code_version
from lipo_cli.comparison.plan import Cell
from lipo_cli.comparison.prepare import Prepared, digest, rows_digest
from lipo_cli.comparison.uncertainty import calibration_of, measured_numbers, predict_parts
from lipo_cli.model.adapters import DEFAULT_LAYER_DECAY, DEFAULT_LEARNING_RATE
from lipo_cli.model.base import resolve_base
from lipo_cli.model.precision import has_bf16, pick_device
from lipo_cli.model.regressor import Regressor
from lipo_cli.progress import Progress
from lipo_cli.settings import Peft, Settings, TrainingSettings
from lipo_cli.training.examples import Examples
from lipo_cli.training.finetune import FitResult, fit


class CellSettings(Settings):
    """The parameters of a cell's run."""

    selection: str
    peft: Peft
    seed: int
    dataset: str
    split: str
    training: TrainingSettings


def cell_fingerprint(
    cell: Cell, rows: NDArray[np.int64], prepared: Prepared, training: TrainingSettings
) -> str:
    """Names everything that decides a cell: settings, molecules, their rows, base, code.

    By which selection points were chosen decides nothing: two that choose the same share the cell.
    """
    resolved = effective(cell.training(training), cell.peft, added=len(rows) > 0)
    return resolved.fingerprint(
        peft=cell.peft,
        seed=cell.seed,
        dataset=prepared.dataset.name,
        split=prepared.split.name,
        train=digest(training_examples(prepared, rows)),
        validation=digest(prepared.validation),
        test=digest(prepared.part("test")),
        # The record keeps predictions by row: the molecules elsewhere in a file are others.
        rows=rows_digest(prepared.dataset.primary.frame["row"].to_numpy(np.int64)),
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
    added = cell.choice.selection.rule != "none"
    return CellSettings(
        selection=cell.choice.name,
        peft=cell.peft,
        seed=cell.seed,
        dataset=prepared.dataset.name,
        split=prepared.split.name,
        training=effective(cell.training(training), cell.peft, added=added),
    )


def epoch_size(prepared: Prepared, training: TrainingSettings) -> int | None:
    """Returns the rows of an epoch where all models take equal steps, else None."""
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
        return read_result(cell, found)
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
    return CellResult.of(
        cell,
        "finished",
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
