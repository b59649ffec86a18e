"""The steps of a pretraining run.

Every step is a function of the weights, the optimiser's state, the seed and the number of the
step: batches, masks, random SMILES and dropout are drawn from (seed, place) and nothing is carried
over. A run that was killed goes on from its last checkpoint and ends, on the CPU in float32, with
the same bits as one that was left alone.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from lipo_cli.errors import Interrupted, TrainingError
from lipo_cli.model.modeling import MolformerForMaskedLM
from lipo_cli.progress import Progress
from lipo_cli.settings import PretrainSettings
from lipo_cli.training.masking import DROPOUT, MaskedBatch, stream
from lipo_cli.training.objectives import HeldOut, Objective, Sums
from lipo_cli.training.pretrain_folder import PretrainState
from lipo_cli.training.ranks import Ranks
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
        held_out: HeldOut,
        objective: Objective,
        settings: PretrainSettings,
        course: Course,
        device: torch.device,
        ranks: Ranks,
    ) -> None:
        self.model = model.to(device)
        self._ranks = ranks
        self.objective = objective
        self.course = course
        self.state = PretrainState()
        self._views = views
        self._held_out = held_out
        self._settings = settings
        self._device = device
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        if objective.head is not None:
            self._parameters += list(objective.head.parameters())
        self._optimizer = torch.optim.AdamW(
            _groups(self._parameters, settings.weight_decay),
            lr=course.peak,
            betas=BETAS,
            fused=True,
        )
        self._unread: list[Sums] = []

    def restore(self, state: PretrainState) -> None:
        """Goes back to a checkpoint."""
        self.model.load_state_dict(state.model)
        self._optimizer.load_state_dict(state.optimizer)
        if self.objective.head is not None:
            self.objective.head.load_state_dict(state.head)
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
                over = not last and self._ranks.any(time.monotonic() >= deadline)
                # Read once: a signal between two questions would end the run without a checkpoint.
                signal_number = stop.signal_number
                asked = self._ranks.any(signal_number is not None)
                if asked or over or state.step % self._settings.checkpoint_every == 0:
                    self._checkpoint(save, progress)
                if asked:
                    raise Interrupted(signal_number or signal.SIGTERM)
                if over:
                    return False
        finally:
            batches.close()
        return True

    def _step(self, batches: Iterator[MaskedBatch], progress: Progress) -> None:
        """One optimiser step over `accumulate` batches, each token weighing the same."""
        state, objective = self.state, self.objective
        micro = [next(batches) for _ in range(self._settings.accumulate)]
        n_asked = sum(batch.n_asked for batch in micro)
        n_descriptors = sum(objective.n_descriptors(batch) for batch in micro)
        for group in self._optimizer.param_groups:
            group["lr"] = self.course.learning_rate(state.step)
        self._optimizer.zero_grad(set_to_none=True)
        for i in self._ranks.mine(len(micro)):
            place = stream(self._settings.seed, DROPOUT, state.step, i)
            torch.manual_seed(int(place.integers(2**62)))
            sums = objective.sums(self.model, micro[i])
            objective.loss(sums, n_asked, n_descriptors).backward()
            self._unread.append(sums.detached())
        self._ranks.sum_gradients(self._parameters)
        nn.utils.clip_grad_norm_(self._parameters, MAX_GRADIENT_NORM)
        self._optimizer.step()
        state.step += 1
        n_views = sum(len(batch.rows) for batch in micro)
        state.n_views += n_views
        progress.advance(n_views)

    def _read_losses(self, progress: Progress) -> None:
        if not self._unread:
            return
        state, unread = self.state, self._unread
        tokens, descriptors, tokens_asked, descriptors_asked = self._ranks.sums(
            [
                sum(float(sums.tokens) for sums in unread),
                sum(float(sums.descriptors) for sums in unread),
                sum(sums.n_tokens for sums in unread),
                sum(sums.n_descriptors for sums in unread),
            ]
        )
        n_asked, n_descriptors = int(tokens_asked), int(descriptors_asked)
        self._unread = []
        if not math.isfinite(tokens + descriptors):
            raise TrainingError(
                f"the loss became {tokens + descriptors} by step {state.step}",
                where=f"learning rate {self.course.learning_rate(state.step - 1):g}",
                hint="lower --learning-rate, or use --precision float32",
            )
        state.loss_sum += tokens
        state.n_asked += n_asked
        state.descriptor_sum += descriptors
        state.n_descriptors += n_descriptors
        shown: dict[str, float] = {}
        if n_asked:
            shown["loss"] = tokens / n_asked
        if n_descriptors:
            shown["descriptors"] = descriptors / n_descriptors
        progress.advance(0, step=state.step, **shown)

    def _row(self, on_row: Callable[[dict[str, float]], None], started: float) -> None:
        state = self.state
        held_out = self.objective.evaluate(self.model, self._held_out)
        for name, value in held_out.items():
            if not math.isfinite(value):
                raise TrainingError(f"the held-out {name} is {value} at step {state.step}")
        state.seconds += time.monotonic() - started
        row = {
            "step": float(state.step),
            "epoch": state.step * self._settings.accumulate / self._views.n_batches,
            "learning_rate": self.course.learning_rate(max(0, state.step - 1)),
            **held_out,
            "molecules": float(state.n_views),
            "seconds": state.seconds,
        }
        if state.n_asked:
            row["train_loss"] = state.loss_sum / state.n_asked
        if state.n_descriptors:
            row["train_descriptor_loss"] = state.descriptor_sum / state.n_descriptors
        state.loss_sum, state.n_asked = 0.0, 0
        state.descriptor_sum, state.n_descriptors = 0.0, 0
        state.history.append(row)
        if self._ranks.is_first:
            on_row(row)

    def _checkpoint(self, save: Callable[[PretrainState], None], progress: Progress) -> None:
        self._read_losses(progress)
        if not self._ranks.is_first:
            return
        self.state.model = self.model.state_dict()
        self.state.optimizer = self._optimizer.state_dict()
        if self.objective.head is not None:
            self.state.head = self.objective.head.state_dict()
        save(self.state)


def _groups(parameters: Sequence[nn.Parameter], weight_decay: float) -> list[dict[str, object]]:
    """Spares biases and LayerNorms from weight decay."""
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
