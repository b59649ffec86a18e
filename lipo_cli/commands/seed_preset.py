"""`lipo compare --preset seed`: published tables rerun in turn, their numbers beside ours."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lipo_cli.chem.downloads import SECONDARY
from lipo_cli.commands.compare_output import as_dict, only_writer
from lipo_cli.commands.compare_run import results_folder, run_recorded
from lipo_cli.commands.console import emit_json, json_ready, say
from lipo_cli.commands.dataset_lines import announce
from lipo_cli.commands.layers import settings_from
from lipo_cli.commands.seed_output import show_tables, show_tables_plan
from lipo_cli.comparison.adaptation import adaptation_settings, adapted_folder
from lipo_cli.comparison.engine import comparison_fingerprint
from lipo_cli.comparison.prepare import Prepared, prepare, resolved
from lipo_cli.comparison.seed_figures import draw_tables
from lipo_cli.comparison.seed_tables import (
    Published,
    SideBySide,
    departures,
    read_published,
    said_of_model,
    side_by_side,
    tables_frame,
)
from lipo_cli.errors import LipoError, PartialFailure, SettingsError
from lipo_cli.presets import FOLDER, Preset
from lipo_cli.settings import CompareSettings, Settings, build
from lipo_cli.tracking.ledger import MlflowLedger
from lipo_cli.tracking.store import Store, open_store

if TYPE_CHECKING:
    from lipo_cli.chem.audit import AuditReport
    from lipo_cli.settings import PretrainSettings


class TablesSettings(Settings):
    """The parameters of the record over all tables."""

    preset: str
    adapt: dict[str, Any]
    tasks: dict[str, CompareSettings]


@dataclass
class Tables:
    """Every table, theirs and ours.

    Attributes:
        cells: Published cells beside ours, in the order of the report.
        comparisons: Ours by task, as `--json` prints a comparison.
        differences: What must be said with them, a sentence each.
        adapted: The folder of the adapted model; None where there is none.
    """

    cells: list[SideBySide] = field(default_factory=list)
    comparisons: dict[str, Any] = field(default_factory=dict)
    differences: list[str] = field(default_factory=list)
    adapted: str | None = None

    def as_dict(self, **more: object) -> dict[str, Any]:
        """Returns everything by name."""
        return {
            **more,
            "tables": [cell.as_dict() for cell in self.cells],
            "differences": self.differences,
            "adapted_model": self.adapted,
            "comparisons": self.comparisons,
        }


def run_tables(
    recipe: Preset,
    config: Path | None,
    flags: Mapping[str, Any],
    root: Path,
    out: Path | None,
    *,
    dry_run: bool,
    jobs: int,
    as_json: bool,
) -> None:
    """Runs the comparisons of a preset that has several, or what is left of them.

    Args:
        recipe: The preset.
        config: The file that `--config` named.
        flags: The parameters of the command's function.
        root: Folder of the MLflow store.
        out: Folder of the result; None: one beside the store.
        dry_run: Show the plan and its time, and stop.
        jobs: Cells side by side.
        as_json: Print JSON.

    Raises:
        PartialFailure: a cell, or a whole table, failed; the others stand.
        LipoError: nothing could be run.
    """
    published = read_published(FOLDER / f"{recipe.name}_figures.toml")
    own = {t: build(CompareSettings, recipe.layer, layer) for t, layer in recipe.tasks.items()}
    asked = {
        task: settings_from(CompareSettings, config, flags, recipe.layer, layer)
        for task, layer in recipe.tasks.items()
    }
    _check(recipe, asked, own)
    first = next(iter(asked.values()))
    prepared = prepare(first.data)
    prepared.require_pool()
    asked = {task: resolved(settings, prepared) for task, settings in asked.items()}
    adaptation = adaptation_settings(recipe.adapt, first)
    differences = [
        *published.differences,
        *(published.differences_of_data if _has_their_data(prepared) else ()),
        *_said_of_run(first, prepared, departures(asked, own)),
    ]
    audit = announce(prepared)
    if dry_run:
        show_tables_plan(asked, published, prepared, adaptation, differences, as_json=as_json)
        return
    ledger = MlflowLedger(open_store(root), first.experiment)
    tables = Tables(differences=differences)
    run_id, folder = _run(
        recipe, published, asked, adaptation, tables, prepared, ledger, audit, out, jobs
    )
    if as_json:
        emit_json(tables.as_dict(preset=recipe.name, run_id=run_id, folder=str(folder)))
    else:
        show_tables(published, tables.cells, differences)
    say(f"tables, figures and settings: {folder}")
    say(f"in MLflow: experiment {first.experiment}, run {run_id} (`lipo ui`)")
    if failed := sum(cell.error is not None for cell in tables.cells):
        raise PartialFailure(
            f"{failed} of {len(tables.cells)} cells failed",
            hint="the tables show why; the same command computes only these again",
        )


def _check(
    recipe: Preset, asked: Mapping[str, CompareSettings], own: Mapping[str, CompareSettings]
) -> None:
    """Checks that the tables are still the published ones."""
    for task, settings in asked.items():
        for name, given in (("splits", settings.splits > 1), ("tune", settings.tuning.trials)):
            if given:
                raise SettingsError(
                    f"the preset '{recipe.name}' has the published split and settings",
                    where=f"--{name}",
                    hint="--preset reference is a grid that can be changed",
                )
        for name in ("selections", "peft", "controls", "models"):
            if getattr(settings, name) != getattr(own[task], name):
                raise SettingsError(
                    f"the preset '{recipe.name}' has its own, as its tables do",
                    where=f"--{name.removesuffix('s')}" if name != "controls" else "--controls",
                    hint="--preset reference is a grid that can be changed",
                )


def _has_their_data(prepared: Prepared) -> bool:
    """Tells whether these are Lipophilicity and the published secondary set, byte for byte."""
    secondary = prepared.require_pool().table
    return prepared.dataset.name == "lipophilicity" and secondary.sha256 == SECONDARY.sha256


def _said_of_run(settings: CompareSettings, prepared: Prepared, departed: str) -> list[str]:
    """Returns what this run differs in, a sentence each."""
    lines = [
        "One seed there and here: differences of some hundredths are within the noise of "
        "retraining."
        if settings.seeds == 1
        else f"One seed there, the mean of {settings.seeds} here.",
        said_of_model(settings.training.model),
        departed,
    ]
    if prepared.dataset.name != "lipophilicity" or prepared.split.name != "reference":
        lines.append(
            f"These are {prepared.dataset.name}, split {prepared.split.name}: other molecules than "
            "theirs, so that the two columns do not compare."
        )
    return [line for line in lines if line]


def _run(
    recipe: Preset,
    published: Published,
    asked: Mapping[str, CompareSettings],
    adaptation: PretrainSettings,
    tables: Tables,
    prepared: Prepared,
    ledger: MlflowLedger,
    audit: AuditReport | None,
    out: Path | None,
    jobs: int,
) -> tuple[str, Path]:
    """Fills the tables, keeps them, and returns their record and folder."""
    parameters = TablesSettings(preset=recipe.name, adapt=recipe.adapt, tasks=dict(asked))
    fingerprint = parameters.fingerprint(
        tasks=[comparison_fingerprint(settings, prepared) for settings in asked.values()]
    )
    folder = out or results_folder(ledger.store, fingerprint)
    tags = {"dataset": prepared.dataset.name, "split": prepared.split.name, "preset": recipe.name}
    with ledger.record("tables", f"preset {recipe.name}", fingerprint, parameters, tags) as record:
        for number, (task, settings) in enumerate(asked.items(), 1):
            say(f"table {number} of {len(asked)}: {published.tables[task].title}")
            inside = None if out is None else out / task
            _one(
                task, settings, published, adaptation, tables, prepared, ledger, audit, inside, jobs
            )
        with only_writer(folder):
            for path in _write(tables, folder, recipe.name, record.run_id, prepared):
                if path.suffix == ".png":
                    record.figure(path)
                else:
                    record.file(path, "result")
        record.table(tables_frame(tables.cells), "seed_tables")
        failed = sum(cell.error is not None for cell in tables.cells)
        record.metrics({"failed_cells": failed})
    return record.run_id, folder


def _one(
    task: str,
    settings: CompareSettings,
    published: Published,
    adaptation: PretrainSettings,
    tables: Tables,
    prepared: Prepared,
    ledger: MlflowLedger,
    audit: AuditReport | None,
    folder: Path | None,
    jobs: int,
) -> None:
    """Runs one table; what makes it impossible is said in its cells and stops no other."""
    table, error, cells = published.tables[task], None, []
    if table.compares_adapted:
        try:
            tables.adapted = str(_adapt(adaptation, prepared, ledger.store))
            models = (settings.training.model, tables.adapted)
            settings = settings.model_copy(update={"models": models})
        except LipoError as failure:
            error = str(failure)
    try:
        result, _ = run_recorded(
            settings, prepared, ledger, folder, audit, offers_champion=False, jobs=jobs
        )
        cells = result.cells
        tables.comparisons[task] = as_dict(result)
    except LipoError as failure:
        error = str(failure)
    if error is not None:
        say(f"{table.title}: {error}")
    adapted = tables.adapted if table.compares_adapted else None
    tables.cells += side_by_side(task, table, cells, adapted_model=adapted, error=error)


def _adapt(adaptation: PretrainSettings, prepared: Prepared, store: Store) -> Path:
    """Adapts the model to the molecules of train and validation, or finds it adapted."""
    from lipo_cli.commands.console import RichProgress
    from lipo_cli.commands.pretrain import run_tracked
    from lipo_cli.training.stop_request import StopRequest

    folder = adapted_folder(store.root or Path("lipo-results"), adaptation, prepared).absolute()
    with StopRequest() as stop, RichProgress() as progress:
        result = run_tracked(adaptation, folder, progress, stop, store.root)
    say(f"adapted by masked tokens in {result.seconds / 60:.1f} minutes: {folder}")
    return folder


def _write(
    tables: Tables, folder: Path, preset: str, run_id: str, prepared: Prepared
) -> list[Path]:
    """Writes the tables and their figures; returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    table_file, report_file = folder / "seed_tables.csv", folder / "seed_tables.json"
    tables_frame(tables.cells).to_csv(table_file, index=False)
    content = json_ready(tables.as_dict(preset=preset, run_id=run_id))
    text = json.dumps(content, indent=1, allow_nan=False, default=str)
    report_file.write_text(text + "\n", encoding="utf-8")
    figures = draw_tables(tables.cells, folder / "figures", prepared.dataset.label_name())
    return [table_file, report_file, *figures]
