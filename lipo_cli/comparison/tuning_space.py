"""What is tuned of a method, and within which ranges."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lipo_cli.comparison.cells import effective
from lipo_cli.model.adapters import DEFAULT_LEARNING_RATE
from lipo_cli.settings import Peft, TrainingSettings
from lipo_cli.settings_tuning import TuningSettings

Parameters = Mapping[str, float]
"""Names and values of training settings; ranks are whole."""

NAMES = {
    "learning_rate": "learning rate",
    "lora_rank": "LoRA rank",
    "lora_alpha": "LoRA alpha",
    "lora_dropout": "LoRA dropout",
    "dropout": "dropout",
    "weight_decay": "weight decay",
}
_OF_LORA = ("lora_rank", "lora_alpha", "lora_dropout")


@dataclass(frozen=True)
class Range:
    """The values that a training setting may take in a search.

    Attributes:
        name: The setting.
        low: The lowest value.
        high: The highest value, included.
        log: Whether values are drawn evenly in their logarithm.
        whole: Whether they are whole numbers.
        first: The value of the first trial, inside the range.
    """

    name: str
    low: float
    high: float
    log: bool
    whole: bool
    first: float


def has(peft: Peft, name: str) -> bool:
    """Tells whether a method has a setting."""
    return peft == "lora" or name not in _OF_LORA


def search_space(
    peft: Peft, training: TrainingSettings, tuning: TuningSettings
) -> tuple[Range, ...]:
    """Returns the ranges of what is tuned of a method, always in the same order.

    The first trial has the settings as they stand, the method's measured default where the learning
    rate is not given; a range that does not hold them is widened to them. A range from 0 is drawn
    evenly, any other but that of dropouts in its logarithm.

    Args:
        peft: The method.
        training: The settings that are tuned.
        tuning: What is tuned, and the ranges.
    """
    default = DEFAULT_LEARNING_RATE[peft]
    rates = tuning.learning_rate_range or (default / tuning.rate_span, default * tuning.rate_span)
    bounds: dict[str, tuple[float, float]] = {
        "learning_rate": rates,
        "lora_rank": tuning.lora_rank_range,
        "lora_alpha": tuning.lora_alpha_range,
        "lora_dropout": tuning.lora_dropout_range,
        "dropout": tuning.dropout_range,
        "weight_decay": tuning.weight_decay_range,
    }
    wanted = {"learning_rate", "lora_rank", *tuning.also}
    stand = effective(training, peft)
    return tuple(
        _around(name, low, high, float(getattr(stand, name)))
        for name, (low, high) in bounds.items()
        if name in wanted and has(peft, name)
    )


def _around(name: str, low: float, high: float, first: float) -> Range:
    low, high = min(low, first), max(high, first)
    log = low > 0 and not name.endswith("dropout")
    return Range(name, low, high, log=log, whole=name == "lora_rank", first=first)


def first_parameters(space: tuple[Range, ...]) -> dict[str, float]:
    """Returns the parameters of the first trial."""
    return {each.name: int(each.first) if each.whole else each.first for each in space}


def tuned_training(training: TrainingSettings, parameters: Parameters) -> TrainingSettings:
    """Returns training settings with the parameters of a trial."""
    whole = {n: int(v) if n == "lora_rank" else float(v) for n, v in parameters.items()}
    return training.model_copy(update=whole)


def described(parameters: Parameters) -> str:
    """Returns parameters for people: `learning rate 0.0021, LoRA rank 8`."""
    return ", ".join(f"{NAMES[name]} {value:.3g}" for name, value in parameters.items())
