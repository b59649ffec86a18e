"""Pretraining: from a file of SMILES, or a dataset, to a checkpoint folder."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from lipo_cli.chem.descriptors import DESCRIPTORS
from lipo_cli.model.base import Base, resolve_base, sha256_of
from lipo_cli.model.precision import pick_device
from lipo_cli.progress import Progress, SilentProgress
from lipo_cli.settings import PretrainSettings
from lipo_cli.training.corpus import Corpus, CorpusReport
from lipo_cli.training.descriptor_targets import DescriptorTargets
from lipo_cli.training.masked_lm import unigram_loss
from lipo_cli.training.masking import MaskedBatch
from lipo_cli.training.objectives import Objective
from lipo_cli.training.pretrain_figure import draw_curve
from lipo_cli.training.pretrain_folder import PretrainFolder
from lipo_cli.training.pretrain_loop import Course, Trainer
from lipo_cli.training.pretrain_model import (
    batch_size_of,
    epochs_of,
    export,
    learning_rate_of,
    objective_of,
)
from lipo_cli.training.pretrain_prepare import Prepared, clean_corpus, prepare, targets_of
from lipo_cli.training.pretrain_result import (
    PretrainResult,
    check_whole,
    read_back,
    versions,
    write_history,
)
from lipo_cli.training.pretrain_source import Source, source_of
from lipo_cli.training.ranks import Ranks
from lipo_cli.training.stop_request import StopRequest
from lipo_cli.training.views import Views
from lipo_cli.training.workers import usable_cores

FORMAT = 2
# What may change between two parts of a run, or is told by a checksum instead of a path.
_NOT_IDENTITY = {
    "corpus",
    "smiles_column",
    "exclude",
    "data",
    "model",
    "max_minutes",
    "checkpoint_every",
    "workers",
    "device",
    "experiment",
}


def _ignore(*_: object) -> None:
    """Listens to nothing."""


def run_identity(settings: PretrainSettings, source: Source, base: Base | None) -> dict[str, Any]:
    """Returns everything that decides the weights: a run goes on only where it is the same."""
    chosen = {k: v for k, v in settings.model_dump(mode="json").items() if k not in _NOT_IDENTITY}
    # Defaults by name, so that a version with others does not go on with half a run.
    chosen |= {
        "learning_rate": learning_rate_of(settings),
        "batch_size": batch_size_of(settings),
        "epochs": None if settings.steps else epochs_of(settings),
        "objective": objective_of(settings),
    }
    if base is not None:
        chosen.pop("size")
        chosen["base"] = base.sha256
    return {"format": FORMAT, **chosen, **source.identity}


def pretrain(
    settings: PretrainSettings,
    out: Path,
    *,
    progress: Progress | None = None,
    stop: StopRequest | None = None,
    on_row: Callable[[dict[str, float]], None] = _ignore,
    on_corpus: Callable[[CorpusReport, list[str]], None] = _ignore,
) -> PretrainResult:
    """Pretrains into a folder, going on where an earlier call with the same settings stopped.

    Args:
        settings: What is trained on what.
        out: The folder; it must be new, empty, or hold this very run.
        progress: Told of reading and of every step.
        stop: Ends the run at the next step with a checkpoint kept.
        on_row: Told of each new row of the history.
        on_corpus: Told what was read and left out, before training, with notes for the user.

    Returns:
        The result; that of a finished run is read back, nothing is computed again.

    Raises:
        DataError: the molecules cannot be used.
        ModelError: the checkpoint to continue from cannot be used.
        TrainingError: the folder is not ours, or the loss is not finite.
        Interrupted: a signal came; the same call goes on.
    """
    listener, stop = progress or SilentProgress(), stop or StopRequest()
    started = time.monotonic()
    ranks = Ranks(settings.device)
    ranks.check(settings.accumulate)
    base = resolve_base(settings.model) if settings.model is not None else None
    source = source_of(settings)
    folder = PretrainFolder(out)
    identity = run_identity(settings, source, base)
    with folder.locked() if ranks.is_first else nullcontext():
        if ranks.is_first:
            folder.claim(identity)
        if (report := folder.report()) is not None and report["status"] == "finished":
            check_whole(folder.path, report)
            return read_back(folder.path, report)
        if not ranks.is_first:
            ranks.wait()  # until the first process has read the molecules
        corpus, notes = clean_corpus(settings, source, base, folder, listener, stop)
        prepared = prepare(settings, corpus, base, folder)
        if ranks.is_first:
            on_corpus(corpus.report, notes + prepared.notes())
        found = folder.read_state()
        targets = targets_of(settings, corpus, prepared.train, folder, listener, stop)
        if ranks.is_first:
            ranks.wait()
        trainer = _trainer(settings, corpus, prepared, targets, ranks)
        if found is not None:
            trainer.restore(found)
        else:
            trainer.objective.start_head(trainer.model, prepared.opening)
        finished = _train(settings, trainer, folder, listener, stop, on_row, started)
        if ranks.is_first:
            result = _conclude(settings, corpus, prepared, trainer, folder, identity, finished)
        ranks.wait()
        if not ranks.is_first:
            result = read_back(folder.path, folder.report() or {})
        return result


def _train(
    settings: PretrainSettings,
    trainer: Trainer,
    folder: PretrainFolder,
    listener: Progress,
    stop: StopRequest,
    on_row: Callable[[dict[str, float]], None],
    started: float,
) -> bool:
    total = trainer.course.steps * settings.accumulate * batch_size_of(settings)
    minutes = settings.max_minutes
    listener.start("pretraining", total, "molecules")
    listener.advance(trainer.state.n_views)
    try:
        return trainer.run(
            save=folder.write_state,
            on_row=on_row,
            progress=listener,
            stop=stop,
            deadline=math.inf if minutes is None else started + 60 * minutes,
        )
    finally:
        listener.finish()


def _trainer(
    settings: PretrainSettings,
    corpus: Corpus,
    prepared: Prepared,
    targets: DescriptorTargets | None,
    ranks: Ranks,
) -> Trainer:
    device = ranks.device or pick_device(settings.device)
    workers = settings.workers
    if workers is None or device.type == "cpu":
        # On the CPU the model needs every core; writing molecules anew is 5 % of the work.
        workers = max(1, usable_cores() - 1) if device.type != "cpu" else 0
    views = Views(corpus, prepared.train, prepared.spec, workers)
    course = Course.of(settings, epochs_of(settings), views.n_batches, learning_rate_of(settings))
    objective = Objective(
        prepared.start.model,
        tokens=objective_of(settings) != "descriptors",
        targets=targets,
        weight=settings.descriptor_weight,
        device=device,
        precision=settings.precision,
    )
    return Trainer(
        prepared.start.model, views, prepared.held_out, objective, settings, course, device, ranks
    )


def _conclude(
    settings: PretrainSettings,
    corpus: Corpus,
    prepared: Prepared,
    trainer: Trainer,
    folder: PretrainFolder,
    identity: dict[str, Any],
    finished: bool,
) -> PretrainResult:
    """Writes the model and its report; a paused run's model is that of its last step."""
    state = trainer.state
    last, masked = state.history[-1], prepared.held_out.masked
    result = PretrainResult(
        folder=folder.path,
        status="finished" if finished else "paused",
        steps=state.step,
        total_steps=trainer.course.steps,
        objective=objective_of(settings),
        val_loss=last.get("val_loss"),
        val_accuracy=last.get("val_accuracy"),
        unigram_loss=unigram_loss(corpus, masked, prepared.spec) if masked else None,
        val_descriptor_loss=last.get("val_descriptor_loss"),
        val_descriptor_r2=last.get("val_descriptor_r2"),
        n_train=len(prepared.train),
        n_validation=prepared.n_validation,
        n_views=state.n_views,
        n_parameters=sum(p.numel() for p in trainer.model.parameters()),
        n_unknown=prepared.n_unknown,
        new_head=prepared.start.new_head,
        seconds=state.seconds,
        corpus=corpus.report,
        history=state.history,
    )
    export(trainer.model, prepared.start.tokenizer, folder.path, half=settings.half)
    write_history(state.history, folder.path / "history.csv")
    draw_curve(state.history, result.unigram_loss, folder.path / "training.png")
    clean = prepared.held_out.clean
    report = result.as_dict() | {
        "descriptor_r2": _descriptor_r2(trainer, clean) if clean else None,
        "identity": identity,
        "settings": settings.model_dump(mode="json"),
        "learning_rate": trainer.course.peak,
        "weights_sha256": sha256_of(folder.path / "model.safetensors"),
        "versions": versions(),
    }
    report.pop("folder")
    folder.finish(report, finished=finished)
    return result


def _descriptor_r2(trainer: Trainer, clean: Sequence[MaskedBatch]) -> dict[str, float | None]:
    """Returns R2 by descriptor; None where it does not vary among the held-out molecules."""
    trainer.model.eval()
    _, r2 = trainer.objective.descriptor_scores(trainer.model, clean)
    return {
        name: round(value, 4) if math.isfinite(value) else None
        for name, value in zip(DESCRIPTORS, r2.tolist(), strict=True)
    }
