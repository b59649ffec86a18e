"""Pretraining: from a file of SMILES, or a dataset, to a checkpoint folder."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from lipo_cli.chem.descriptors import DESCRIPTORS
from lipo_cli.errors import DataError
from lipo_cli.model.base import Base, resolve_base, sha256_of
from lipo_cli.model.precision import pick_device
from lipo_cli.model.tokenizer import MolformerTokenizer, load_tokenizer
from lipo_cli.progress import Progress, SilentProgress
from lipo_cli.settings import PretrainSettings
from lipo_cli.training.corpus import Corpus, CorpusReport, gather_corpus
from lipo_cli.training.descriptor_targets import DescriptorTargets, descriptor_targets
from lipo_cli.training.masked_lm import unigram_loss
from lipo_cli.training.masking import MaskedBatch, MaskingSpec, held_out_batches
from lipo_cli.training.objectives import HeldOut, Objective
from lipo_cli.training.pretrain_figure import draw_curve
from lipo_cli.training.pretrain_folder import PretrainFolder
from lipo_cli.training.pretrain_loop import Course, Trainer
from lipo_cli.training.pretrain_model import (
    Start,
    export,
    learning_rate_of,
    longest,
    masking_spec,
    objective_of,
    starting_model,
    tokenizer_of,
)
from lipo_cli.training.pretrain_result import PretrainResult, read_back, versions, write_history
from lipo_cli.training.pretrain_source import Source, excluded_skeletons, source_of
from lipo_cli.training.stop_request import StopRequest
from lipo_cli.training.views import Positions, Views, hold_out
from lipo_cli.training.workers import usable_cores

FORMAT = 2
ADAPT_EPOCHS, ADAPT_BATCH = 10, 32
EPOCHS, BATCH = 1, 128
_OPENING = 4_000
"""Molecules on which the descriptor head starts, in closed form."""
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
    "half",
    "device",
    "experiment",
}


def _ignore(*_: object) -> None:
    """Listens to nothing."""


def _batch_size(settings: PretrainSettings) -> int:
    return settings.batch_size or (ADAPT_BATCH if settings.adapt else BATCH)


def _epochs(settings: PretrainSettings) -> int:
    return settings.epochs or (ADAPT_EPOCHS if settings.adapt else EPOCHS)


def run_identity(settings: PretrainSettings, source: Source, base: Base | None) -> dict[str, Any]:
    """Returns everything that decides the weights: a run goes on only where it is the same."""
    chosen = {k: v for k, v in settings.model_dump(mode="json").items() if k not in _NOT_IDENTITY}
    # Defaults by name, so that a version with others does not go on with half a run.
    chosen |= {
        "learning_rate": learning_rate_of(settings),
        "batch_size": _batch_size(settings),
        "epochs": None if settings.steps else _epochs(settings),
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
    base = resolve_base(settings.model) if settings.model is not None else None
    source = source_of(settings)
    folder = PretrainFolder(out)
    with folder.locked():
        identity = run_identity(settings, source, base)
        folder.claim(identity)
        if (report := folder.report()) is not None and report["status"] == "finished":
            return read_back(folder.path, report)
        corpus, notes = _corpus(settings, source, base, folder, listener, stop)
        prepared = _prepare(settings, corpus, base, folder)
        if prepared.n_unknown:
            notes.append(f"{prepared.n_unknown:,} molecules have tokens the model does not know")
        if prepared.start.new_head:
            notes.append("the checkpoint has no LM head: it starts from random weights")
        on_corpus(corpus.report, notes)
        found = folder.read_state()
        targets = _targets(settings, corpus, prepared.train, folder, listener, stop)
        trainer = _trainer(settings, corpus, prepared, targets)
        if found is not None:
            trainer.restore(found)
        else:
            trainer.objective.start_head(trainer.model, prepared.opening)
        total = trainer.course.steps * settings.accumulate * prepared.spec.batch_size
        listener.start("pretraining", total, "molecules")
        listener.advance(trainer.state.n_views)
        minutes = settings.max_minutes
        try:
            finished = trainer.run(
                save=folder.write_state,
                on_row=on_row,
                progress=listener,
                stop=stop,
                deadline=math.inf if minutes is None else started + 60 * minutes,
            )
        finally:
            listener.finish()
        return _conclude(settings, corpus, prepared, trainer, folder, identity, finished)


@dataclass(frozen=True)
class _Prepared:
    start: Start
    spec: MaskingSpec
    train: Positions
    held_out: HeldOut
    opening: list[MaskedBatch]
    n_validation: int
    n_unknown: int


def _corpus(
    settings: PretrainSettings,
    source: Source,
    base: Base | None,
    folder: PretrainFolder,
    progress: Progress,
    stop: StopRequest,
) -> tuple[Corpus, list[str]]:
    """Returns the cleaned molecules, from the folder when an earlier part of the run made them."""
    if (kept := folder.corpus()) is not None:
        return kept, []
    excluded, notes = excluded_skeletons(settings.exclude)
    corpus = gather_corpus(
        source.pairs(),
        source.name,
        max_length=longest(settings, base),
        excluded=excluded,
        on_invalid=settings.on_invalid,
        workers=usable_cores() if settings.workers is None else settings.workers,
        progress=progress,
        check=stop.check,
    )
    if len(corpus) < 2:
        raise DataError("one molecule is too few to train and to validate", where=source.name)
    folder.save_corpus(corpus)
    return corpus, notes


def _prepare(
    settings: PretrainSettings, corpus: Corpus, base: Base | None, folder: PretrainFolder
) -> _Prepared:
    tokenizer = _tokenizer(settings, corpus, base, folder)
    spec = masking_spec(settings, tokenizer, longest(settings, base), _batch_size(settings))
    train, validation = hold_out(len(corpus), settings.validation, settings.seed)

    def shown(positions: Positions, clean: float) -> list[MaskedBatch]:
        smiles = [corpus.smiles(i) for i in positions.tolist()]
        return held_out_batches(smiles, positions, replace(spec, clean=clean))

    objective = objective_of(settings)
    held_out = HeldOut(
        masked=[] if objective == "descriptors" else shown(validation, 0.0),
        clean=[] if objective == "mlm" else shown(validation, 1.0),
    )
    opening = [] if objective == "mlm" else shown(train[:: max(1, len(train) // _OPENING)], 1.0)
    strange = np.array([t not in spec.vocabulary for t in corpus.tokens], dtype=bool)
    n_unknown = int(np.add.reduceat(strange[corpus.flat], corpus.offsets[:-1]).astype(bool).sum())
    start = starting_model(settings, tokenizer, base)
    return _Prepared(start, spec, train, held_out, opening, len(validation), n_unknown)


def _tokenizer(
    settings: PretrainSettings, corpus: Corpus, base: Base | None, folder: PretrainFolder
) -> MolformerTokenizer:
    """Counting the tokens of a million molecules takes a while: it is done once in a run."""
    if base is None and (folder.state_folder / "tokenizer.json").is_file():
        return load_tokenizer(folder.state_folder)
    tokenizer = tokenizer_of(corpus, base, settings.seed)
    if base is None:
        partial = folder.state_folder / "tokenizer.partial"
        tokenizer.backend_tokenizer.save(str(partial))
        partial.replace(folder.state_folder / "tokenizer.json")
    return tokenizer


def _targets(
    settings: PretrainSettings,
    corpus: Corpus,
    train: Positions,
    folder: PretrainFolder,
    progress: Progress,
    stop: StopRequest,
) -> DescriptorTargets | None:
    if objective_of(settings) == "mlm":
        return None
    workers = usable_cores() if settings.workers is None else settings.workers
    return descriptor_targets(
        corpus, train, folder.state_folder, workers=workers, progress=progress, check=stop.check
    )


def _trainer(
    settings: PretrainSettings,
    corpus: Corpus,
    prepared: _Prepared,
    targets: DescriptorTargets | None,
) -> Trainer:
    device = pick_device(settings.device)
    workers = settings.workers
    if workers is None or device.type == "cpu":
        # On the CPU the model needs every core; writing molecules anew is 5 % of the work.
        workers = max(1, usable_cores() - 1) if device.type != "cpu" else 0
    views = Views(corpus, prepared.train, prepared.spec, workers)
    course = Course.of(settings, _epochs(settings), views.n_batches, learning_rate_of(settings))
    objective = Objective(
        prepared.start.model,
        tokens=objective_of(settings) != "descriptors",
        targets=targets,
        weight=settings.descriptor_weight,
        device=device,
        precision=settings.precision,
    )
    return Trainer(
        prepared.start.model, views, prepared.held_out, objective, settings, course, device
    )


def _conclude(
    settings: PretrainSettings,
    corpus: Corpus,
    prepared: _Prepared,
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
