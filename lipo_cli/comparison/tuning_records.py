"""What a tuning and its trials leave in the ledger."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from lipo_cli.comparison.cell_record import curve_names
from lipo_cli.comparison.cells import CellSettings
from lipo_cli.comparison.ledger import Recorder
from lipo_cli.comparison.tuning_figures import draw_tuning
from lipo_cli.comparison.tuning_result import IMPORTANCE, Tuned
from lipo_cli.comparison.tuning_space import described
from lipo_cli.comparison.tuning_trial import TrialResult
from lipo_cli.settings_tuning import TuningSettings


class TrialSettings(CellSettings):
    """The parameters of a trial's run."""

    trial: int
    """Its place in the search, from 1."""


class StudySettings(CellSettings):
    """The parameters of a tuning's run."""

    tuning: TuningSettings
    storage: str


def log_trial(
    record: Recorder, trial: TrialResult, rows: Sequence[Mapping[str, float]] = ()
) -> None:
    """Keeps how a trial ended, and its curve: the rows of the training where they are at hand."""
    curve = rows or [{"epoch": epoch, "val_rmse": value} for epoch, value in trial.curve.items()]
    record.history([curve_names(row) for row in curve])
    record.metrics({"val_rmse": trial.val_rmse, "seconds": trial.seconds})
    record.tags({"state": trial.state, **({"reason": trial.error} if trial.error else {})})


def log_study(record: Recorder, result: Tuned, label: str) -> None:
    """Keeps what a tuning found, its table and its figures.

    Args:
        record: Its record.
        result: What it came to.
        label: The property and its unit, for axes.
    """
    record.table(result.table(), "trials")
    with tempfile.TemporaryDirectory() as scratch:
        for path in draw_tuning(result, Path(scratch), label):
            record.figure(path)
    best = result.best
    record.metrics(
        {
            "val_rmse": best.val_rmse,
            "first_val_rmse": result.first.val_rmse,
            "best_trial": best.ordinal + 1,
            "seconds": result.seconds,
            **{f"n_{state}": result.count(state) for state in ("complete", "pruned", "diverged")},
            **{IMPORTANCE + name: share for name, share in result.importance.items()},
        }
    )
    record.tags({"found": described(best.parameters), "result": result.sentence()})
