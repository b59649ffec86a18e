"""The settings of tuning: how many trials, of what, within which ranges."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from lipo_cli.settings_base import Seed, Settings

ExtraParameter = Literal["lora_alpha", "lora_dropout", "dropout", "weight_decay"]


def _in_order(bounds: tuple[float, float]) -> tuple[float, float]:
    if not 0 <= bounds[0] < bounds[1]:
        raise ValueError(f"({bounds[0]:g}, {bounds[1]:g}) must be two numbers, 0 <= low < high")
    return bounds


def _rates(bounds: tuple[float, float] | None) -> tuple[float, float] | None:
    if bounds is not None and not 0 < bounds[0] < bounds[1]:
        raise ValueError(f"({bounds[0]:g}, {bounds[1]:g}) must be two rates, 0 < low < high")
    return bounds


def _ranks(bounds: tuple[int, int]) -> tuple[int, int]:
    if not 1 <= bounds[0] < bounds[1]:
        raise ValueError(f"{bounds} must be two ranks, 1 <= low < high")
    return bounds


def _shares(bounds: tuple[float, float]) -> tuple[float, float]:
    if not 0 <= bounds[0] < bounds[1] < 1:
        raise ValueError(f"({bounds[0]:g}, {bounds[1]:g}) must be two shares, 0 <= low < high < 1")
    return bounds


Bounds = Annotated[tuple[float, float], AfterValidator(_in_order)]
Rates = Annotated[tuple[float, float] | None, AfterValidator(_rates)]
Ranks = Annotated[tuple[int, int], AfterValidator(_ranks)]
Shares = Annotated[tuple[float, float], AfterValidator(_shares)]


class TuningSettings(Settings):
    """Search by Optuna's TPE with median pruning, judged by validation RMSE alone.

    Learning rate and, of LoRA, the rank are searched; anything else by its name in `also`. The
    first trial is the settings as they stand; a range that does not hold them is widened to them.
    """

    trials: int | None = Field(default=None, ge=1)
    """Trials of each method; None: nothing is tuned."""
    also: tuple[ExtraParameter, ...] = ()
    """What is tuned beside learning rate and rank, where the method has it."""
    rate_span: float = Field(default=10.0, gt=1)
    """The learning rate is searched from the method's default divided by this to that times it."""
    learning_rate_range: Rates = None
    """The same range for every method, instead."""
    lora_rank_range: Ranks = (4, 128)
    lora_alpha_range: Bounds = (8.0, 128.0)
    lora_dropout_range: Shares = (0.0, 0.3)
    dropout_range: Shares = (0.0, 0.3)
    weight_decay_range: Bounds = (1e-4, 0.3)
    startup_trials: int = Field(default=6, ge=1)
    """Finished trials before TPE takes over from random draws."""
    candidates: int = Field(default=24, ge=1)
    """Points that TPE draws for a trial, to take the most promising."""
    prune: bool = True
    """Stop a trial whose best validation RMSE so far is above the median of the others."""
    prune_after_trials: int = Field(default=4, ge=1)
    """Complete trials before any is pruned."""
    prune_after: float = Field(default=0.4, ge=0, le=1)
    """Share of the epochs that every trial may train: early ones say little about the last."""
    seed: Seed = 0
    """Of the search."""

    @model_validator(mode="after")
    def _alpha_is_positive(self) -> Self:
        if self.lora_alpha_range[0] <= 0:
            raise ValueError("lora_alpha_range must begin above 0")
        return self
