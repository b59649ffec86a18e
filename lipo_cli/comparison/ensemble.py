"""An ensemble: the same cell with several seeds, predicting together.

Each member is a cell with a run of its own, found again where it is finished; the ensemble is one
more run that holds their mean, its intervals and the model to predict with.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lipo_cli.comparison.cell_record import log_inputs
from lipo_cli.comparison.cell_result import CellResult
from lipo_cli.comparison.cells import (
    CellSettings,
    cell_fingerprint,
    cell_settings,
    run_cell,
    training_examples,
)
from lipo_cli.comparison.ledger import Ledger, Recorder, code_version
from lipo_cli.comparison.plan import Cell
from lipo_cli.comparison.prepare import Prepared
from lipo_cli.comparison.uncertainty import calibration_of, measured_numbers, predict_parts
from lipo_cli.model.ensemble import SHARES, Ensemble, Member, kernel_share
from lipo_cli.model.kernel import RECIPE, KernelReadout
from lipo_cli.model.regressor import Regressor
from lipo_cli.progress import Progress
from lipo_cli.settings import Settings, TrainingSettings

_NUMBERS = (
    "val_rmse",
    "test_rmse",
    "test_mae",
    "test_r2",
    "test_spearman",
    "test_coverage",
    "test_interval",
    "test_error_ratio",
    "kernel_share",
)


class EnsembleSettings(Settings):
    """The parameters of an ensemble's run."""

    member: CellSettings
    members: int
    kernel: str | None = None
    """The recipe of the kernel readout that joins."""


@dataclass(frozen=True)
class EnsembleResult:
    """What an ensemble came to; RMSE, MAE and the interval in raw label units.

    Attributes:
        members: The results of its members.
        run_id: Its own run.
        seconds: Time spent on the members and the kernel readout.
        numbers: val_rmse, test_rmse, test_mae, test_r2, test_spearman, test_coverage (of the 90 %
            interval), test_interval (its mean width), test_error_ratio, kernel_share (what the
            readout weighs, chosen on validation; 0 without one).
    """

    members: tuple[CellResult, ...]
    run_id: str
    seconds: float
    numbers: dict[str, float | None]
    predictions: pd.DataFrame = field(repr=False)

    def as_dict(self) -> dict[str, Any]:
        """Returns the numbers, as `--json` prints them."""
        own = {k: v for k, v in asdict(self).items() if k in ("run_id", "seconds")}
        return {**own, **self.numbers, "members": [m.as_dict() for m in self.members]}


class Watcher(Progress, Protocol):
    """Shows cells while they are trained."""

    def started(self, cell: Cell) -> None:
        """Told before a cell is trained."""

    def epoch(self, cell: Cell, row: dict[str, float]) -> None:
        """Told of each row of a cell's curve."""

    def finished(self, cell: Cell, result: CellResult) -> None:
        """Told what a cell came to."""


def run_members(
    cells: Sequence[Cell],
    rows: NDArray[np.int64],
    prepared: Prepared,
    training: TrainingSettings,
    ledger: Ledger,
    watcher: Watcher,
) -> list[CellResult]:
    """Trains cells one after the other, or finds them.

    Args:
        cells: Cells that differ by their seed.
        rows: Positions in the pool to add to primary train.
        prepared: Dataset, split and pool.
        training: How to fine-tune.
        ledger: Where results are kept.
        watcher: Told of everything.

    Raises:
        TrainingError: a training diverged.
    """
    members = []
    for cell in cells:
        watcher.started(cell)
        result = run_cell(
            cell,
            rows,
            prepared,
            training,
            ledger,
            progress=watcher,
            on_epoch=partial(watcher.epoch, cell),
        )
        watcher.finished(cell, result)
        members.append(result)
    return members


def combine(
    cells: Sequence[Cell],
    members: Sequence[CellResult],
    rows: NDArray[np.int64],
    prepared: Prepared,
    training: TrainingSettings,
    ledger: Ledger,
    *,
    kernel: bool = False,
) -> EnsembleResult:
    """Measures the mean of finished cells and keeps it as a model, or finds it.

    Args:
        cells: Cells that differ by their seed.
        members: What they came to.
        rows: Positions in the pool that joined primary train.
        prepared: Dataset, split and pool.
        training: How they were fine-tuned.
        ledger: Where results are kept.
        kernel: Whether a kernel readout of the pretrained encoder joins.
    """
    seconds = sum(member.seconds or 0.0 for member in members)
    first = cells[0]
    own = cell_settings(first, prepared, training)
    settings = EnsembleSettings(
        member=own, members=len(cells), kernel=f"{RECIPE} shares={SHARES}" if kernel else None
    )
    parts = [cell_fingerprint(cell, rows, prepared, training) for cell in cells]
    fingerprint = settings.fingerprint(parts=parts, code=code_version(("ensemble",)))
    if (found := ledger.find(fingerprint)) is not None:
        numbers = {name: found.metrics.get(name) for name in _NUMBERS}
        predictions = pd.read_parquet(found.artifact("tables/predictions.parquet"))
        seconds = found.metrics.get("seconds", seconds)
        return EnsembleResult(tuple(members), found.run_id, seconds, numbers, predictions)
    tags = {
        "selection": first.choice.name,
        "peft": first.peft,
        "dataset": prepared.dataset.name,
        "split": prepared.split.name,
        "scope": prepared.scope(),
        "members": ",".join(str(member.run_id) for member in members),
    }
    name = f"{first.choice.name} {first.peft} x{len(cells)}{' + kernel' if kernel else ''}"
    with ledger.record("ensemble", name, fingerprint, settings, tags) as record:
        log_inputs(record, prepared, rows)
        started = time.monotonic()
        readout = None
        if kernel:
            examples = training_examples(prepared, rows)
            shared = first.training(training)
            readout = KernelReadout.fit(shared, examples.smiles, examples.labels)
            seconds += time.monotonic() - started
        numbers, predictions = _measured(
            members, readout, prepared, ledger, record, device=training.device
        )
        record.metrics({**numbers, "seconds": seconds})
        return EnsembleResult(tuple(members), record.run_id, seconds, numbers, predictions)


def _measured(
    members: Sequence[CellResult],
    readout: KernelReadout | None,
    prepared: Prepared,
    ledger: Ledger,
    record: Recorder,
    *,
    device: str,
) -> tuple[dict[str, float | None], pd.DataFrame]:
    folders = [ledger.regressor_folder(str(member.run_id)) for member in members]
    networks: list[Member] = [Regressor.load(folder, device=device) for folder in folders]
    ensemble = Ensemble(networks)
    if readout is not None:
        validation = prepared.validation
        share = kernel_share(
            ensemble.predict(validation.smiles),
            readout.predict(validation.smiles),
            validation.labels,
        )
        if share > 0:  # else it is no member, and costs nothing at prediction
            ensemble = Ensemble([*networks, readout], kernel_share=share)
    predictions = predict_parts(ensemble, prepared)
    calibration = calibration_of(predictions)
    numbers = measured_numbers(predictions, calibration)
    numbers["kernel_share"] = ensemble.manifest["kernel_share"]
    ensemble.manifest |= {
        "dataset": prepared.dataset.name,
        "scope": prepared.scope(),
        "val_rmse": numbers["val_rmse"],
    }
    if calibration is not None:
        ensemble.manifest["calibration"] = calibration.as_dict()
    record.table(predictions, "predictions")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "regressor"
        ensemble.save(folder)
        record.model(folder, prepared.train.smiles[:3])
    return numbers, predictions
