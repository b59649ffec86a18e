"""A comparison with its record: the engine's result as tables, figures, report, in MLflow."""

from __future__ import annotations

from pathlib import Path

from lipo_cli.chem.audit import AuditReport
from lipo_cli.commands.cell_workers import CellWorkers
from lipo_cli.commands.compare_command import command_of
from lipo_cli.commands.compare_output import only_writer, write_result
from lipo_cli.commands.compare_view import CompareView
from lipo_cli.comparison.budget import Budgeted
from lipo_cli.comparison.engine import compare, comparison_fingerprint
from lipo_cli.comparison.note import note_of
from lipo_cli.comparison.prepare import Prepared, other_splits
from lipo_cli.comparison.report_html import write_report
from lipo_cli.comparison.report_record import write_record
from lipo_cli.comparison.result import Comparison, cells_table, verdicts_table
from lipo_cli.settings import CompareSettings
from lipo_cli.tracking.comparisons import RESULT_FOLDER
from lipo_cli.tracking.environment import environment
from lipo_cli.tracking.handle import NOTE_LIMIT, RunHandle
from lipo_cli.tracking.ledger import MlflowLedger
from lipo_cli.tracking.registry import AUDIT_TAGS
from lipo_cli.tracking.signals import deferred_signals
from lipo_cli.tracking.store import Store


def is_sound(audit: AuditReport | None) -> bool:
    """Tells whether the secondary set passed its audit, or there is none to audit."""
    return audit is None or audit.level != "fail"


def run_recorded(
    settings: CompareSettings,
    prepared: Prepared,
    ledger: MlflowLedger,
    out: Path | None,
    audit: AuditReport | None,
    *,
    offers_champion: bool = True,
    budgeted: Budgeted | None = None,
    tune_storage: str | None = None,
    jobs: int = 1,
) -> tuple[Comparison, Path]:
    """Runs a comparison, or what is left of it, and keeps its tables and figures in its record.

    Args:
        settings: Selections, methods, seeds.
        prepared: The data that they name.
        ledger: Where results are kept and found again.
        out: The folder of its files; None: one beside the store.
        audit: Of the secondary set.
        offers_champion: Whether its best model may be registered.
        budgeted: The plan that the settings are of, where there is a budget.
        tune_storage: A database for the trials of tuning; None: a journal file.
        jobs: Cells side by side.

    Returns:
        The result, and the folder of its files.
    """
    fingerprint = comparison_fingerprint(settings, prepared)
    tags = {"dataset": prepared.dataset.name, "split": prepared.split.name}
    if audit is not None:
        tags |= dict(zip(AUDIT_TAGS, (audit.level, audit.one_line), strict=True))
    name = f"{'+'.join(settings.selections)} x {'+'.join(settings.peft)}"
    if settings.models:
        name += f" x {'+'.join(Path(model).name for model in settings.models)}"
    others = other_splits(settings)  # before anything is recorded: they may be refused
    with (
        ledger.record("comparison", name, fingerprint, settings, tags) as record,
        CompareView(settings.training.epochs, jobs=jobs) as view,
    ):
        result = compare(
            settings,
            prepared,
            ledger,
            view,
            pool_is_sound=is_sound(audit),
            other_splits=others,
            tune_storage=tune_storage,
            offers_champion=offers_champion,
            pace=None if budgeted is None else budgeted.pace(),
            workers=CellWorkers(jobs) if jobs > 1 else None,
        )
        result.run_id = record.run_id
        if budgeted is not None:
            result.left_out = [*budgeted.left_out, *result.left_out]
        folder = out or results_folder(ledger.store, fingerprint)
        with only_writer(folder):
            _keep(result, settings, audit, folder, record)
        # Always: a record that a budget cut short may have been taken up and completed without one.
        minutes = "none" if budgeted is None else budgeted.minutes
        left = "; ".join(result.left_out) or "nothing"
        record.tags({"budget_minutes": minutes, "left_out": left})
    return result, folder


def _keep(
    result: Comparison,
    settings: CompareSettings,
    audit: AuditReport | None,
    folder: Path,
    record: RunHandle,
) -> None:
    """Writes the files of a result, and keeps them, its tables and its page in its record."""
    # Raised inside a callback of the drawing's garbage, a Ctrl-C would be lost.
    with deferred_signals():
        paths = write_result(result, settings, folder)
    figures = [path for path in paths if path.suffix == ".png"]
    command = command_of(settings)
    paths.append(write_record(folder, result, settings, audit, environment(), command, figures))
    for path in paths:
        if path.suffix == ".png":
            record.figure(path)
        elif path.suffix in (".json", ".csv"):
            inside = path.parent.relative_to(folder)
            record.file(path, (RESULT_FOLDER / inside).as_posix())
    record.note(note_of(result, NOTE_LIMIT))
    record.table(cells_table(result.cells), "cells")
    record.table(verdicts_table(result.verdicts), "verdicts")
    best = result.best.val_rmse if result.best is not None else None
    record.metrics({"champion_val_rmse": best, "failed_cells": result.n_failed})
    record.file(write_report(folder))


def results_folder(store: Store, fingerprint: str) -> Path:
    """Returns where a comparison's files go when the user names no folder."""
    return (store.root or Path("lipo-results")) / "results" / fingerprint
