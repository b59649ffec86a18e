"""Fine-tuning by regression: label-standardised squared error, early stopping, exact resume.

The loop is our own for what it does: a killed run resumes bit for bit, the best weights stay in
memory, SMILES are written anew in each epoch, and a run that diverges is one line. What it costs
against `transformers.Trainer` is measured (benchmarks/trainer.py). Everything random in an epoch is
drawn from (seed, epoch), so that a run resumed from the state after an epoch equals one never
stopped.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lipo_cli.errors import TrainingError
from lipo_cli.model import adapters
from lipo_cli.model.batches import collate, shuffled_batches
from lipo_cli.model.precision import autocast, out_of_memory_as_one_line
from lipo_cli.model.regressor import Regressor
from lipo_cli.progress import Progress, SilentProgress
from lipo_cli.training.averaging import WeightAverage
from lipo_cli.training.examples import Examples, dealt, written_anew
from lipo_cli.training.resume import TrainingState, read_state, write_state

MAX_GRADIENT_NORM = 1.0


@dataclass(frozen=True)
class FitResult:
    """What a fine-tuning run was.

    Attributes:
        history: One row per epoch: epoch (from 1), train_loss (of the labels as trained on),
            train_rmse, val_rmse (raw units), learning_rate, seconds.
        best_epoch: The epoch whose weights were restored.
        best_val_rmse: Its validation RMSE, raw units.
        seconds: Time spent, summed over resumed parts.
        stopped_early: Whether patience ran out before the last epoch.
        n_truncated: Training and validation molecules longer than the model reads.
        n_unknown: Those with a token that the model does not know, or with characters of none.
    """

    history: list[dict[str, float]]
    best_epoch: int
    best_val_rmse: float
    seconds: float
    stopped_early: bool
    n_truncated: int = 0
    n_unknown: int = 0


@dataclass
class _Run:
    """The moving parts of one run."""

    regressor: Regressor
    train: Examples
    validation: Examples
    seed: int
    n_rows: int
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LambdaLR
    average: WeightAverage
    state: TrainingState = field(default_factory=TrainingState)


def rmse(predicted: NDArray[np.float64], measured: NDArray[np.float64]) -> float:
    """Root mean squared error, in the units of the labels."""
    return float(np.sqrt(np.mean((predicted - measured) ** 2)))


def learning_rate_of(regressor: Regressor) -> float:
    """Returns the learning rate of the settings, or the method's measured default."""
    given = regressor.settings.learning_rate
    return adapters.DEFAULT_LEARNING_RATE[regressor.peft] if given is None else given


def fit(
    regressor: Regressor,
    train: Examples,
    validation: Examples,
    *,
    seed: int,
    epoch_size: int | None = None,
    progress: Progress | None = None,
    resume_file: Path | None = None,
    on_epoch: Callable[[dict[str, float]], None] | None = None,
) -> FitResult:
    """Fine-tunes a regressor in place and restores the weights of its best validation epoch.

    Args:
        regressor: A fresh regressor; its settings say how it is trained.
        train: Training molecules; their labels set the label scale.
        validation: Molecules that choose the epoch.
        seed: Decides batches, random SMILES and dropout.
        epoch_size: Rows of an epoch, dealt out in turn where there are more; None: all.
        progress: Told of every batch.
        resume_file: Where the state is kept after every epoch, and looked for at the start.
        on_epoch: Called with each row of the history; it may raise to stop the run.

    Returns:
        The run's history and its best epoch.

    Raises:
        TrainingError: there is nothing to train on, the loss is not finite (the state in
            `resume_file` is deleted: it would lead there again), or memory ran out.
    """
    if len(train) < 2 or len(validation) < 1:
        raise TrainingError(f"{len(train)} training and {len(validation)} validation molecules")
    listener = progress or SilentProgress()
    if regressor.settings.standardise:
        regressor.set_label_scale(train.labels)
    run = _prepare(regressor, train, validation, seed, epoch_size)
    run.state.key = _key(run)
    if resume_file is not None and (found := read_state(resume_file, run.state.key)) is not None:
        _restore(run, found)
    settings = regressor.settings
    n_steps = math.ceil(run.n_rows / settings.batch_size)
    listener.start(f"{regressor.peft}", settings.epochs * n_steps, "batches")
    listener.advance(run.state.epoch * n_steps, epoch=run.state.epoch)
    try:
        while run.state.epoch < settings.epochs and not run.state.stopped_early:
            row = _guarded_epoch(run, listener, resume_file)
            if resume_file is not None:
                run.state.optimizer = run.optimizer.state_dict()
                run.state.schedule = run.schedule.state_dict()
                run.state.weights = regressor.copy_state()
                run.state.average = run.average.weights
                run.state.n_averaged = run.average.n_steps
                write_state(resume_file, run.state)
            if on_epoch is not None:
                on_epoch(row)
    finally:
        listener.finish()
    assert run.state.best_weights is not None
    regressor.restore_state(run.state.best_weights)
    regressor.model.eval()
    encoded = regressor.encode(train.smiles + validation.smiles)
    return FitResult(
        history=run.state.history,
        best_epoch=run.state.best_epoch,
        best_val_rmse=run.state.best_val_rmse,
        seconds=run.state.seconds,
        stopped_early=run.state.stopped_early,
        n_truncated=encoded.n_truncated,
        n_unknown=encoded.n_unknown,
    )


def _prepare(
    regressor: Regressor,
    train: Examples,
    validation: Examples,
    seed: int,
    epoch_size: int | None,
) -> _Run:
    settings = regressor.settings
    rate, decay = learning_rate_of(regressor), settings.layer_decay
    if decay is None:
        decay = adapters.DEFAULT_LAYER_DECAY[regressor.peft]
    groups = adapters.parameter_groups(regressor.model, rate, decay, settings.weight_decay)
    optimizer = torch.optim.AdamW(groups, fused=True)
    n_rows = min(len(train), epoch_size or len(train))
    n_steps = settings.epochs * math.ceil(n_rows / settings.batch_size)
    factor = adapters.warmup_then_decay(n_steps, settings.warmup)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    average = WeightAverage(settings.averaging)
    return _Run(regressor, train, validation, seed, n_rows, optimizer, schedule, average)


def _key(run: _Run) -> str:
    """Names the run, so that a state left by another one is not taken for its own."""
    examples = [
        [*e.smiles, *map(float.hex, e.labels.tolist())] for e in (run.train, run.validation)
    ]
    regressor, base = run.regressor, run.regressor.base["fingerprint"]
    return regressor.settings.fingerprint(
        peft=regressor.peft, base=base, seed=run.seed, examples=examples, n_rows=run.n_rows
    )


def _restore(run: _Run, found: TrainingState) -> None:
    assert found.weights is not None
    run.state = found
    run.regressor.restore_state(found.weights)
    run.optimizer.load_state_dict(found.optimizer)
    run.schedule.load_state_dict(found.schedule)
    run.average.restore(found.average, found.n_averaged, run.regressor.device)


def _guarded_epoch(run: _Run, listener: Progress, resume_file: Path | None) -> dict[str, float]:
    where = f"{run.regressor.peft}, batches of {run.regressor.settings.batch_size}"
    with out_of_memory_as_one_line(where, "lower --batch-size"):
        try:
            return _epoch(run, listener)
        except TrainingError:
            if resume_file is not None:
                resume_file.unlink(missing_ok=True)
            raise


def _epoch(run: _Run, listener: Progress) -> dict[str, float]:
    """Trains one epoch, evaluates, and moves the state forward."""
    started = time.monotonic()
    state, settings = run.state, run.regressor.settings
    squared = 0.0
    for loss, size in _steps(run):
        squared += loss * size
        listener.advance(1, epoch=state.epoch + 1)
    train_loss = squared / run.n_rows
    with run.average.in_place(run.regressor):
        predicted = run.regressor.predict(run.validation.smiles, views=1)
        val_rmse = rmse(predicted, run.validation.labels)
        if not math.isfinite(val_rmse):
            raise _diverged(run, "validation RMSE", val_rmse)
        state.epoch += 1
        if val_rmse < state.best_val_rmse - settings.min_delta:
            state.patience_from = state.epoch
        if val_rmse < state.best_val_rmse:
            state.best_val_rmse, state.best_epoch = val_rmse, state.epoch
            state.best_weights = run.regressor.copy_state()
    if settings.patience is not None and state.epoch < settings.epochs:
        state.stopped_early = state.epoch - state.patience_from >= settings.patience
    seconds = time.monotonic() - started
    state.seconds += seconds
    head: Any = run.regressor.head()
    row = {
        "epoch": float(state.epoch),
        "train_loss": train_loss,
        "train_rmse": math.sqrt(train_loss) * float(head.label_scale),
        "val_rmse": val_rmse,
        "learning_rate": float(run.schedule.get_last_lr()[0]),
        "seconds": seconds,
    }
    state.history.append(row)
    listener.advance(0, epoch=state.epoch, val_rmse=val_rmse)
    return row


def _steps(run: _Run) -> Iterator[tuple[float, int]]:
    """Yields the loss and size of each batch after its optimiser step."""
    regressor, epoch = run.regressor, run.state.epoch
    settings = regressor.settings
    rng = np.random.default_rng([run.seed, epoch])
    torch.manual_seed(int(rng.integers(2**62)))  # dropout
    train = dealt(run.train, run.n_rows, run.seed, epoch)
    ids = regressor.encode(
        written_anew(train.smiles, settings.randomise, rng, regressor.reads_whole)
    ).ids
    batches = shuffled_batches([len(row) for row in ids], settings.batch_size, rng)
    trainable = [p for p in regressor.model.parameters() if p.requires_grad]
    regressor.model.train()
    for positions in batches:
        batch = collate([ids[i] for i in positions], regressor.pad_id, regressor.device)
        labels = torch.as_tensor(train.labels[positions], dtype=torch.float32)
        with autocast(regressor.device, settings.precision):
            loss = regressor.model(
                input_ids=batch.input_ids,
                attention_mask=batch.attention_mask,
                labels=labels.to(regressor.device),
            ).loss
        value = float(loss.detach())
        if not math.isfinite(value):
            raise _diverged(run, "training loss", value)
        run.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trainable, MAX_GRADIENT_NORM)
        run.optimizer.step()
        run.schedule.step()
        run.average.update(regressor)
        yield value, len(positions)


def _diverged(run: _Run, what: str, value: float) -> TrainingError:
    return TrainingError(
        f"{what} became {value} in epoch {run.state.epoch + 1}",
        where=f"{run.regressor.peft}, learning rate {learning_rate_of(run.regressor):g}",
        hint="lower --learning-rate, or use --precision float32",
    )
