"""The ways of training that the throughput benchmark sets against each other.

All run the product's own loop on the same network, molecules, batch size and optimiser; a way
changes the padding, the precision and the random features, and nothing else.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch

from lipo_cli.model import batches
from lipo_cli.model.attention import FeatureMap, LinearAttention, orthogonal_features
from lipo_cli.model.regressor import Regressor
from lipo_cli.progress import SilentProgress
from lipo_cli.settings import TrainingSettings
from lipo_cli.training.examples import Examples
from lipo_cli.training.finetune import fit


@dataclass(frozen=True)
class Way:
    """One way of training.

    Attributes:
        name: What it is called on the command line and in results.
        title: What the table says.
        length: Every sequence is padded, and cut, to this many tokens; None: batches of like
            length, padded to their own.
        precision: As in the settings.
        redrawn: Whether the random features are drawn anew at each forward pass, by QR.
    """

    name: str
    title: str
    length: int | None = None
    precision: str = "float32"
    redrawn: bool = False


OURS = Way("ours", "ours: by length, bf16 where the machine has it", precision="auto")
PADDED = Way("padded", "padded to 128, float32", length=128)
REDRAWN = Way("redrawn", "padded to 128, float32, features redrawn by QR", length=128, redrawn=True)
WAYS = (OURS, PADDED, REDRAWN)


@dataclass(frozen=True)
class Timing:
    """One epoch of one way.

    Attributes:
        way: Name of the way.
        n_train: Molecules trained on.
        train_s: Seconds of the epoch's steps: SMILES written anew, tokens and batches included.
        epoch_s: The same with validation and what else an epoch does.
    """

    way: str
    n_train: int
    train_s: float
    epoch_s: float

    @property
    def rate(self) -> float:
        """Molecules trained on per second."""
        return self.n_train / self.train_s


class StepClock(SilentProgress):
    """Remembers when the steps began and when the last of them ended."""

    def __init__(self) -> None:
        self._began = self._ended = 0.0

    def start(self, name: str, total: int | None, unit: str) -> None:  # noqa: ARG002 - Progress
        """Starts the clock."""
        self._began = time.perf_counter()

    def advance(self, n: int = 1, **fields: float | int | str) -> None:  # noqa: ARG002 - Progress
        """Takes the time of a step; 0 steps are the report of a validation."""
        if n > 0:
            self._ended = time.perf_counter()

    @property
    def seconds(self) -> float:
        """From the start to the end of the last step."""
        return self._ended - self._began


def settings_for(way: Way, model: str, batch_size: int, epochs: int) -> TrainingSettings:
    """Returns our defaults with what the way changes."""
    changes: dict[str, Any] = {} if way.length is None else {"max_length": way.length}
    return TrainingSettings.model_validate(
        {
            "model": model,
            "batch_size": batch_size,
            "epochs": epochs,
            "patience": epochs,
            "precision": way.precision,
            "device": "cpu",
            **changes,
        }
    )


@contextmanager
def in_place(way: Way, regressor: Regressor) -> Iterator[None]:
    """Makes the product's loop train this way while the context lasts.

    Raises:
        SystemExit: features are to be redrawn and the network has none.
    """
    with ExitStack() as stack:
        if way.length is not None:
            # Lengths are rounded up to a multiple of this, and none is longer: all are this long.
            stack.enter_context(mock.patch.object(batches, "PAD_MULTIPLE", way.length))
        if way.redrawn:
            found = [m for m in regressor.model.modules() if isinstance(m, LinearAttention)]
            if not found:
                raise SystemExit("this network has no random features to redraw")
            for module in found:
                stack.callback(module.register_forward_pre_hook(_redraw).remove)
        yield


def _redraw(module: torch.nn.Module, _: object) -> None:
    # As published: once per layer and pass, for query and key alike.
    feature_map = module.feature_map
    assert isinstance(feature_map, FeatureMap)
    with torch.no_grad():
        feature_map.weight.copy_(orthogonal_features(*feature_map.weight.shape))


def train(
    way: Way, settings: TrainingSettings, data: tuple[Examples, Examples], seed: int
) -> tuple[Timing, float]:
    """Fine-tunes a fresh model one way.

    Args:
        way: The way.
        settings: What `settings_for` gave.
        data: Training and validation molecules.
        seed: Of the head, the batches and the dropout.

    Returns:
        The time of an epoch (the mean, of several), and the best validation RMSE.
    """
    training, validation = data
    regressor = Regressor.from_base("full", settings, seed)
    clock = StepClock()
    with in_place(way, regressor):
        result = fit(regressor, training, validation, seed=seed, progress=clock)
    n_epochs = len(result.history)
    timing = Timing(
        way=way.name,
        n_train=len(training),
        train_s=clock.seconds / n_epochs,
        epoch_s=result.seconds / n_epochs,
    )
    return timing, result.best_val_rmse


def alternate(
    ways: Sequence[Way], model: str, batch_size: int, data: tuple[Examples, Examples], repeats: int
) -> list[Timing]:
    """Times one epoch of each way in turn, several times; a first few batches of each warm up."""
    training, validation = data
    few = Examples(training.smiles[: 4 * batch_size], training.labels[: 4 * batch_size])
    rounds = [(few, validation), *[(training, validation)] * repeats]
    timings = []
    for number, examples in enumerate(rounds):
        for way in ways:
            settings = settings_for(way, model, batch_size, epochs=1)
            timing, _ = train(way, settings, examples, seed=number)
            timings.append(timing)
    return timings[len(ways) :]


def ratios(timings: Sequence[Timing], slower: Way, faster: Way = OURS) -> list[float]:
    """Returns how many times as long the slower way took in each round."""
    slow = [timing.train_s for timing in timings if timing.way == slower.name]
    fast = [timing.train_s for timing in timings if timing.way == faster.name]
    return [a / b for a, b in zip(slow, fast, strict=True)]
