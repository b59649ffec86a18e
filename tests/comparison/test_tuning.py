"""Tuning with the real ledger and a tiny model, alone and in a comparison."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from lipo_cli.comparison import tuning as tuning_module
from lipo_cli.comparison.engine import compare
from lipo_cli.comparison.plan import NO_ROWS, Cell, make_plan
from lipo_cli.comparison.prepare import prepare
from lipo_cli.comparison.result import Comparison
from lipo_cli.comparison.tuning import tune
from lipo_cli.comparison.tuning_figures import draw_tuning
from lipo_cli.comparison.tuning_methods import Tunings, tuned_cells, tuning_seconds
from lipo_cli.comparison.tuning_result import Tuned
from lipo_cli.comparison.tuning_study import OpenStudy
from lipo_cli.comparison.tuning_trial import TrialResult
from lipo_cli.errors import TrainingError
from lipo_cli.settings import CompareSettings
from lipo_cli.tracking.handle import WAS_FINISHED_TAG
from lipo_cli.tracking.ledger import MlflowLedger
from lipo_cli.tracking.runs import FoundRun, find_children, find_runs
from lipo_cli.tracking.store import Store
from tests.comparison.conftest import Listener, World

N = 7
BAD_RATE = 1e-7


def settings_of(world: World, **changes: object) -> CompareSettings:
    """Returns settings that start at a rate that hardly trains."""
    base: dict[str, Any] = {
        "tuning": {"trials": N, "startup_trials": 3, "prune_after_trials": 2},
        "training": {"learning_rate": BAD_RATE, "epochs": 3, "batch_size": 16},
        "selections": ("none",),
        "controls": False,
    }
    return world.settings(**{**base, **changes})


def tuned_in(store: Store, settings: CompareSettings, listener: Listener | None = None) -> Tuned:
    ledger = MlflowLedger(store, settings.experiment)
    cell = tuned_cells(make_plan(settings), settings)[0]
    prepared = prepare(settings.data)
    view = listener or Listener()
    return tune(cell, NO_ROWS, prepared, settings.training, settings.tuning, ledger, view)


def compared(
    store: Store, settings: CompareSettings, listener: Listener | None = None
) -> Comparison:
    ledger = MlflowLedger(store, settings.experiment)
    return compare(settings, prepare(settings.data), ledger, listener or Listener())


def runs_of(store: Store, kind: str) -> list[FoundRun]:
    return find_runs(store, "lipo-compare", f"tags.`lipo.kind` = '{kind}'")


def told(tuned: Tuned) -> list[tuple[Any, ...]]:
    return [(t.ordinal, t.state, t.parameters, t.val_rmse) for t in tuned.trials]


def test_it_improves_on_a_rate_that_hardly_trains(world: World, store: Store) -> None:
    listener = Listener()
    tuned = tuned_in(store, settings_of(world), listener)
    assert tuned.first.parameters == {"learning_rate": BAD_RATE, "lora_rank": 32}
    assert tuned.best.val_rmse is not None
    assert tuned.first.val_rmse is not None
    assert tuned.best.val_rmse < tuned.first.val_rmse - 0.02
    assert tuned.parameters["learning_rate"] > 100 * BAD_RATE
    assert [t.ordinal for t in listener.trials] == list(range(N))
    assert tuned.sentence().startswith(f"tuned lora in {N} trials (")
    assert f"against {tuned.first.val_rmse:.4f}" in tuned.sentence()
    assert "validation chose it" in tuned.sentence()


def test_every_trial_is_a_run_under_the_tuning(world: World, store: Store) -> None:
    tuned = tuned_in(store, settings_of(world))
    (parent,) = runs_of(store, "tuning")
    assert parent.run_id == tuned.run_id
    assert parent.metrics["val_rmse"] == tuned.best.val_rmse
    assert parent.metrics["best_trial"] == tuned.best.ordinal + 1
    children = find_children(store, "lipo-compare", parent.run_id)
    assert {run.tags["lipo.kind"] for run in children} == {"trial"}
    assert {run.status for run in children} == {"FINISHED"}
    assert len(children) == N
    assert "pruned" in {t.state for t in tuned.trials}
    for trial in tuned.trials:
        (run,) = [r for r in children if r.params["trial"] == str(trial.ordinal + 1)]
        assert run.tags["state"] == trial.state
        assert float(run.params["training.learning_rate"]) == trial.parameters["learning_rate"]
        assert run.params["training.lora_rank"] == str(trial.parameters["lora_rank"])
        assert dict(run.history("curve/val_rmse")) == trial.curve
        assert run.metrics["val_rmse"] == trial.val_rmse
        assert not [name for name in run.metrics if "test" in name]
    assert not runs_of(store, "cell")
    inputs = store.client().get_run(parent.run_id).inputs.dataset_inputs
    assert {t.value for i in inputs for t in i.tags if t.key.endswith("context")} == {
        "train", "validation",
    }  # fmt: skip


def test_the_winning_trial_is_the_control_with_what_was_found(world: World, store: Store) -> None:
    """Another way to the same number: the cell trains, selects its epoch and measures anew."""
    result = compared(store, settings_of(world))
    (tuned,) = result.tunings.found.values()
    (cell,) = result.cells
    assert cell.val_rmse == pytest.approx(tuned.best.val_rmse, abs=1e-12)
    (run,) = runs_of(store, "cell")
    assert float(run.params["training.learning_rate"]) == tuned.parameters["learning_rate"]
    assert run.params["training.lora_rank"] == str(tuned.parameters["lora_rank"])


def test_every_cell_of_a_method_has_what_was_found_on_the_control(
    world: World, store: Store
) -> None:
    untuned = compared(store, settings_of(world, tuning={"trials": None})).cells[0].run_id
    settings = settings_of(world, selections=("tsds:top=6",), controls=True, tuning={"trials": 3})
    result = compared(store, settings)
    ((key, tuned),) = result.tunings.found.items()
    assert key == ("lora", None, None)
    assert (tuned.cell.choice.name, tuned.cell.seed) == ("none", 0)
    assert tuned.best.ordinal > 0
    runs = {run.run_id: run for run in find_runs(store, "lipo-compare")}
    assert [c.selection for c in result.cells] == ["none", "all", "tsds:top=6", "random:k=6"]
    assert untuned not in [c.run_id for c in result.cells], "an untuned cell was taken"
    (scoring,) = runs_of(store, "score")
    for run in [*(runs[str(cell.run_id)] for cell in result.cells), scoring]:
        assert float(run.params["training.learning_rate"]) == tuned.parameters["learning_rate"]
        assert run.params["training.lora_rank"] == str(tuned.parameters["lora_rank"])
    listener = Listener()
    again = compared(store, settings, listener)
    assert (listener.heard, listener.trials) == ([], [])
    assert all(cell.reused for cell in again.cells)
    assert again.tunings.found[key].reused
    assert told(again.tunings.found[key]) == told(tuned)
    assert len(find_runs(store, "lipo-compare")) == len(runs)


def test_test_labels_have_no_say(world: World, store: Store) -> None:
    """Whatever the test labels say, the finished search is the same one and is found."""
    settings = settings_of(world)
    first = tuned_in(store, settings)
    prepared = prepare(settings.data)
    frame = pd.read_csv(world.primary)
    label = prepared.dataset.primary.label_column
    rows = prepared.dataset.primary.frame["row"].to_numpy()[prepared.split.test]
    frame.loc[rows, label] = 100.0
    frame.to_csv(world.primary, index=False)
    again = tuned_in(store, settings)
    assert again.reused
    assert told(again) == told(first)


@pytest.mark.parametrize("batches", [1, 40])
def test_interrupted_it_goes_on_under_the_same_runs(
    world: World, store: Store, batches: int, tmp_path: Path
) -> None:
    from lipo_cli.tracking.store import open_store

    settings = settings_of(world)
    listener = Listener()
    listener.interrupt_after_batches = batches
    with pytest.raises(KeyboardInterrupt):
        tuned_in(store, settings, listener)
    assert "RUNNING" not in {run.status for run in find_runs(store, "lipo-compare")}
    resumed = Listener()
    tuned = tuned_in(store, settings, resumed)
    assert len(resumed.trials) == N - len(listener.trials)
    whole = tuned_in(open_store(tmp_path / "other"), settings)
    assert told(tuned) == told(whole)
    assert {run.status for run in find_runs(store, "lipo-compare")} == {"FINISHED"}
    assert (len(runs_of(store, "tuning")), len(runs_of(store, "trial"))) == (1, N)


def test_more_trials_go_on_from_those_there_are_and_fewer_are_their_first(
    world: World, store: Store
) -> None:
    few = tuned_in(store, settings_of(world, tuning={"trials": 3, "startup_trials": 2}))
    listener = Listener()
    more = settings_of(world, tuning={"trials": 5, "startup_trials": 2})
    many = tuned_in(store, more, listener)
    assert [t.ordinal for t in listener.trials] == [3, 4]
    assert told(many)[:3] == told(few)
    listener = Listener()
    fewer = settings_of(world, tuning={"trials": 4, "startup_trials": 2})
    assert told(tuned_in(store, fewer, listener)) == told(many)[:4]
    assert listener.trials == []
    assert len(runs_of(store, "trial")) == 5


def let_trials_diverge(monkeypatch: pytest.MonkeyPatch, peft: str) -> None:
    real = tuning_module.fit

    def sometimes(regressor, *more, **named):  # type: ignore[no-untyped-def]
        if regressor.peft == peft:
            raise TrainingError("training loss became nan in epoch 1")
        return real(regressor, *more, **named)

    monkeypatch.setattr(tuning_module, "fit", sometimes)


def test_a_method_that_cannot_be_tuned_fails_its_cells_and_no_others(
    world: World, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_trials_diverge(monkeypatch, "ia3")
    result = compared(store, settings_of(world, peft=("lora", "ia3"), tuning={"trials": 2}))
    assert {cell.peft: cell.status for cell in result.cells} == {
        "lora": "finished", "ia3": "failed",
    }  # fmt: skip
    failed = next(cell for cell in result.cells if cell.peft == "ia3")
    assert "none of 2 tuning trials could be trained" in (failed.error or "")
    assert "nan in epoch 1" in (failed.error or "")
    states = {run.tags.get("state") for run in runs_of(store, "trial")}
    assert states == {"complete", "diverged"}


def test_a_reference_that_cannot_be_tuned_fails_what_needs_its_values(
    world: World, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_trials_diverge(monkeypatch, "lora")
    chosen = {"selections": ("none", "tsds:top=6"), "peft": ("lora", "ia3")}
    result = compared(store, settings_of(world, **chosen, tuning={"trials": 2}))
    assert {(c.selection, c.peft): c.status for c in result.cells} == {
        ("none", "lora"): "failed",
        ("tsds:top=6", "lora"): "failed",
        ("none", "ia3"): "finished",
        ("tsds:top=6", "ia3"): "failed",
    }
    assert "no values: none / lora / seed 0, which is to give them" in (
        next(c.error for c in result.cells if (c.selection, c.peft) == ("tsds:top=6", "ia3")) or ""
    )


def test_each_pretrained_model_is_tuned_of_its_own(world: World) -> None:
    settings = settings_of(world, models=("a", "b"), peft=("full", "lora"), selections=("tsds",))
    cells = tuned_cells(make_plan(settings), settings)
    assert [(c.peft, c.model) for c in cells] == [
        ("full", "a"), ("full", "b"), ("lora", "a"), ("lora", "b"),
    ]  # fmt: skip
    assert {(c.choice.name, c.seed) for c in cells} == {("none", 0)}
    other = settings.model_copy(update={"reference_peft": "bitfit"})
    assert tuned_cells(make_plan(other), other)[0].peft == "bitfit"
    unscored = other.model_copy(update={"selections": ("all",)})
    assert len(tuned_cells(make_plan(unscored), unscored)) == 4


def test_the_time_of_the_trials_is_counted(world: World) -> None:
    settings = settings_of(world, peft=("full", "lora"), tuning={"trials": 10})
    prepared = prepare(settings.data)
    molecules = len(prepared.train) + len(prepared.validation) / 3
    seconds = tuning_seconds(make_plan(settings), settings, prepared, {"full": 50.0, "lora": 100.0})
    assert seconds == pytest.approx(10 * 3 * molecules * (1 / 50 + 1 / 100))
    none = settings.model_copy(update={"tuning": type(settings.tuning)()})
    assert tuning_seconds(make_plan(none), none, prepared, {"full": 50.0}) == 0


def example(n: int, states: tuple[str, ...] = ("complete",), **importance: float) -> Tuned:
    settings = CompareSettings(peft=("lora",))
    cell: Cell = make_plan(settings).reference(settings)
    trials = []
    for i in range(n):
        state: Any = states[i % len(states)]
        value = None if state == "diverged" else 0.7 - 0.01 * i
        parameters = {"learning_rate": 10 ** (-4 + i / 8), "lora_rank": 2 + i}
        trials.append(TrialResult(i, state, parameters, value, {1: value or 0.0}, 2.0))
    return Tuned(cell, tuple(trials), dict(importance), "run")


def test_what_was_found_on_one_split_trains_no_cell_of_another(world: World) -> None:
    settings = settings_of(world)
    there, elsewhere = (tuned_cells(make_plan(settings, seed), settings)[0] for seed in (5, 6))
    tuned = example(12)
    one = Tunings({("lora", None, 5): tuned})
    broken = Tunings(failed={("lora", None, 6): TrainingError("none could be trained")})
    both = one.joined(broken)
    found = both.training(there, settings.training)
    assert (found.learning_rate, found.lora_rank) == (tuned.parameters["learning_rate"], 13)
    assert one.training(elsewhere, settings.training) == settings.training
    with pytest.raises(TrainingError, match="none could be trained"):
        both.training(elsewhere, settings.training)


@pytest.mark.parametrize(
    ("tuned", "names"),
    [
        (example(1), ["history", "parameters"]),
        (example(3, ("complete", "pruned", "diverged")), ["history", "parameters"]),
        (
            example(12, ("complete", "pruned"), learning_rate=0.8, lora_rank=0.2),
            ["history", "parameters", "importance"],
        ),
    ],
)
def test_there_is_a_figure_of_what_there_is_to_see(
    tuned: Tuned, names: list[str], tmp_path: Path
) -> None:
    paths = draw_tuning(tuned, tmp_path / "figures", "logD", "_lora")
    assert [path.name for path in paths] == [f"tuning_{name}_lora.png" for name in names]
    for path in paths:
        pixels = np.asarray(Image.open(path).convert("L"))
        assert min(pixels.shape) > 200
        assert (pixels < 200).mean() > 0.002, "an empty picture"


def test_the_best_is_complete_and_the_earliest_of_equals() -> None:
    tuned = example(6, ("complete", "pruned"))
    assert tuned.best.ordinal == 4
    assert "nothing better than the settings as they stood" in example(1).sentence()
    with pytest.raises(TrainingError, match="none of 2 tuning trials could be trained"):
        _ = example(2, ("diverged",)).best


def test_settings_that_could_not_be_trained_are_said_to_be_so() -> None:
    said = example(2, ("diverged", "complete")).sentence()
    assert "validation RMSE 0.6900 where the settings as they stood (" in said
    assert said.count("could not be trained; validation chose it") == 1
    assert (
        "validation RMSE 0.6900 against 0.7000 with the settings as they stood ("
        in example(2).sentence()
    )


def test_a_trial_that_another_took_over_leaves_no_finished_run(
    world: World, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its run is taken up again, by whoever finds the trial: it never looks like a result."""
    report, lost = OpenStudy.report, []

    def give_back_first(self: OpenStudy, trial: Any, *args: Any, **more: Any) -> bool:
        if not lost:
            lost.append(self.ordinal(trial))
            self.give_back()  # as another machine would: this process is not at a trial, it thinks
        return report(self, trial, *args, **more)

    monkeypatch.setattr(OpenStudy, "report", give_back_first)
    tuned = tuned_in(store, settings_of(world))
    assert lost == [0]
    assert [t.ordinal for t in tuned.trials] == list(range(N))
    trials = runs_of(store, "trial")
    assert len(trials) == N
    assert all(run.status == "FINISHED" and run.is_complete() for run in trials)
    assert [r.name for r in trials if r.tags.get(WAS_FINISHED_TAG) == "false"] == [trials[-1].name]
