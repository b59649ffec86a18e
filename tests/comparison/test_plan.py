"""Which cells a comparison has."""

import numpy as np
import pytest

from lipo_cli.comparison.plan import make_plan
from lipo_cli.errors import SettingsError
from lipo_cli.settings import CompareSettings
from lipo_cli.valuation.selection import PointScores


def plan_of(**changes):
    return make_plan(CompareSettings(**changes))


def names(plan):
    return [choice.name for choice in plan.choices]


SCORES = PointScores(np.linspace(1, -1, 10), np.full(10, 0.01), n_optimal=4)


def test_controls_come_first_and_are_added_once():
    assert names(plan_of(selections=("tsds",), peft=("lora",))) == ["none", "all", "tsds"]
    assert names(plan_of(selections=("tsds", "all"), peft=("lora",))) == ["none", "all", "tsds"]
    asked = plan_of(selections=("all",), peft=("lora",))
    assert [c.role for c in asked.choices] == ["control", "asked"]


def test_without_controls_only_what_was_asked():
    plan = plan_of(selections=("tsds",), peft=("lora",), controls=False)
    assert names(plan.with_random_controls({"tsds": SCORES}, 10)) == ["tsds"]


def test_a_random_control_for_every_size_of_a_scored_selection():
    plan = plan_of(selections=("tsds", "tsds:top=3", "tsds:bottom=3"), peft=("lora",))
    assert names(plan.with_random_controls({"tsds": SCORES}, 10))[-2:] == [
        "random:k=3",
        "random:k=4",
    ]


def test_no_random_control_of_nothing_or_of_everything():
    nothing = PointScores(np.linspace(-1, -2, 10), np.full(10, 0.01), n_optimal=0)
    plan = plan_of(selections=("tsds",), peft=("lora",))
    assert names(plan.with_random_controls({"tsds": nothing}, 10)) == ["none", "all", "tsds"]
    everything = PointScores(np.linspace(2, 1, 10), np.full(10, 0.01), n_optimal=10)
    assert names(plan.with_random_controls({"tsds": everything}, 10)) == ["none", "all", "tsds"]


def test_a_random_control_that_was_asked_for_is_not_doubled():
    plan = plan_of(selections=("tsds", "random:k=4"), peft=("lora",))
    assert names(plan.with_random_controls({"tsds": SCORES}, 10)).count("random:k=4") == 1


def test_every_pair_has_one_seed_before_any_has_two():
    cells = plan_of(selections=("tsds",), peft=("lora", "ia3"), seeds=2, first_seed=5).cells()
    assert [cell.seed for cell in cells] == [5] * 6 + [6] * 6
    assert len(set(cells)) == 12


def test_the_expected_number_counts_the_random_controls_to_come():
    plan = plan_of(selections=("tsds", "tsds:top=3"), peft=("lora", "ia3"), seeds=2)
    assert plan.n_expected(10) == len(plan.with_random_controls({"tsds": SCORES}, 10).cells())


def test_random_choices_differ_by_seed_and_repeat_by_seed():
    choice = plan_of(selections=("random:k=5",), peft=("lora",), controls=False).choices[0]
    first, again, other = (
        choice.rows(None, 300, 0),
        choice.rows(None, 300, 0),
        choice.rows(None, 300, 1),
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert len(np.unique(first)) == 5


def test_the_reference_model_is_the_control_none_of_the_first_method_and_seed():
    settings = CompareSettings(selections=("tsds",), peft=("ia3", "full"), seeds=2, first_seed=3)
    plan = make_plan(settings)
    reference = plan.reference(settings)
    assert (reference.choice.name, reference.peft, reference.seed) == ("none", "ia3", 3)
    assert reference in plan.cells()


@pytest.mark.parametrize("text", ["tsd", "tsds:top", "tsds:top=0", "random", "random:k=x", ""])
def test_a_malformed_selection_is_one_line(text):
    with pytest.raises(SettingsError, match="valid:"):
        plan_of(selections=(text,))


def test_two_spellings_are_one_choice():
    plan = plan_of(selections=("NONE", "tsds", "tsds:optimal", "TSDS"), peft=("lora",))
    assert names(plan) == ["none", "all", "tsds"]
    assert plan.choices[0].role == "asked"


def test_more_points_than_the_pool_holds_is_said_before_anything_is_trained():
    plan = plan_of(selections=("random:k=11",), peft=("lora",))
    plan.check(11)
    with pytest.raises(SettingsError, match="asks for 11 points of a pool of 10"):
        plan.check(10)


def test_two_models_of_one_name_are_refused() -> None:
    settings = CompareSettings(models=("a/model", "b/model"))
    with pytest.raises(SettingsError, match="end in the same name"):
        make_plan(settings)
