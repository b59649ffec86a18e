"""`lipo compare`: selections x fine-tuning methods x seeds, with their controls."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lipo_cli.commands import compare_options as own
from lipo_cli.commands import options as opt
from lipo_cli.commands import training_options as tune
from lipo_cli.commands import tuning_options as tuning
from lipo_cli.commands.layers import settings_from
from lipo_cli.errors import PartialFailure, SettingsError

if TYPE_CHECKING:
    from lipo_cli.chem.audit import AuditReport
    from lipo_cli.comparison.budget import Budgeted
    from lipo_cli.comparison.prepare import Prepared
    from lipo_cli.settings import CompareSettings


def compare(
    selections: own.Selection = None,
    peft: own.Peft = None,
    seeds: own.Seeds = None,
    splits: own.Splits = None,
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
    models: own.Models = None,
    epochs: tune.Epochs = None,
    batch_size: tune.BatchSize = None,
    learning_rate: tune.LearningRate = None,
    patience: tune.Patience = None,
    equal_steps: tune.EqualSteps = None,
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
    preset: own.Preset = None,
    budget: own.Budget = None,
    jobs: own.Jobs = 1,
    model_name: own.ModelName = None,
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
    from lipo_cli.commands.dataset_lines import announce
    from lipo_cli.comparison.plan import make_plan
    from lipo_cli.comparison.prepare import prepare, resolved
    from lipo_cli.presets import read_preset
    from lipo_cli.settings import CompareSettings

    recipe = read_preset(preset) if preset is not None else None
    if out is not None and not dry_run:
        opt.prepare_out(out, folder=True)
    if budget is not None and not 0 < budget < math.inf:
        raise SettingsError(f"{budget:g} minutes are no time", where="--budget")
    if recipe is not None and recipe.tasks:
        if budget is not None:
            raise SettingsError(
                f"the preset '{recipe.name}' runs whole tables",
                where="--budget",
                hint="it goes on where it was stopped: no cell is computed twice",
            )
        from lipo_cli.commands.seed_preset import run_tables

        run_tables(recipe, config, flags, store, out, dry_run=dry_run, jobs=jobs, as_json=as_json)
        return
    layers = [recipe.layer] if recipe is not None else []
    settings = settings_from(CompareSettings, config, flags, *layers)
    if budget is not None and (settings.splits > 1 or settings.tuning.trials):
        raise SettingsError(
            "the time of tuning or of several splits is not planned",
            where="--budget",
            hint="leave --tune or --splits out; --dry-run tells how long they take",
        )
    if budget is not None and jobs > 1:
        raise SettingsError(
            "how much faster cells are side by side is not known before",
            where="--budget",
            hint="leave --jobs out",
        )
    make_plan(settings)  # a misspelt selection is found here, before any data are read
    database = tuning.check_tuning(settings.tuning, settings.peft, also, tune_storage)
    prepared = prepare(settings.data)
    settings = resolved(settings, prepared)
    audit = announce(prepared)
    _check_models(settings)
    budgeted = _budgeted(settings, prepared, budget, store, dry_run) if budget else None
    if budgeted is not None:
        settings = budgeted.settings
    if dry_run:
        from lipo_cli.commands.compare_tables import show_plan

        show_plan(settings, prepared, budgeted, as_json=as_json)
        return
    report = _run(settings, prepared, store, out, audit, database, budgeted, jobs, as_json=as_json)
    if failed := sum(cell["status"] == "failed" for cell in report["cells"]):
        raise PartialFailure(
            f"{failed} of {len(report['cells'])} cells failed",
            hint="the table shows why; the same command computes only these again",
        )


def _check_models(settings: CompareSettings) -> None:
    """Looks for every pretrained model before the first of them is trained.

    Raises:
        ModelError: one is not there.
    """
    from lipo_cli.model.base import resolve_base

    for model in settings.models or (settings.training.model,):
        resolve_base(model)


def _budgeted(
    settings: CompareSettings, prepared: Prepared, minutes: float, root: Path, dry_run: bool
) -> Budgeted:
    """Plans what fits, and says what does not; a dry run makes no store to look into."""
    from lipo_cli.commands.console import say, warn
    from lipo_cli.comparison.budget import fit_into, without_verdict
    from lipo_cli.tracking.ledger import MlflowLedger
    from lipo_cli.tracking.store import DATABASE, open_store

    if dry_run and not (root / DATABASE).is_file():
        ledger = None
    else:
        ledger = MlflowLedger(open_store(root), settings.experiment, anywhere=True)
    budgeted = fit_into(settings, prepared, minutes, ledger)
    say(budgeted.sentence())
    if warning := without_verdict(settings, range(budgeted.settings.seeds)):
        warn(warning)
    return budgeted


def _run(
    settings: CompareSettings,
    prepared: Prepared,
    root: Path,
    out: Path | None,
    audit: AuditReport | None,
    database: str | None,
    budgeted: Budgeted | None,
    jobs: int,
    *,
    as_json: bool,
) -> dict[str, Any]:
    from lipo_cli.commands.compare_output import as_dict
    from lipo_cli.commands.compare_run import is_sound, run_recorded
    from lipo_cli.commands.compare_tables import show_result, tell_notes
    from lipo_cli.commands.console import emit_json, say, warn
    from lipo_cli.comparison.budget import without_verdict
    from lipo_cli.tracking.ledger import MlflowLedger
    from lipo_cli.tracking.store import open_store

    ledger = MlflowLedger(open_store(root), settings.experiment, anywhere=True)
    result, folder = run_recorded(
        *(settings, prepared, ledger, out, audit),
        budgeted=budgeted,
        tune_storage=database,
        jobs=jobs,
    )
    report = as_dict(result)
    if budgeted is not None:
        report["budget"] = {**budgeted.as_dict(), "left_out": result.left_out}
    if as_json:
        emit_json(report)
        tell_notes(result, settings)
    else:
        show_result(result, settings)
    if not is_sound(audit):
        say("the secondary set failed its audit: no model trained on any of it becomes champion")
    if result.left_out:
        say(f"left out, for the time: {'; '.join(result.left_out)}")
    # Planned with several seeds, and the time ran short.
    if budgeted and (warning := without_verdict(settings, {cell.seed for cell in result.cells})):
        warn(warning)
    say(f"the report: {folder / 'report.html'}; tables, figures and settings beside it")
    say(f"in MLflow: experiment {settings.experiment}, run {result.run_id} (`lipo ui`)")
    if result.refused is not None:
        raise result.refused
    return report
