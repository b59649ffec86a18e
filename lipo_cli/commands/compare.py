"""`lipo compare`: selections x fine-tuning methods x seeds, with their controls."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lipo_cli.commands import options as opt
from lipo_cli.commands import training_options as tune
from lipo_cli.commands import tuning_options as tuning
from lipo_cli.commands.layers import settings_from
from lipo_cli.errors import PartialFailure, SettingsError

if TYPE_CHECKING:
    from lipo_cli.chem.audit import AuditReport
    from lipo_cli.comparison.budget import Budgeted
    from lipo_cli.comparison.engine import Comparison
    from lipo_cli.comparison.prepare import Prepared
    from lipo_cli.settings import CompareSettings
    from lipo_cli.tracking.ledger import MlflowLedger
    from lipo_cli.tracking.store import Store

SelectionOption = Annotated[
    list[str] | None,
    typer.Option(
        "--selection",
        "-s",
        help="Which secondary points join training: none, all, random:k=K, tsds, tsds:positive, "
        "tsds:top=K, tsds:bottom=K, tsds:diverse=K/CAP (no two more similar than CAP); influence, "
        "knn or loo in the place of tsds; uncertain:top=K. Repeatable. "
        "(default: tsds, influence and knn)",
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
PresetOption = Annotated[
    str | None,
    typer.Option(
        "--preset",
        metavar="NAME",
        help="A recipe: quick (two minutes), reference (the published grid by our protocol), seed "
        "(the published tables by their recipe, beside their numbers). It wins over lipo.toml; "
        "--config and flags win over it.",
    ),
]
BudgetOption = Annotated[
    float | None,
    typer.Option(
        "--budget",
        metavar="MINUTES",
        help="Run what fits into this time by the rate measured here: fewer seeds, then methods, "
        "then selections; the controls stay. What was left out is said.",
    ),
]


SplitsOption = Annotated[
    int | None,
    typer.Option(
        "--splits",
        help="Repeat everything on this many splits, of seeds from --split-seed on; needs --split "
        "random or scaffold_balanced. (default: 1)",
    ),
]


def compare(
    selections: SelectionOption = None,
    peft: PeftOption = None,
    seeds: SeedsOption = None,
    splits: SplitsOption = None,
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
    trials: tuning.Trials = None,
    also: tuning.Also = None,
    tune_storage: tuning.Storage = None,
    preset: PresetOption = None,
    budget: BudgetOption = None,
    config: tune.ConfigFile = None,
    store: opt.StoreOption = opt.DEFAULT_STORE,
    as_json: opt.JsonOption = False,
) -> None:
    """Find out whether chosen secondary points help, against controls, with every method.

    Each cell fine-tunes the pretrained model on primary train plus the chosen points. Finished
    cells are found again: the same command after an interruption computes only what is missing.
    With --tune, each method is tuned once, on the control `none` with the first seed, and all its
    cells are trained with what was found.
    """
    flags = locals()
    if models:
        flags |= {"model": models[0], "models": models if len(models) > 1 else ()}
    from lipo_cli.commands.compare_output import show_plan
    from lipo_cli.commands.dataset_lines import announce
    from lipo_cli.comparison.plan import make_plan
    from lipo_cli.comparison.prepare import prepare, resolved
    from lipo_cli.presets import read_preset
    from lipo_cli.settings import CompareSettings

    recipe = read_preset(preset) if preset is not None else None
    if out is not None and not dry_run:
        opt.prepare_out(out, folder=True)
    if budget is not None and not budget > 0:
        raise SettingsError(f"{budget:g} minutes are no time", where="--budget")
    if recipe is not None and recipe.tasks:
        if budget is not None:
            raise SettingsError(
                f"the preset '{recipe.name}' runs whole tables",
                where="--budget",
                hint="it goes on where it was stopped: no cell is computed twice",
            )
        from lipo_cli.commands.seed_preset import run_tables

        run_tables(recipe, config, flags, store, out, dry_run=dry_run, as_json=as_json)
        return
    layers = [recipe.layer] if recipe is not None else []
    settings = settings_from(CompareSettings, config, flags, *layers)
    if budget is not None and (settings.splits > 1 or settings.tuning.trials):
        raise SettingsError(
            "the time of tuning or of several splits is not planned",
            where="--budget",
            hint="leave --tune or --splits out; --dry-run tells how long they take",
        )
    make_plan(settings)  # a misspelt selection is found here, before any data are read
    database = tuning.check_tuning(settings.tuning, settings.peft, also, tune_storage)
    prepared = prepare(settings.data)
    settings = resolved(settings, prepared)
    audit = announce(prepared)
    budgeted = _budgeted(settings, prepared, budget, store, dry_run) if budget else None
    if budgeted is not None:
        settings = budgeted.settings
    if dry_run:
        show_plan(settings, prepared, budgeted, as_json=as_json)
        return
    report = _run(settings, prepared, store, out, audit, database, budgeted, as_json=as_json)
    if failed := sum(cell["status"] == "failed" for cell in report["cells"]):
        raise PartialFailure(
            f"{failed} of {len(report['cells'])} cells failed",
            hint="the table shows why; the same command computes only these again",
        )


def _budgeted(
    settings: CompareSettings, prepared: Prepared, minutes: float, root: Path, dry_run: bool
) -> Budgeted:
    """Plans what fits, and says what does not; a dry run makes no store to look into."""
    from lipo_cli.commands.console import say
    from lipo_cli.comparison.budget import fit_into
    from lipo_cli.tracking.ledger import MlflowLedger
    from lipo_cli.tracking.store import DATABASE, open_store

    if dry_run and not (root / DATABASE).is_file():
        ledger = None
    else:
        ledger = MlflowLedger(open_store(root), settings.experiment)
    budgeted = fit_into(settings, prepared, minutes, ledger)
    say(budgeted.sentence())
    return budgeted


def _run(
    settings: CompareSettings,
    prepared: Prepared,
    root: Path,
    out: Path | None,
    audit: AuditReport | None,
    database: str | None,
    budgeted: Budgeted | None,
    *,
    as_json: bool,
) -> dict[str, Any]:
    from lipo_cli.commands.compare_output import as_dict, show_result
    from lipo_cli.commands.console import emit_json, say
    from lipo_cli.tracking.ledger import MlflowLedger
    from lipo_cli.tracking.store import open_store

    ledger = MlflowLedger(open_store(root), settings.experiment)
    result, folder = run_recorded(
        settings, prepared, ledger, out, audit, budgeted=budgeted, tune_storage=database
    )
    report = as_dict(result)
    if budgeted is not None:
        report["budget"] = {**budgeted.as_dict(), "left_out": result.left_out}
    if as_json:
        emit_json(report)
    else:
        show_result(result, settings)
    if not is_sound(audit):
        say("the secondary set failed its audit: no model trained on any of it becomes champion")
    if result.left_out:
        say(f"left out, for the time: {'; '.join(result.left_out)}")
    say(f"tables, figures and settings: {folder}")
    say(f"in MLflow: experiment {settings.experiment}, run {result.run_id} (`lipo ui`)")
    return report


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

    Returns:
        The result, and the folder of its files.
    """
    from lipo_cli.commands.compare_output import write_result
    from lipo_cli.commands.compare_view import CompareView
    from lipo_cli.comparison.engine import (
        cells_table,
        compare,
        comparison_fingerprint,
        verdicts_table,
    )
    from lipo_cli.comparison.prepare import other_splits
    from lipo_cli.tracking.registry import AUDIT_TAGS

    fingerprint = comparison_fingerprint(settings, prepared)
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
        result = compare(
            settings,
            prepared,
            ledger,
            view,
            pool_is_sound=is_sound(audit),
            other_splits=other_splits(settings),
            tune_storage=tune_storage,
            offers_champion=offers_champion,
            pace=None if budgeted is None else budgeted.pace(),
        )
        result.run_id = record.run_id
        if budgeted is not None:
            result.left_out = [*budgeted.left_out, *result.left_out]
            left = "; ".join(result.left_out) or "nothing"
            record.tags({"budget_minutes": budgeted.minutes, "left_out": left})
        folder = out or results_folder(ledger.store, fingerprint)
        paths = write_result(result, settings, folder)
        for path in paths:
            if path.suffix == ".png":
                record.figure(path)
            elif path.suffix in (".json", ".csv"):
                record.file(path, "result")
        record.table(cells_table(result.cells), "cells")
        record.table(verdicts_table(result.verdicts), "verdicts")
        best = result.best.val_rmse if result.best is not None else None
        record.metrics({"champion_val_rmse": best, "failed_cells": result.n_failed})
    return result, folder


def results_folder(store: Store, fingerprint: str) -> Path:
    """Returns where a comparison's files go when the user names no folder."""
    return (store.root or Path("lipo-results")) / "results" / fingerprint
