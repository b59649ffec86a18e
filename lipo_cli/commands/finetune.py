"""`lipo finetune`: one fine-tuned regressor, measured and tracked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from lipo_cli.commands import options as opt
from lipo_cli.commands import training_options as tune

if TYPE_CHECKING:
    from lipo_cli.comparison.prepare import Prepared
    from lipo_cli.settings import FinetuneSettings


def finetune(
    peft: Annotated[
        Literal["full", "bitfit", "lora", "ia3"] | None,
        typer.Option("--peft", "-p", help="Fine-tuning method. (default: full)"),
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Seed. (default: 0)")] = None,
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
    randomise: tune.Randomise = None,
    max_length: tune.MaxLength = None,
    lora_rank: tune.LoraRank = None,
    precision: tune.Precision = None,
    device: tune.Device = None,
    config: tune.ConfigFile = None,
    store: opt.StoreOption = opt.DEFAULT_STORE,
    as_json: opt.JsonOption = False,
) -> None:
    """Fine-tune the pretrained model on a measured property and measure it on the test split.

    The epoch is chosen on validation. A run that was interrupted goes on after its last epoch; one
    that is finished is found again.
    """
    from lipo_cli.commands.dataset_lines import announce
    from lipo_cli.comparison.prepare import prepare
    from lipo_cli.settings import FinetuneSettings, build

    flags: dict[str, Any] = {
        "data": opt.data_layer(
            dataset=dataset,
            data_dir=data_dir,
            smiles_column=smiles_column,
            label_column=label_column,
            on_invalid=on_invalid,
            duplicates=duplicates,
            split=split,
            split_seed=split_seed,
            fractions=fractions,
            split_file=split_file,
            keep_stereo_groups=keep_stereo_groups,
        ),
        "training": tune.training_layer(
            model=model,
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            patience=patience,
            randomise=randomise,
            max_length=max_length,
            lora_rank=lora_rank,
            precision=precision,
            device=device,
        ),
    }
    flags |= {k: v for k, v in {"peft": peft, "seed": seed}.items() if v is not None}
    settings = build(FinetuneSettings, tune.file_layer(config, FinetuneSettings), flags)
    if out is not None:
        opt.prepare_out(out, folder=True)
    prepared = prepare(settings.data)
    announce(prepared, primary_only=True)
    _run(settings, prepared, store, out, as_json=as_json)


def _run(
    settings: FinetuneSettings, prepared: Prepared, root: Path, out: Path | None, *, as_json: bool
) -> None:
    import shutil

    from lipo_cli.commands.compare_view import CompareView
    from lipo_cli.commands.console import emit_json, say
    from lipo_cli.commands.console import out as stdout
    from lipo_cli.comparison.cells import run_cell
    from lipo_cli.comparison.engine import NO_ROWS
    from lipo_cli.comparison.plan import Cell, Choice
    from lipo_cli.tracking.ledger import MlflowLedger
    from lipo_cli.tracking.store import open_store
    from lipo_cli.valuation.selection import parse_selection

    ledger = MlflowLedger(open_store(root), settings.experiment)
    cell = Cell(Choice("none", parse_selection("none"), "asked"), settings.peft, settings.seed)
    with CompareView(settings.training.epochs) as view:
        view.planned([cell], 1)
        view.started(cell)
        result = run_cell(
            cell,
            NO_ROWS,
            prepared,
            settings.training,
            ledger,
            progress=view,
            on_epoch=lambda row: view.epoch(cell, row),
        )
        view.finished(cell, result)
    if out is not None:
        assert result.run_id is not None
        shutil.copytree(ledger.regressor_folder(result.run_id), out, dirs_exist_ok=True)
        say(f"saved: {out}")
    say(f"in MLflow: experiment {settings.experiment}, run {result.run_id} (`lipo ui`)")
    if as_json:
        emit_json(result.as_dict())
        return
    stdout.print(
        f"{settings.peft}, seed {settings.seed}: test RMSE {result.test_rmse:.4f}, "
        f"MAE {result.test_mae:.4f}; validation RMSE {result.val_rmse:.4f} "
        f"(epoch {result.best_epoch}, {result.trainable_parameters:,} parameters trained, "
        f"{result.seconds:.0f} s)"
    )
