"""How long a plan will take, by timing a few training steps of each method on this machine."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np

from lipo_cli.comparison.plan import Plan
from lipo_cli.comparison.prepare import Prepared
from lipo_cli.model.regressor import Regressor
from lipo_cli.settings import Peft, TrainingSettings
from lipo_cli.training.finetune import fit

_BATCHES = 6


@dataclass(frozen=True)
class Estimate:
    """The expected time of a plan.

    Attributes:
        n_cells: Cells in all, random controls included.
        rates: Training molecules per second of each method.
        seconds: All cells at all their epochs; early stopping makes it shorter.
    """

    n_cells: int
    rates: dict[Peft, float]
    seconds: float

    def times(self, n: int) -> Estimate:
        """Returns the time of n such plans."""
        return replace(self, n_cells=self.n_cells * n, seconds=self.seconds * n)


def measure_rates(plan: Plan, prepared: Prepared, training: TrainingSettings) -> dict[Peft, float]:
    """Times a few batches of every method: training molecules per second on this machine.

    Args:
        plan: The methods.
        prepared: The data.
        training: How each cell is trained.
    """
    rates: dict[Peft, float] = {}
    n_timed = min(len(prepared.train), _BATCHES * training.batch_size)
    rng = np.random.default_rng(0)
    sample = prepared.train.take(rng.permutation(len(prepared.train))[:n_timed].astype(np.int64))
    short = training.model_copy(update={"epochs": 1})
    for method in plan.peft:
        # The first model stands for all: an adapted one has its shape.
        model = plan.models[0] or training.model
        regressor = Regressor.from_base(method, short.model_copy(update={"model": model}), 0)
        regressor.predict(sample.smiles[: training.batch_size])
        started = time.monotonic()
        fit(regressor, sample, sample.take(np.arange(2)), seed=0)
        rates[method] = n_timed / (time.monotonic() - started)
    return rates


def estimate(plan: Plan, prepared: Prepared, training: TrainingSettings) -> Estimate:
    """Times a few batches of every method and extrapolates.

    Args:
        plan: The cells.
        prepared: The data.
        training: How each cell is trained.
    """
    rates = measure_rates(plan, prepared, training)
    n_pool = len(prepared.pool) if prepared.pool is not None else 0
    n_cells = plan.n_expected(n_pool)
    # Half of the pool is what a selection takes on average; the controls take none and all.
    added = 0 if training.equal_steps else n_pool / 2
    molecules = len(prepared.train) + added + len(prepared.validation) / 3
    per_method = n_cells / len(plan.peft)
    seconds = sum(per_method * training.epochs * molecules / rate for rate in rates.values())
    return Estimate(n_cells, rates, seconds)
