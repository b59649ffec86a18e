"""The moving average of the weights: less noisy than those of any one step.

Polyak & Juditsky 1992; with the early decay of the exponential form as in TensorFlow's
ExponentialMovingAverage, so that the random weights of a new head are soon forgotten.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from lipo_cli.model.regressor import Regressor

Weights = dict[str, torch.Tensor]


class WeightAverage:
    """An exponential moving average over the optimiser's steps; with decay 0, the last weights.

    Attributes:
        decay: What a step keeps of the average, once there are many steps.
        n_steps: Steps averaged.
        weights: The average; None with decay 0 and before the first step.
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self.n_steps = 0
        self.weights: Weights | None = None

    @torch.no_grad()
    def update(self, regressor: Regressor) -> None:
        """Takes in the weights after a step."""
        if self.decay == 0:
            return
        self.n_steps += 1
        current = regressor.trained_state()
        if self.weights is None:
            self.weights = {name: tensor.detach().clone() for name, tensor in current.items()}
            return
        keep = min(self.decay, (1 + self.n_steps) / (10 + self.n_steps))
        names = list(self.weights)
        torch._foreach_lerp_(
            [self.weights[name] for name in names],
            [current[name].detach() for name in names],
            1 - keep,
        )

    def restore(self, weights: Weights | None, n_steps: int, device: torch.device) -> None:
        """Goes back to a kept average."""
        self.n_steps = n_steps
        self.weights = None if weights is None else {k: v.to(device) for k, v in weights.items()}

    @contextmanager
    def in_place(self, regressor: Regressor) -> Iterator[None]:
        """Puts the average into the model while the context lasts."""
        if self.weights is None:
            yield
            return
        current = regressor.copy_state()
        regressor.restore_state(self.weights)
        try:
            yield
        finally:
            regressor.restore_state(current)
