"""What fits into a time, by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from lipo_cli.comparison.budget import Budgeted, RunningPace, fit_into, without_verdict
from lipo_cli.comparison.costs import Costs
from lipo_cli.comparison.engine import compare
from lipo_cli.comparison.plan import Cell, ScoresByMethod, make_plan
from lipo_cli.comparison.prepare import Prepared, prepare
from lipo_cli.errors import SettingsError
from lipo_cli.settings import CompareSettings, Peft
from lipo_cli.tracking.ledger import MlflowLedger
from lipo_cli.tracking.store import Store
from tests.comparison.conftest import N_SECONDARY, Listener, World

RATES: dict[Peft, float] = {"full": 5.0, "lora": 10.0, "ia3": 20.0}


def by_epochs(world: World, **changes: object) -> CompareSettings:
    """Returns settings whose epochs are all rows: a cell costs what it adds."""
    return world.settings(training={"equal_steps": False}, **changes)


def by_hand(prepared: Prepared, n_selected: float, rate: float, epochs: int = 3) -> float:
    """Five seconds, training and a third of it for validation, a third for the last look."""
    split = prepared.split
    trained = epochs * (len(split.train) + n_selected + len(split.val) / 3)
    return 5 + (trained + (len(split.val) + len(split.test)) / 3) / rate


def fitted(
    settings: CompareSettings,
    prepared: Prepared,
    seconds: float,
    ledger: MlflowLedger | None = None,
    rates: Mapping[Peft, float] = RATES,
) -> Budgeted:
    return fit_into(settings, prepared, seconds / 60, ledger, rates)


def test_what_fits_is_the_sum_of_its_cells(world: World) -> None:
    settings = by_epochs(world, selections=("random:k=6",), peft=("lora", "ia3"), seeds=2)
    prepared = prepare(settings.data)
    one = {p: sum(by_hand(prepared, k, RATES[p]) for k in (0, 24, 6)) for p in ("lora", "ia3")}
    both = one["lora"] + one["ia3"]
    whole = fitted(settings, prepared, 2 * both + 1)
    assert whole.seconds == pytest.approx(2 * both)
    assert (whole.left_out, whole.settings) == ((), settings)
    less = fitted(settings, prepared, 2 * both - 1)
    assert less.seconds == pytest.approx(both)
    assert (less.left_out, less.settings.seeds) == (("seed 1",), 1)
    least = fitted(settings, prepared, both - 1)
    assert least.seconds == pytest.approx(one["lora"])
    assert least.left_out == ("seed 1", "method ia3")
    assert least.settings.peft == ("lora",)


def test_selections_of_the_same_points_cost_once(world: World) -> None:
    settings = by_epochs(world, selections=("random:k=24",), peft=("lora",))
    prepared = prepare(settings.data)
    assert len(prepared.require_pool()) == 24
    expected = sum(by_hand(prepared, k, RATES["lora"]) for k in (0, 24))  # all of them, twice named
    assert fitted(settings, prepared, 3 * expected).seconds == pytest.approx(expected)


def test_by_equal_steps_what_is_added_costs_nothing(world: World) -> None:
    settings = world.settings(selections=("random:k=6",), peft=("lora",))
    prepared = prepare(settings.data)
    one = by_hand(prepared, 0, RATES["lora"])
    assert fitted(settings, prepared, 3 * one + 1).seconds == pytest.approx(3 * one)


def test_seeds_go_first_then_methods_then_selections_and_none_never(world: World) -> None:
    settings = by_epochs(
        world,
        selections=("random:k=6", "none", "random:k=7"),
        peft=("lora", "ia3"),
        seeds=3,
        first_seed=4,
    )
    prepared = prepare(settings.data)
    least = sum(by_hand(prepared, k, RATES["lora"]) for k in (0, 24, 6))
    small = fitted(settings, prepared, least + 1)
    assert small.left_out == ("seed 6", "seed 5", "method ia3", "selection random:k=7")
    names = [choice.name for choice in make_plan(small.settings).choices]
    assert names == ["none", "all", "random:k=6"]


def test_an_impossible_budget_names_the_smallest_one(world: World) -> None:
    settings = by_epochs(world, selections=("random:k=6", "random:k=7"), peft=("lora", "ia3"))
    prepared = prepare(settings.data)
    least = sum(by_hand(prepared, k, RATES["lora"]) for k in (0, 24, 6))
    with pytest.raises(SettingsError, match=r"random:k=6 x lora .* one seed") as caught:
        fitted(settings, prepared, least - 1)
    assert caught.value.hint is not None
    minutes = float(caught.value.hint.split()[1].rstrip(","))
    assert least / 60 <= minutes < least / 60 + 0.11
    assert fitted(settings, prepared, 60 * minutes).settings.peft == ("lora",)


def test_a_scoring_and_its_random_control_are_counted(world: World) -> None:
    scored = by_epochs(world, selections=("tsds:top=6",))
    prepared = prepare(scored.data)
    cells = sum(by_hand(prepared, k, RATES["lora"]) for k in (0, 24, 6, 6))
    planned = fitted(scored, prepared, 1e6)
    assert planned.seconds > cells
    other = by_epochs(world, selections=("influence:top=6",))
    assert fitted(other, prepared, 1e6).seconds > planned.seconds
    # A reference model that no cell shares is one training more.
    apart = by_epochs(world, selections=("tsds:top=6",), reference_peft="ia3")
    slower = fitted(apart, prepared, 1e6, rates={"lora": 10.0, "ia3": 10.0})
    assert slower.seconds - planned.seconds == pytest.approx(by_hand(prepared, 0, 10.0))


def test_what_is_found_costs_nothing(world: World, store: Store) -> None:
    settings = by_epochs(world, selections=("tsds:top=6",))
    prepared = prepare(settings.data)
    ledger = MlflowLedger(store, settings.experiment)
    before = fitted(settings, prepared, 1e6, ledger)
    assert (before.n_found, before.seconds > 0) == (0, True)
    result = compare(settings, prepared, ledger, Listener())
    assert not result.left_out
    again = fitted(settings, prepared, 0.01, ledger)
    assert (again.seconds, again.n_found, again.left_out) == (0.0, 4, ())
    more = fitted(settings.model_copy(update={"seeds": 2}), prepared, 1e6, ledger)
    assert more.n_found == 4
    cells = [by_hand(prepared, k, RATES["lora"]) for k in (0, N_SECONDARY, 6, 6)]
    assert more.seconds == pytest.approx(sum(cells))


def test_a_rate_that_was_too_good_is_corrected_while_it_runs(world: World) -> None:
    settings = by_epochs(world, selections=("none",), peft=("lora", "ia3"), seeds=2, controls=False)
    prepared = prepare(settings.data)
    lora, ia3 = (by_hand(prepared, 0, RATES[p]) for p in ("lora", "ia3"))
    cells = {(c.peft, c.seed): [c] for c in make_plan(settings).cells()}
    now = [0.0]
    pace = RunningPace(Costs(prepared, settings.training, RATES), 4 * (lora + ia3), lambda: now[0])
    assert pace.fits(cells["lora", 0], {}, N_SECONDARY)
    now[0] = 2 * lora  # twice as slow as planned
    assert pace.fits(cells["ia3", 0], {}, N_SECONDARY)
    now[0] = 4 * (lora + ia3) - 1.9 * lora
    assert not pace.fits(cells["lora", 1], {}, N_SECONDARY)
    now[0] = 0.0
    assert pace.fits(cells["ia3", 1], {}, N_SECONDARY)


class NoTime:
    """There is no time for anything."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int, int]] = []

    def fits(self, cells: Sequence[Cell], scores: ScoresByMethod, n_pool: int) -> bool:
        self.asked.append((cells[0].peft, cells[0].seed, len(cells)))
        return False


def test_what_does_not_fit_is_not_started_and_methods_stay_whole(
    world: World, store: Store
) -> None:
    settings = by_epochs(world, selections=("random:k=6",), peft=("lora", "ia3"), seeds=2)
    pace, listener = NoTime(), Listener()
    ledger = MlflowLedger(store, settings.experiment)
    result = compare(settings, prepare(settings.data), ledger, listener, pace=pace)
    assert [(c.peft, c.seed) for c in result.cells] == [("lora", 0)] * 3
    assert pace.asked == [("lora", 0, 3), ("ia3", 0, 3), ("lora", 1, 3), ("ia3", 1, 3)]
    assert len(listener.done) == 3
    assert [text.split(" (")[0] for text in result.left_out] == [
        "ia3 with seed 0", "lora with seed 1", "ia3 with seed 1",
    ]  # fmt: skip


def test_one_seed_left_of_several_is_said_to_allow_no_verdict(world: World) -> None:
    several = by_epochs(world, seeds=3)
    said = without_verdict(several, [0])
    assert said is not None
    assert said.startswith("one seed is left, and with one seed there is no verdict")
    assert without_verdict(several, [0, 1]) is None
    assert without_verdict(by_epochs(world, seeds=1), [0]) is None, "one was asked for"


def test_a_reference_model_of_a_method_not_compared_is_taken_for_the_slowest(world: World) -> None:
    settings = by_epochs(world, selections=("tsds",), peft=("ia3",), reference_peft="full")
    prepared = prepare(settings.data)
    same = by_epochs(world, selections=("tsds",), peft=("ia3",), reference_peft="ia3")
    other = fitted(settings, prepared, 1e6, rates={"ia3": 50.0}).seconds
    own = fitted(same, prepared, 1e6, rates={"ia3": 50.0}).seconds
    assert other == pytest.approx(own + by_hand(prepared, 0, 50.0))


def test_what_was_named_twice_is_left_out_once_it_is_named_no_more(world: World) -> None:
    settings = by_epochs(
        world, selections=("random:k=6", "random:k=06"), peft=("lora", "lora", "ia3")
    )
    prepared = prepare(settings.data)
    least = sum(by_hand(prepared, k, RATES["lora"]) for k in (0, 24, 6))
    assert fitted(settings, prepared, least + 1).left_out == ("method ia3",)
    with pytest.raises(SettingsError, match="nothing fits: the smallest comparison"):
        fitted(settings, prepared, least - 1)
