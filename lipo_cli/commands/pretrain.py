"""`lipo pretrain`: pretraining of a model, from nothing or from a checkpoint."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lipo_cli.commands import options as opt
from lipo_cli.commands import pretrain_options as pre

if TYPE_CHECKING:
    from lipo_cli.progress import Progress
    from lipo_cli.settings import PretrainSettings
    from lipo_cli.tracking.runs import RunHandle
    from lipo_cli.training.corpus import CorpusReport
    from lipo_cli.training.pretrain_result import PretrainResult
    from lipo_cli.training.stop_request import StopRequest

_SHOWN = 5
"""Bad lines named on the terminal."""


def pretrain(
    file: pre.File = None,
    out: pre.Out = None,
    adapt: pre.Adapt = None,
    model: pre.From = None,
    size: pre.Size = None,
    smiles_column: pre.SmilesColumn = None,
    on_invalid: pre.OnInvalid = None,
    exclude: pre.Exclude = None,
    validation: pre.Validation = None,
    dataset: opt.DatasetOption = None,
    data_dir: opt.DataDirOption = None,
    split: opt.SplitOption = None,
    split_seed: opt.SplitSeedOption = None,
    fractions: opt.FractionsOption = None,
    split_file: opt.SplitFileOption = None,
    limit: pre.Limit = None,
    objective: pre.Objective = None,
    descriptor_weight: pre.DescriptorWeight = None,
    clean: pre.Clean = None,
    mask: pre.Mask = None,
    randomise: pre.Randomise = None,
    epochs: pre.Epochs = None,
    steps: pre.Steps = None,
    max_minutes: pre.MaxMinutes = None,
    batch_size: pre.BatchSize = None,
    accumulate: pre.Accumulate = None,
    learning_rate: pre.LearningRate = None,
    decay: pre.Decay = None,
    warmup: pre.Warmup = None,
    dropout: pre.Dropout = None,
    max_length: pre.MaxLength = None,
    checkpoint_every: pre.CheckpointEvery = None,
    evaluate_every: pre.EvaluateEvery = None,
    workers: pre.Workers = None,
    half: pre.Half = None,
    seed: pre.Seed = None,
    precision: pre.Precision = None,
    device: pre.Device = None,
    config: pre.Config = None,
    track: pre.Track = True,
    store: opt.StoreOption = opt.DEFAULT_STORE,
    as_json: opt.JsonOption = False,
) -> None:
    """Pretrain a model on masked tokens and descriptors, or adapt one to a dataset's molecules.

    The folder holds a checkpoint that `--model` takes everywhere. A run that was stopped or killed
    goes on from its last checkpoint when the same command is given again. On several GPUs:
    `accelerate launch -m lipo_cli pretrain ...`, with --accumulate a multiple of their number.
    """
    from lipo_cli.commands.console import RichProgress
    from lipo_cli.errors import SettingsError
    from lipo_cli.progress import SilentProgress
    from lipo_cli.settings import PretrainSettings, build, read_settings_file
    from lipo_cli.training.ranks import is_first
    from lipo_cli.training.stop_request import StopRequest

    if out is None:
        raise SettingsError("a folder for the checkpoint is needed", where="--out")
    flags = _given(
        corpus=None if file is None else str(file),
        adapt=adapt,
        model=model,
        size=size,
        exclude=[str(each) for each in exclude] if exclude else None,
        validation=validation,
        limit=limit,
        objective=objective,
        descriptor_weight=descriptor_weight,
        clean=clean,
        mask=mask,
        randomise=randomise,
        epochs=epochs,
        steps=steps,
        max_minutes=max_minutes,
        batch_size=batch_size,
        accumulate=accumulate,
        learning_rate=learning_rate,
        decay=decay,
        warmup=warmup,
        dropout=dropout,
        max_length=max_length,
        checkpoint_every=checkpoint_every,
        evaluate_every=evaluate_every,
        workers=workers,
        half=half,
        seed=seed,
        precision=precision,
        device=device,
    )
    reading = _given(smiles_column=smiles_column, on_invalid=on_invalid)
    data = opt.data_layer(
        dataset=dataset,
        data_dir=data_dir,
        split=split,
        split_seed=split_seed,
        fractions=fractions,
        split_file=split_file,
    )
    if data and not adapt:
        raise SettingsError(
            f"{', '.join(sorted(data))}: read with --adapt only",
            where="lipo pretrain",
            hint="a corpus is not split; --adapt goes on with the molecules of a dataset",
        )
    flags |= {"data": data | reading} if adapt else {"data": data} | reading
    layer = {} if config is None else read_settings_file(config)
    settings = build(PretrainSettings, layer, flags)
    first = is_first()
    with StopRequest() as stop, ExitStack() as stack:
        progress = stack.enter_context(RichProgress()) if first else SilentProgress()
        result = run_tracked(settings, out, progress, stop, store if track else None)
    if first:
        _show(result, as_json=as_json)


def _given(**flags: Any) -> dict[str, Any]:
    return {name: value for name, value in flags.items() if value is not None}


def run_tracked(
    settings: PretrainSettings,
    out: Path,
    progress: Progress,
    stop: StopRequest,
    store: Path | None,
) -> PretrainResult:
    """Pretrains; the MLflow run is opened once there is something to train on.

    Args:
        settings: What is trained on what.
        out: The checkpoint's folder.
        progress: Told of reading and of every step.
        stop: Ends the run at the next step with a checkpoint kept.
        store: Folder of the MLflow store; None: nothing is logged.
    """
    from lipo_cli.training.pretrain import pretrain as run_pretraining

    run: RunHandle | None = None
    with ExitStack() as stack:

        def read(report: CorpusReport, notes: list[str]) -> None:
            nonlocal run
            _tell(report, notes)
            if store is not None:
                run = _open_run(stack, settings, out, store)
                run.tag("corpus", report.sentence())

        def row(values: dict[str, float]) -> None:
            if run is not None:
                # The curve's step is what a run calls its epoch.
                curve = {k: v for k, v in values.items() if k not in ("step", "epoch")}
                run.history([{**curve, "epochs": values["epoch"], "epoch": values["step"]}])

        result = run_pretraining(
            settings, out, progress=progress, stop=stop, on_row=row, on_corpus=read
        )
        if run is not None:
            _log_result(run, result)
    return result


def _open_run(stack: ExitStack, settings: PretrainSettings, out: Path, root: Path) -> RunHandle:
    """Opens a run, or the one of an earlier part of this pretraining where the store has it."""
    from lipo_cli.errors import TrackingError
    from lipo_cli.redact import without_passwords
    from lipo_cli.tracking.runs import KIND_TAG, read_run, start_run
    from lipo_cli.tracking.store import open_store
    from lipo_cli.training.pretrain_folder import PretrainFolder

    folder, store = PretrainFolder(out), open_store(root)
    known = folder.remembered("tracking")
    run_id: str | None = None
    if known is not None and without_passwords(str(known.get("store"))) == store.shown:
        try:
            run_id = read_run(store, str(known["run_id"])).run_id
        except TrackingError:
            run_id = None  # deleted meanwhile: a new one takes its place
    name = f"{'adapt' if settings.adapt else 'pretrain'} {settings.model or settings.size}"
    run = stack.enter_context(
        start_run(
            store,
            settings.experiment,
            name,
            tags={KIND_TAG: "pretrain"},
            # A later part may have another time limit, which MLflow would refuse as a change.
            settings=settings if run_id is None else None,
            run_id=run_id,
        )
    )
    folder.remember("tracking", {"store": store.shown, "run_id": run.run_id})
    return run


def _log_result(run: RunHandle, result: PretrainResult) -> None:
    values = {
        "final_val_loss": result.val_loss,
        "final_val_accuracy": result.val_accuracy,
        "unigram_loss": result.unigram_loss,
        "final_val_descriptor_loss": result.val_descriptor_loss,
        "final_val_descriptor_r2": result.val_descriptor_r2,
        "n_train": result.n_train,
        "n_parameters": result.n_parameters,
    }
    run.metrics({name: value for name, value in values.items() if value is not None})
    run.tag("status", result.status)
    run.figure(result.folder / "training.png")
    run.file(result.folder / "pretrain.json")
    run.file(result.folder / "history.csv")


def _tell(report: CorpusReport, notes: list[str]) -> None:
    from lipo_cli.commands.console import say, warn

    say(f"{report.source}: {report.sentence()}")
    for row in report.bad_rows[:_SHOWN]:
        warn(f"{report.source}:{row.line}: {row.reason}: {row.text!r}")
    if report.n_bad > _SHOWN:
        say(f"  and {report.n_bad - _SHOWN:,} more bad lines")
    for note in notes:
        say(note)


def _show(result: PretrainResult, *, as_json: bool) -> None:
    from lipo_cli.commands.console import emit_json, say
    from lipo_cli.commands.console import out as stdout

    if result.status == "paused":
        say(f"paused at step {result.steps:,} of {result.total_steps:,}; the same command goes on")
    if as_json:
        emit_json(result.as_dict())
        return
    before = result.history[0]
    if result.val_loss is not None and result.val_accuracy is not None:
        stdout.print(
            f"masked-token loss {result.val_loss:.4f} (before training {before['val_loss']:.4f}, "
            f"token frequencies alone {result.unigram_loss:.4f}), "
            f"{100 * result.val_accuracy:.1f} % right, on {result.n_validation:,} held-out "
            "molecules",
            soft_wrap=True,
        )
    if result.val_descriptor_loss is not None:
        r2 = result.val_descriptor_r2
        stdout.print(
            f"descriptor loss {result.val_descriptor_loss:.4f} (before training "
            f"{before['val_descriptor_loss']:.4f}), "
            + (f"mean R2 {r2:.3f}" if r2 is not None else "no held-out descriptor varies"),
            soft_wrap=True,
        )
    stdout.print(
        f"{result.n_views:,} views of {result.n_train:,} molecules in {result.seconds:,.0f} s "
        f"({result.n_views / max(result.seconds, 1e-9):,.0f}/s), "
        f"{result.n_parameters:,} parameters; saved: {result.folder}",
        soft_wrap=True,
    )
