"""The steps of a pretraining run.

Every step is a function of the weights, the optimiser's state, the seed and the number of the
step: batches, masks, random SMILES and dropout are drawn from (seed, place) and nothing is carried
over. A run that was killed goes on from its last checkpoint and ends, on the CPU in float32, with
the same bits as one that was left alone.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lipo_cli.errors import Interrupted, TrainingError
from lipo_cli.model.modeling import MolformerForMaskedLM
from lipo_cli.progress import Progress
from lipo_cli.settings import PretrainSettings
from lipo_cli.training.masked_lm import evaluate, masked_lm
from lipo_cli.training.masking import DROPOUT, MaskedBatch, stream
from lipo_cli.training.pretrain_folder import PretrainState
from lipo_cli.training.stop_request import StopRequest
from lipo_cli.training.views import Views

MAX_GRADIENT_NORM = 1.0
BETAS = (0.9, 0.98)
_ROWS = 40
_STEPS_ON_GPU = 20
"""A loss is fetched from a GPU this often: fetching waits for everything before it."""


@dataclass(frozen=True)
class Course:
    """How many steps, and the learning rate of each.

    Attributes:
        steps: Optimiser steps in all.
        peak: Learning rate after warm-up.
        warmup: Steps until there.
        decay: How it falls to zero: `cosine` or `linear`.
        evaluate_every: Steps between rows of the history.
    """

    steps: int
    peak: float
    warmup: int
    decay: str
    evaluate_every: int

    @classmethod
    def of(cls, settings: PretrainSettings, epochs: int, n_batches: int, peak: float) -> Course:
        """Counts the steps of settings on an epoch of `n_batches`."""
        steps = settings.steps or max(1, epochs * n_batches // settings.accumulate)
        every = settings.evaluate_every or math.ceil(steps / _ROWS)
        return cls(steps, peak, math.ceil(settings.warmup * steps), settings.decay, every)

    def learning_rate(self, step: int) -> float:
        """Returns the learning rate of a step, counted from 0."""
        if step < self.warmup:
            return self.peak * (step + 1) / self.warmup
        left = 1 - (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.peak * (
            0.5 * (1 - math.cos(math.pi * left)) if self.decay == "cosine" else left
        )


class Trainer:
    """Moves a `PretrainState` forward."""

    def __init__(
        self,
        model: MolformerForMaskedLM,
        views: Views,
        held_out: Sequence[MaskedBatch],
        settings: PretrainSettings,
        course: Course,
        device: torch.device,
    ) -> None:
        self.model = model.to(device)
        self.course = course
        self.state = PretrainState()
        self._views = views
        self._held_out = held_out
        self._settings = settings
        self._device = device
        self._optimizer = torch.optim.AdamW(
            _groups(model, settings.weight_decay), lr=course.peak, betas=BETAS, fused=True
        )
        self._unread: list[tuple[Tensor, int]] = []

    def restore(self, state: PretrainState) -> None:
        """Goes back to a checkpoint."""
        self.model.load_state_dict(state.model)
        self._optimizer.load_state_dict(state.optimizer)
        self.state = state

    def run(
        self,
        *,
        save: Callable[[PretrainState], None],
        on_row: Callable[[dict[str, float]], None],
        progress: Progress,
        stop: StopRequest,
        deadline: float,
    ) -> bool:
        """Trains to the last step, or to the deadline.

        Args:
            save: Writes a checkpoint.
            on_row: Told of each row of the history.
            progress: Told of every step.
            stop: When it asks, a checkpoint is written and the run ends as interrupted.
            deadline: Of `time.monotonic()`; at least one step is made.

        Returns:
            Whether the last step was made.

        Raises:
            Interrupted: a signal came; the checkpoint holds the step before.
            TrainingError: the loss is not finite.
        """
        state, course = self.state, self.course
        batches = self._views.batches(state.step * self._settings.accumulate)
        self.model.train()
        try:
            if state.step == 0 and not state.history:
                self._row(on_row, started=time.monotonic())
            while state.step < course.steps:
                started = time.monotonic()
                self._step(batches, progress)
                last = state.step == course.steps
                due = last or state.step % course.evaluate_every == 0
                if due or self._device.type == "cpu" or state.step % _STEPS_ON_GPU == 0:
                    self._read_losses(progress)
                if due:
                    self._row(on_row, started)
                else:
                    state.seconds += time.monotonic() - started
                over = not last and time.monotonic() >= deadline
                # Read once: a signal between two questions would end the run without a checkpoint.
                asked = stop.signal_number
                if asked or over or state.step % self._settings.checkpoint_every == 0:
                    self._checkpoint(save, progress)
                if asked:
                    raise Interrupted(asked)
                if over:
                    return False
        finally:
            batches.close()
        return True

    def _step(self, batches: Iterator[MaskedBatch], progress: Progress) -> None:
        """One optimiser step over `accumulate` batches, each token weighing the same."""
        state = self.state
        micro = [next(batches) for _ in range(self._settings.accumulate)]
        n_asked = max(1, sum(batch.n_asked for batch in micro))
        for group in self._optimizer.param_groups:
            group["lr"] = self.course.learning_rate(state.step)
        self._optimizer.zero_grad(set_to_none=True)
        for i, batch in enumerate(micro):
            place = stream(self._settings.seed, DROPOUT, state.step, i)
            torch.manual_seed(int(place.integers(2**62)))
            loss, _ = masked_lm(self.model, batch, self._device, self._settings.precision)
            (loss / n_asked).backward()
            self._unread.append((loss.detach(), batch.n_asked))
        nn.utils.clip_grad_norm_(self.model.parameters(), MAX_GRADIENT_NORM)
        self._optimizer.step()
        state.step += 1
        n_views = sum(len(batch.rows) for batch in micro)
        state.n_views += n_views
        progress.advance(n_views)

    def _read_losses(self, progress: Progress) -> None:
        if not self._unread:
            return
        total = sum(float(loss) for loss, _ in self._unread)
        n_asked = sum(n for _, n in self._unread)
        self._unread.clear()
        if not math.isfinite(total):
            raise TrainingError(
                f"the loss became {total} by step {self.state.step}",
                where=f"learning rate {self.course.learning_rate(self.state.step - 1):g}",
                hint="lower --learning-rate, or use --precision float32",
            )
        self.state.loss_sum += total
        self.state.n_asked += n_asked
        progress.advance(0, step=self.state.step, loss=total / max(1, n_asked))

    def _row(self, on_row: Callable[[dict[str, float]], None], started: float) -> None:
        state = self.state
        val_loss, val_accuracy = evaluate(
            self.model, self._held_out, self._device, self._settings.precision
        )
        if not math.isfinite(val_loss):
            raise TrainingError(f"the held-out loss is {val_loss} at step {state.step}")
        state.seconds += time.monotonic() - started
        row = {
            "step": float(state.step),
            "epoch": state.step * self._settings.accumulate / self._views.n_batches,
            "learning_rate": self.course.learning_rate(max(0, state.step - 1)),
            "val_loss": val_loss,
            "val_accuracy": val_accuracy,
            "molecules": float(state.n_views),
            "seconds": state.seconds,
        }
        if state.n_asked:
            row["train_loss"] = state.loss_sum / state.n_asked
        state.loss_sum, state.n_asked = 0.0, 0
        state.history.append(row)
        on_row(row)

    def _checkpoint(self, save: Callable[[PretrainState], None], progress: Progress) -> None:
        self._read_losses(progress)
        self.state.model = self.model.state_dict()
        self.state.optimizer = self._optimizer.state_dict()
        save(self.state)


def _groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Spares biases and LayerNorms from weight decay."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
