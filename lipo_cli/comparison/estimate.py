"""How fast every method trains on this machine, by timing a few steps of it."""

from __future__ import annotations

import time

import numpy as np

from lipo_cli.comparison.plan import Plan
from lipo_cli.comparison.prepare import Prepared
from lipo_cli.model.regressor import Regressor
from lipo_cli.settings import Peft, TrainingSettings
from lipo_cli.training.finetune import fit

_BATCHES = 6


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
