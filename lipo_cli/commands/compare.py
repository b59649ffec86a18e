"""`lipo compare`: selections x fine-tuning methods x seeds, with their controls."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lipo_cli.commands import options as opt
from lipo_cli.commands import training_options as tune
from lipo_cli.commands.layers import settings_from
from lipo_cli.errors import PartialFailure

if TYPE_CHECKING:
    from lipo_cli.chem.audit import AuditReport
    from lipo_cli.comparison.prepare import Prepared
    from lipo_cli.settings import CompareSettings
    from lipo_cli.tracking.store import Store

SelectionOption = Annotated[
    list[str] | None,
    typer.Option(
        "--selection",
        "-s",
        help="Which secondary points join training: none, all, random:k=K, tsds, tsds:positive, "
        "tsds:top=K, tsds:bottom=K, tsds:diverse=K/CAP (no two more similar than CAP); influence, "
        "knn or loo in the place of tsds; uncertain:top=K. Repeatable. (default: tsds)",
    ),
]
PeftOption = Annotated[
    list[str] | None,
    typer.Option(
        "--peft",
        "-p",
        help="Fine-tuning method: full, bitfit, lora, ia3. Repeatable. (default: all four)",
    ),
]
ModelsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        help="Pretrained model: `small` (shipped), a folder, or a hub name. Repeatable: the same "
        "cells with each, the differences to the first. (default: small)",
    ),
]
SeedsOption = Annotated[
    int | None,
    typer.Option("--seeds", help="Seeds per cell; one seed proves little. (default: 1)"),
]


def compare(
    selections: SelectionOption = None,
    peft: PeftOption = None,
    seeds: SeedsOption = None,
    controls: Annotated[
        bool | None,
        typer.Option(
            "--controls/--no-controls",
            help="Add none, all, and random of equal size. (default: controls)",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Write tables, figures and settings here."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the plan and its time, and stop.")
    ] = False,
    dataset: opt.DatasetOption = None,
    secondary: opt.SecondaryOption = None,
    data_dir: opt.DataDirOption = None,
    smiles_column: opt.SmilesColumnOption = None,
    label_column: opt.LabelColumnOption = None,
    on_invalid: opt.OnInvalidOption = None,
    duplicates: opt.DuplicatesOption = None,
    split: opt.SplitOption = None,
    split_seed: opt.SplitSeedOption = None,
    fractions: opt.FractionsOption = None,
    split_file: opt.SplitFileOption = None,
    keep_stereo_groups: opt.KeepStereoGroupsOption = None,
    models: ModelsOption = None,
    epochs: tune.Epochs = None,
    batch_size: tune.BatchSize = None,
    learning_rate: tune.LearningRate = None,
    patience: tune.Patience = None,
    randomise: tune.Randomise = None,
    averaging: tune.Averaging = None,
    tta: tune.Tta = None,
    max_length: tune.MaxLength = None,
    lora_rank: tune.LoraRank = None,
    precision: tune.Precision = None,
    device: tune.Device = None,
    config: tune.ConfigFile = None,
    store: opt.StoreOption = opt.DEFAULT_STORE,
    as_json: opt.JsonOption = False,
) -> None:
    """Find out whether chosen secondary points help, against controls, with every method.

    Each cell fine-tunes the pretrained model on primary train plus the chosen points. Finished
    cells are found again: the same command after an interruption computes only what is missing.
    """
    flags = locals()
    if models:
        flags |= {"model": models[0], "models": models if len(models) > 1 else ()}
    from lipo_cli.commands.compare_output import show_plan
    from lipo_cli.commands.dataset_lines import announce
    from lipo_cli.comparison.plan import make_plan
    from lipo_cli.comparison.prepare import prepare, resolved
    from lipo_cli.settings import CompareSettings

    if out is not None and not dry_run:
        opt.prepare_out(out, folder=True)
    settings = settings_from(CompareSettings, config, flags)
    make_plan(settings)  # a misspelt selection is found here, before any data are read
    prepared = prepare(settings.data)
    settings = resolved(settings, prepared)
    audit = announce(prepared)
    if dry_run:
        show_plan(settings, prepared, as_json=as_json)
        return
    report = _run(settings, prepared, store, out, audit, as_json=as_json)
    if failed := sum(cell["status"] == "failed" for cell in report["cells"]):
        raise PartialFailure(
            f"{failed} of {len(report['cells'])} cells failed",
            hint="the table shows why; the same command computes only these again",
        )


def _run(
    settings: CompareSettings,
    prepared: Prepared,
    root: Path,
    out: Path | None,
    audit: AuditReport | None,
    *,
    as_json: bool,
) -> dict[str, Any]:
    from lipo_cli.commands.compare_command import command_of
    from lipo_cli.commands.compare_output import as_dict, show_result, write_result
    from lipo_cli.commands.compare_view import CompareView
    from lipo_cli.commands.console import emit_json, say
    from lipo_cli.comparison.engine import cells_table, compare, comparison_fingerprint
    from lipo_cli.comparison.report_html import write_report
    from lipo_cli.comparison.report_record import write_record
    from lipo_cli.tracking.comparisons import RESULT_FOLDER
    from lipo_cli.tracking.environment import environment
    from lipo_cli.tracking.ledger import MlflowLedger
    from lipo_cli.tracking.registry import AUDIT_TAGS
    from lipo_cli.tracking.store import open_store

    store = open_store(root)
    ledger = MlflowLedger(store, settings.experiment)
    fingerprint = comparison_fingerprint(settings, prepared)
    sound = audit is None or audit.level != "fail"
    tags = {"dataset": prepared.dataset.name, "split": prepared.split.name}
    if audit is not None:
        tags |= dict(zip(AUDIT_TAGS, (audit.level, audit.one_line), strict=True))
    name = f"{'+'.join(settings.selections)} x {'+'.join(settings.peft)}"
    if settings.models:
        name += f" x {'+'.join(Path(model).name for model in settings.models)}"
    with (
        ledger.record("comparison", name, fingerprint, settings, tags) as record,
        CompareView(settings.training.epochs) as view,
    ):
        result = compare(settings, prepared, ledger, view, pool_is_sound=sound)
        result.run_id = record.run_id
        folder = out or results_folder(store, fingerprint)
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
        record.table(cells_table(result.cells), "cells")
        best = result.best.val_rmse if result.best is not None else None
        record.metrics({"champion_val_rmse": best, "failed_cells": result.n_failed})
        page = write_report(folder)
        record.file(page)
    report = as_dict(result)
    if as_json:
        emit_json(report)
    else:
        show_result(result, settings)
    if not sound:
        say("the secondary set failed its audit: no model trained on any of it becomes champion")
    say(f"the report: {page}; tables, figures and settings beside it")
    say(f"in MLflow: experiment {settings.experiment}, run {record.run_id} (`lipo ui`)")
    return report


def results_folder(store: Store, fingerprint: str) -> Path:
    """Returns where a comparison's files go when the user names no folder."""
    return (store.root or Path("lipo-results")) / "results" / fingerprint
