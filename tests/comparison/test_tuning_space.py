"""What is tuned of each method, within which ranges."""

from __future__ import annotations

import pytest

from lipo_cli.comparison.tuning_space import (
    described,
    first_parameters,
    search_space,
    tuned_training,
)
from lipo_cli.errors import SettingsError
from lipo_cli.model.adapters import DEFAULT_LEARNING_RATE
from lipo_cli.settings import PEFT_METHODS, Peft, TrainingSettings, TuningSettings, build

EVERYTHING = ("lora_alpha", "lora_dropout", "dropout", "weight_decay")


@pytest.mark.parametrize("peft", PEFT_METHODS)
def test_the_rate_is_searched_around_the_default_of_the_method(peft: Peft) -> None:
    space = search_space(peft, TrainingSettings(), TuningSettings(rate_span=4))
    assert [r.name for r in space] == ["learning_rate", *(["lora_rank"] if peft == "lora" else [])]
    default = DEFAULT_LEARNING_RATE[peft]
    rate = space[0]
    assert (rate.low, rate.high, rate.first) == (default / 4, default * 4, default)
    assert rate.log


def test_only_lora_has_the_settings_of_lora() -> None:
    tuning = TuningSettings(also=EVERYTHING)
    full = {r.name for r in search_space("full", TrainingSettings(), tuning)}
    assert full == {"learning_rate", "dropout", "weight_decay"}
    lora = search_space("lora", TrainingSettings(), tuning)
    assert {r.name for r in lora} == {"learning_rate", "lora_rank", *EVERYTHING}
    assert {r.name: r.log for r in lora} == {
        "learning_rate": True, "lora_rank": True, "lora_alpha": True, "weight_decay": True,
        "lora_dropout": False, "dropout": False,
    }  # fmt: skip


def test_the_settings_as_they_stand_are_first_and_inside() -> None:
    training = TrainingSettings(learning_rate=1e-7, lora_rank=256, weight_decay=0, dropout=0.5)
    tuning = TuningSettings(also=("weight_decay", "dropout"))
    space = {r.name: r for r in search_space("lora", training, tuning)}
    first = first_parameters(tuple(space.values()))
    assert first == {"learning_rate": 1e-7, "lora_rank": 256, "dropout": 0.5, "weight_decay": 0}
    assert all(r.low <= r.first <= r.high for r in space.values())
    assert (space["learning_rate"].low, space["learning_rate"].high) == (1e-7, 1e-2)
    assert (space["lora_rank"].low, space["lora_rank"].high) == (4, 256)
    assert not space["weight_decay"].log, "a logarithm has no zero"
    assert tuned_training(training, first) == training
    assert described(first).startswith("learning rate 1e-07, LoRA rank 256")


def test_a_range_for_all_methods_stands_in_the_place_of_the_span() -> None:
    tuning = build(TuningSettings, {"learning_rate_range": [1e-4, 1e-2]})
    for peft in PEFT_METHODS:
        rate = search_space(peft, TrainingSettings(), tuning)[0]
        assert (rate.low, rate.high) == (1e-4, max(1e-2, DEFAULT_LEARNING_RATE[peft]))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"trials": 0}, "trials"),
        ({"also": ["rank"]}, "also"),
        ({"rate_span": 1}, "rate_span"),
        ({"learning_rate_range": [0, 1]}, "two rates"),
        ({"lora_rank_range": [8, 8]}, "two ranks"),
        ({"dropout_range": [0.1, 1.0]}, "two shares"),
        ({"weight_decay_range": [0.2, 0.1]}, "two numbers"),
        ({"lora_alpha_range": [0, 4]}, "begin above 0"),
        ({"speed": 3}, "speed"),
    ],
)
def test_a_range_that_makes_no_sense_is_one_line(changes: dict[str, object], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        build(TuningSettings, changes)
