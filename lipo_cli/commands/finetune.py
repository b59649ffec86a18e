"""`lipo finetune`: one fine-tuned regressor, measured and tracked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from lipo_cli.commands import options as opt
from lipo_cli.commands import training_options as tune
from lipo_cli.commands import tuning_options as tuning
from lipo_cli.commands.layers import settings_from
from lipo_cli.commands.model_folder import check_model_folder, copy_model_folder

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from lipo_cli.comparison.cell_result import CellResult
    from lipo_cli.comparison.ensemble import EnsembleResult
    from lipo_cli.comparison.plan import Cell
    from lipo_cli.comparison.prepare import Prepared
    from lipo_cli.settings import FinetuneSettings


def finetune(
    peft: Annotated[
        Literal["full", "bitfit", "lora", "ia3"] | None,
        typer.Option("--peft", "-p", help="Fine-tuning method. (default: full)"),
    ] = None,
    selection: Annotated[
        str | None,
        typer.Option(
            "--selection",
            "-s",
            metavar="FILE",
            help="What `lipo select` wrote: its chosen rows join primary train.",
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Seed. (default: 0)")] = None,
    ensemble: Annotated[
        int | None,
        typer.Option(
            "--ensemble",
            metavar="N",
            help="Train this many seeds and predict with their mean. (default: 1)",
        ),
    ] = None,
    kernel: Annotated[
        bool | None,
        typer.Option(
            "--kernel/--no-kernel",
            help="Let a kernel readout of the pretrained encoder and of fingerprints predict "
            "with them: half a minute more, and the largest gain that was measured. "
            "(default: with --ensemble)",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Save the fitted regressor here, too."),
    ] = None,
    dataset: opt.DatasetOption = None,
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
    model: tune.Model = None,
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
    config: tune.ConfigFile = None,
    store: opt.StoreOption = opt.DEFAULT_STORE,
    as_json: opt.JsonOption = False,
) -> None:
    """Fine-tune the pretrained model on a measured property and measure it on the test split.

    The epoch is chosen on validation. A run that was interrupted goes on after its last epoch; one
    that is finished is found again. Of the rows of --selection, molecules that are in validation or
    test (compared without stereochemistry) do not join. With --tune, the settings are searched with
    the first seed, on the same training rows, and the model is trained with what was found.
    """
    flags = locals()
    from lipo_cli.commands.dataset_lines import announce
    from lipo_cli.comparison.prepare import prepare
    from lipo_cli.settings import FinetuneSettings

    settings = settings_from(FinetuneSettings, config, flags)
    if out is not None:
        opt.prepare_out(out, folder=True)
        check_model_folder(out)
    if settings.selection is not None:
        _check_selection(settings.selection)
    database = tuning.check_tuning(settings.tuning, [settings.peft], also, tune_storage)
    prepared = prepare(settings.data, settings.selection)
    announce(prepared, primary_only=settings.selection is None)
    _run(settings, prepared, store, out, database, as_json=as_json)


def _check_selection(file: str) -> None:
    """Checks before the data are read that the chosen rows are in a file.

    Raises:
        SettingsError: it is none: a rule, perhaps, such as `lipo compare` takes.
    """
    from lipo_cli.errors import SettingsError

    if not Path(file).is_file():
        raise SettingsError(
            f"there is no file {file!r}",
            where="--selection",
            hint="lipo select VALUES --selection tsds --out FILE writes one",
        )


def _cells(settings: FinetuneSettings, prepared: Prepared) -> tuple[list[Cell], NDArray[np.int64]]:
    """Returns what is trained, and the positions in the pool of the molecules that join."""
    import numpy as np

    from lipo_cli.comparison.plan import Cell, Choice
    from lipo_cli.valuation.selection_text import parse_selection

    if settings.selection is None:
        choice, n_chosen = Choice("none", parse_selection("none"), "asked"), 0
    else:
        n_chosen = len(prepared.require_pool(at_least=1))
        choice = Choice(Path(settings.selection).name, parse_selection("all"), "asked")
    seeds = range(settings.seed, settings.seed + settings.ensemble)
    cells = [Cell(choice, settings.peft, seed) for seed in seeds]
    return cells, np.arange(n_chosen, dtype=np.int64)


def _run(
    settings: FinetuneSettings,
    prepared: Prepared,
    root: Path,
    out: Path | None,
    database: str | None,
    *,
    as_json: bool,
) -> None:
    from lipo_cli.commands.compare_view import CompareView
    from lipo_cli.commands.console import emit_json, say
    from lipo_cli.commands.console import out as stdout
    from lipo_cli.commands.dataset_lines import tell_unread
    from lipo_cli.comparison.ensemble import combine, run_members
    from lipo_cli.comparison.tuning import tune
    from lipo_cli.tracking.ledger import MlflowLedger
    from lipo_cli.tracking.store import open_store

    cells, rows = _cells(settings, prepared)
    ledger = MlflowLedger(open_store(root), settings.experiment)
    training, tuned = settings.training, None
    with CompareView(training.epochs) as view:
        view.planned(cells, len(cells))
        if settings.tuning.trials is not None:
            searched = (cells[0], rows, prepared, training, settings.tuning, ledger, view)
            tuned = tune(*searched, storage=database)
            training = tuned.training(training)
        members = run_members(cells, rows, prepared, training, ledger, view)
    max_length = settings.training.max_length
    first = members[0]
    tell_unread("training and validation", first.n_truncated, first.n_unknown, max_length)
    ensemble: EnsembleResult | None = None
    if len(cells) > 1 or settings.joins_kernel:
        ensemble = combine(
            cells, members, rows, prepared, training, ledger, kernel=settings.joins_kernel
        )
    result = ensemble or first
    assert result.run_id is not None
    if out is not None:
        replaced = copy_model_folder(ledger.regressor_folder(result.run_id), out)
        say(f"saved: {out}" + (", in the place of an earlier model" if replaced else ""))
    else:
        say("not saved as a folder: with --out DIR it is, for `lipo predict --model DIR`")
    say(f"in MLflow: experiment {settings.experiment}, run {result.run_id} (`lipo ui`)")
    if as_json:
        emit_json({**result.as_dict(), "tuning": tuned.as_dict() if tuned is not None else None})
        return
    if tuned is not None:
        stdout.print(tuned.sentence(), markup=False, soft_wrap=True)
    for member in members:
        _show(settings, member)
    if ensemble is not None:
        _show_ensemble(settings, ensemble)


def _show(settings: FinetuneSettings, result: CellResult) -> None:
    from lipo_cli.commands.console import out
    from lipo_cli.comparison.digits import rmse_text

    out.print(
        f"{result.peft}, seed {result.seed}: test RMSE {rmse_text(result.test_rmse)}, "
        f"MAE {rmse_text(result.test_mae)}; validation RMSE {rmse_text(result.val_rmse)} "
        f"(epoch {result.best_epoch}, {result.trainable_parameters:,} parameters trained, "
        f"{result.seconds:.0f} s)"
    )
    if settings.selection is not None:
        out.print(
            f"trained on {result.n_train:,} molecules, {result.n_selected:,} of them chosen: "
            f"{settings.selection}",
            markup=False,
            soft_wrap=True,
        )
    if settings.ensemble == 1 and not settings.joins_kernel:
        _show_interval(result.test_coverage, result.test_interval, result.test_error_ratio)


def _show_ensemble(settings: FinetuneSettings, result: EnsembleResult) -> None:
    from lipo_cli.commands.console import out
    from lipo_cli.comparison.digits import rmse_text

    found = result.numbers
    share = found["kernel_share"] or 0.0
    whose = "their mean" if settings.ensemble > 1 else "it alone"
    if share > 0:
        whose = f"with the kernel readout (share {share:g})"
    elif settings.joins_kernel:
        whose += " (validation wants no kernel readout)"
    out.print(
        f"{whose}: test RMSE {rmse_text(found['test_rmse'])}, MAE {rmse_text(found['test_mae'])}; "
        f"validation RMSE {rmse_text(found['val_rmse'])}"
    )
    _show_interval(found["test_coverage"], found["test_interval"], found["test_error_ratio"])


def _show_interval(coverage: float | None, width: float | None, ratio: float | None) -> None:
    from lipo_cli.commands.console import out, say
    from lipo_cli.model.calibration import FEWEST

    if coverage is None or width is None:
        say(f"no intervals: they take {FEWEST} validation molecules or more")
        return
    text = f"90 % intervals, {width:.3g} wide on average, hold {100 * coverage:.1f} % of test"
    if ratio is not None:
        text += f"; the most uncertain fifth errs {ratio:.1f} times as much as the least"
    out.print(text, soft_wrap=True)
