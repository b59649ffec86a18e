"""A whole comparison, with the real ledger and a tiny model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from lipo_cli.comparison import cell_runs as cell_runs_module
from lipo_cli.comparison import cells as cells_module
from lipo_cli.comparison import engine as engine_module
from lipo_cli.comparison.engine import compare
from lipo_cli.comparison.plan import Cell, Choice
from lipo_cli.comparison.prepare import other_splits, prepare
from lipo_cli.comparison.reference import other_references, reference_model
from lipo_cli.comparison.result import Comparison
from lipo_cli.errors import (
    DataError,
    Interrupted,
    SettingsError,
    TrackingError,
    TrainingError,
    ValuationError,
)
from lipo_cli.model.regressor import Regressor
from lipo_cli.settings import CompareSettings, ScoringMethod
from lipo_cli.tracking.ledger import MlflowLedger
from lipo_cli.tracking.runs import find_runs
from lipo_cli.tracking.store import Store, open_store
from lipo_cli.tracking.versions import regressor_folder
from lipo_cli.training.examples import Examples
from lipo_cli.training.finetune import FitResult
from lipo_cli.valuation.selection_text import parse_selection
from tests.comparison.conftest import Listener, World
from tests.fixtures.models import tiny_checkpoint

FEW = np.arange(5)
NUMBERS = (
    "selection",
    "peft",
    "seed",
    "n_selected",
    "n_train",
    "val_rmse",
    "test_rmse",
    "test_mae",
)


def run(
    settings: CompareSettings,
    store: Store,
    listener: Listener | None = None,
    *,
    pool_is_sound: bool = True,
) -> Comparison:
    ledger = MlflowLedger(store, settings.experiment)
    prepared = prepare(settings.data)
    return compare(
        settings,
        prepared,
        ledger,
        listener or Listener(),
        pool_is_sound=pool_is_sound,
        other_splits=other_splits(settings),
    )


def table(result: Comparison) -> list[tuple[object, ...]]:
    return [tuple(cell.as_dict()[name] for name in NUMBERS) for cell in result.cells]


def test_every_cell_has_its_controls_and_honest_numbers(world: World, store: Store) -> None:
    settings = world.settings(selections=("tsds:top=6",))
    result = run(settings, store)
    assert [cell.selection for cell in result.cells] == ["none", "all", "tsds:top=6", "random:k=6"]
    assert [cell.n_selected for cell in result.cells] == [0, 24, 6, 6]
    prepared = prepare(settings.data)
    test = prepared.part("test")
    for cell in result.cells:
        assert cell.status == "finished"
        assert cell.run_id is not None
        folder = MlflowLedger(store, settings.experiment).regressor_folder(cell.run_id)
        predicted = Regressor.load(folder).predict(test.smiles)
        rmse = float(np.sqrt(np.mean((predicted - test.labels) ** 2)))
        assert cell.test_rmse == pytest.approx(rmse, abs=1e-6)
        assert cell.n_train == len(prepared.train) + (cell.n_selected or 0)


def test_more_rows_train_longer_only_without_equal_steps(
    world: World, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[tuple[int, int]] = []
    original = cells_module.fit

    def counting(regressor: Regressor, train: Examples, *args: Any, **options: Any) -> FitResult:
        steps = 0
        step = torch.optim.AdamW.step

        def one_more(optimizer: torch.optim.AdamW, *rest: object) -> object:
            nonlocal steps
            steps += 1
            return step(optimizer, *rest)

        with monkeypatch.context() as patched:
            patched.setattr(torch.optim.AdamW, "step", one_more)
            result = original(regressor, train, *args, **options)
        counted.append((len(train), steps))
        return result

    monkeypatch.setattr(cells_module, "fit", counting)
    settings = world.settings(selections=("random:k=6",))
    run(settings, store)
    equal = dict(counted)
    assert len(equal) == 3  # none, all, random
    assert len(set(equal.values())) == 1
    counted.clear()
    training = settings.training.model_copy(update={"equal_steps": False})
    again = run(settings.model_copy(update={"training": training}), store)
    epochs, size = settings.training.epochs, settings.training.batch_size
    assert all(steps == epochs * math.ceil(n / size) for n, steps in counted)
    assert len({steps for _, steps in counted}) == 2
    # Without added points equal steps are what they are: found, not trained anew.
    assert [cell.selection for cell in again.cells if cell.reused] == ["none"]


def test_the_champion_is_registered_and_is_the_best_on_validation(
    world: World, store: Store
) -> None:
    result = run(world.settings(), store)
    best = min(result.cells, key=lambda cell: cell.val_rmse or np.inf)
    assert result.champion is not None
    assert result.champion["run_id"] == best.run_id
    assert result.best is best
    folder = regressor_folder(store, "models:/lipophilicity@champion")
    assert (folder / "manifest.json").is_file()


def test_a_title_that_is_refused_takes_no_table_away(
    world: World, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise TrackingError("the registry is not there")

    monkeypatch.setattr(MlflowLedger, "promote", refuse)
    result = run(world.settings(selections=("random:k=6",)), store)
    assert result.best is not None
    assert result.champion is None
    assert str(result.refused) == "the registry is not there"
    assert all(cell.status == "finished" for cell in result.cells)
    assert result.summary


def test_a_pool_that_failed_its_audit_leaves_the_control_as_the_best(
    world: World, store: Store
) -> None:
    settings = world.settings(selections=("random:k=6",))
    result = run(settings, store, pool_is_sound=False)
    assert result.best is not None
    assert result.best.n_selected == 0
    assert result.champion is not None
    assert result.champion["run_id"] == result.best.run_id
    alone = world.settings(selections=("random:k=6",), controls=False)
    nothing = run(alone, store, pool_is_sound=False)
    assert (nothing.best, nothing.champion) == (None, None)


def test_a_second_run_computes_nothing_and_says_the_same(world: World, store: Store) -> None:
    first = run(world.settings(), store)
    n_runs = len(find_runs(store, "lipo-compare"))
    listener = Listener()
    second = run(world.settings(), store, listener)
    assert listener.heard == []
    assert all(cell.reused for cell in second.cells)
    assert table(second) == table(first)
    for before, after in zip(first.cells, second.cells, strict=True):
        assert after.history == before.history
        pd.testing.assert_frame_equal(after.predictions, before.predictions)
    assert len(find_runs(store, "lipo-compare")) == n_runs


@pytest.mark.parametrize("where", [("none", 2), ("all", 1), ("tsds:top=6", 3)])
def test_an_interrupted_comparison_goes_on_and_ends_the_same(
    world: World, store: Store, tmp_path: Path, where: tuple[str, int]
) -> None:
    settings = world.settings(selections=("tsds:top=6",))
    with pytest.raises(KeyboardInterrupt):
        run(settings, store, Listener(interrupt_at=where))
    assert {found.status for found in find_runs(store, "lipo-compare")} <= {"FINISHED", "KILLED"}
    listener = Listener()
    resumed = run(settings, store, listener)
    assert where not in listener.heard
    whole = run(settings, open_store(tmp_path / "other"))
    assert table(resumed) == table(whole)
    assert {found.status for found in find_runs(store, "lipo-compare")} == {"FINISHED"}


def test_a_failed_cell_does_not_stop_the_rest(
    world: World, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = cells_module.fit

    def sometimes(regressor, train, validation, **kwargs):  # type: ignore[no-untyped-def]
        if len(train) == len(prepare(world.settings().data).train) + 24:
            raise TrainingError("training loss became nan in epoch 1")
        return real(regressor, train, validation, **kwargs)

    monkeypatch.setattr(cells_module, "fit", sometimes)
    result = run(world.settings(), store)
    states = {cell.selection: cell.status for cell in result.cells}
    assert states["all"] == "failed"
    assert set(states.values()) == {"failed", "finished"}
    assert result.n_failed == 1
    failed = next(cell for cell in result.cells if cell.selection == "all")
    assert "nan in epoch 1" in (failed.error or "")
    assert failed.as_dict()["test_rmse"] is None


def test_test_labels_decide_nothing(world: World, store: Store, tmp_path: Path) -> None:
    """Whatever the test labels say, values, choices and validation numbers stay."""
    settings = world.settings(
        selections=("none", "all", "tsds", "influence", "knn", "loo", "uncertain:top=5"),
        controls=False,
        influence={"part": "head"},
        training={"epochs": 1},
    )
    first = run(settings, store)
    prepared = prepare(world.settings().data)
    frame = pd.read_csv(world.primary)
    label = prepared.dataset.primary.label_column
    rows = prepared.dataset.primary.frame["row"].to_numpy()[prepared.split.test]
    frame.loc[rows, label] = 100.0
    frame.to_csv(world.primary, index=False)
    second = run(settings, open_store(tmp_path / "other"))
    # (A choice of nothing is the control of the same run over again.)
    trained = [cell for cell in second.cells if cell.n_selected or cell.selection == "none"]
    assert any(cell.selection == "influence" for cell in second.cells)
    assert not any(cell.reused and cell.selection in ("none", "all") for cell in trained)
    assert [c.val_rmse for c in second.cells] == [c.val_rmse for c in first.cells]
    assert [c.test_rmse for c in second.cells] != [c.test_rmse for c in first.cells]
    assert set(first.scored) == {"tsds", "influence", "knn", "loo", "uncertain"}
    for method, scored in first.scored.items():
        pd.testing.assert_frame_equal(scored.table, second.scored[method].table)


def test_secondary_molecules_of_validation_and_test_are_not_scored(
    world: World, store: Store
) -> None:
    prepared = prepare(world.settings().data)
    stolen = [prepared.part("test").smiles[0], prepared.validation.smiles[0]]
    secondary = pd.read_csv(world.secondary)
    table_read = prepared.require_pool().table
    assert table_read.label_column is not None
    extra = pd.DataFrame({table_read.smiles_column: stolen, table_read.label_column: [1.0, 1.0]})
    pd.concat([secondary, extra]).fillna(1.0).to_csv(world.secondary, index=False)
    pool = prepare(world.settings().data).require_pool()
    assert (pool.overlap.dropped_test, pool.overlap.dropped_val) == (1, 1)
    assert not set(stolen) & set(pool.examples.smiles)
    assert len(run(world.settings(), store).chosen["all"]) == 24


def test_other_settings_data_or_choices_are_computed_anew(world: World, store: Store) -> None:
    run(world.settings(controls=False, selections=("none",)), store)
    again = run(world.settings(controls=False, selections=("none",)), store)
    assert again.cells[0].reused
    changed = world.settings(controls=False, selections=("none",), training={"weight_decay": 0.5})
    assert not run(changed, store).cells[0].reused
    frame = pd.read_csv(world.primary)
    frame.to_csv(world.primary, index=False, lineterminator="\r\n")
    written_otherwise = run(world.settings(controls=False, selections=("none",)), store)
    assert written_otherwise.cells[0].reused, "the same molecules and labels are the same data"
    frame.loc[prepare(world.settings().data).split.train[0], "logd"] += 0.5
    frame.to_csv(world.primary, index=False)
    other_label = run(world.settings(controls=False, selections=("none",)), store)
    assert not other_label.cells[0].reused


def test_without_a_secondary_set_there_is_nothing_to_choose(world: World, store: Store) -> None:
    with pytest.raises(DataError, match="--secondary"):
        run(world.settings(data={"secondary": None}), store)
    alone = run(
        world.settings(data={"secondary": None}, selections=("none",), controls=False), store
    )
    assert alone.cells[0].status == "finished"


def test_random_controls_of_two_seeds_take_different_points(
    world: World, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = world.settings(selections=("random:k=6",), controls=False, seeds=2)
    chosen: dict[int, list[int]] = {}
    real = cell_runs_module.run_cell

    def heard(cell, rows, *more, **named):  # type: ignore[no-untyped-def]
        chosen[cell.seed] = rows.tolist()
        return real(cell, rows, *more, **named)

    monkeypatch.setattr(cell_runs_module, "run_cell", heard)
    run(settings, store)
    assert {seed: len(set(rows)) for seed, rows in chosen.items()} == {0: 6, 1: 6}
    assert chosen[0] != chosen[1]


def test_values_of_the_same_molecules_in_other_rows_are_another_table(
    world: World, store: Store
) -> None:
    settings = world.settings(selections=("tsds:top=6",))
    first = Listener()
    run(settings, store, first)
    shifted = pd.read_csv(world.secondary)
    taken = pd.read_csv(world.primary).iloc[[prepare(settings.data).split.test[0]]]
    pd.concat([taken[shifted.columns.intersection(taken.columns)], shifted]).to_csv(
        world.secondary, index=False
    )
    second = Listener()
    run(settings, store, second)
    assert second.values.table["row"].tolist() == (first.values.table["row"] + 1).tolist()
    assert second.values.table["value"].tolist() == first.values.table["value"].tolist()


def test_two_models_have_cells_of_their_own(world: World, store: Store, tmp_path: Path) -> None:
    """The cells of each model are those of a comparison of it alone."""
    other = str(tiny_checkpoint(tmp_path / "adapted", seed=5))
    plain = world.settings(selections=("none",), controls=False, peft=("full",))
    base = plain.training.model
    both = plain.model_copy(update={"models": (base, other)})
    result = run(both, store)
    assert [cell.model for cell in result.cells] == [base, other]
    labels = [cell.label for cell in result.cells]
    assert labels == [f"none ({Path(base).name})", "none (adapted)"]
    assert result.summary[1].delta_model == pytest.approx(
        (result.cells[1].test_rmse or 0) - (result.cells[0].test_rmse or 0)
    )
    for i, model in enumerate((base, other)):
        training = plain.training.model_copy(update={"model": model})
        alone = run(plain.model_copy(update={"training": training}), store).cells[0]
        assert alone.reused
        assert alone.test_rmse == result.cells[i].test_rmse
    again = run(both, store)
    assert all(cell.reused for cell in again.cells)


def test_a_signal_in_a_cell_is_no_failed_cell(
    world: World, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_args: object, **_more: object) -> None:
        raise Interrupted(15)

    monkeypatch.setattr(cells_module, "fit", stopped)
    with pytest.raises(Interrupted):
        run(world.settings(), store)
    states = [found.status for found in find_runs(store, "lipo-compare")]
    assert states
    assert set(states) == {"KILLED"}


def test_a_cell_cut_off_under_one_spelling_goes_on_under_another(
    world: World, store: Store, tmp_path: Path
) -> None:
    named = world.settings(selections=("tsds:positive",))
    with pytest.raises(KeyboardInterrupt):
        run(named, store, Listener(interrupt_at=("tsds:positive", 2)))
    settings = world.settings(selections=("tsds:positive=0",))
    listener = Listener()
    resumed = run(settings, store, listener)
    assert resumed.n_failed == 0
    assert ("tsds:positive=0", 1) not in listener.heard
    whole = run(settings, open_store(tmp_path / "other"))
    assert table(resumed) == table(whole)


def test_selections_of_several_methods_are_each_chosen_by_their_own_values(
    world: World, store: Store
) -> None:
    asked = world.settings(selections=("tsds:top=4", "influence:top=4", "knn:bottom=4"))
    result = run(asked, store)
    assert list(result.scored) == ["tsds", "influence", "knn"]
    for name in asked.selections:
        method, rule = name.split(":")
        ranks = result.scored[method].table["rank"].to_numpy()  # type: ignore[index]
        chosen = ranks <= 4 if rule == "top=4" else ranks > len(ranks) - 4
        assert result.chosen[name].tolist() == np.flatnonzero(chosen).tolist()
    assert {c.selection for c in result.cells} == {
        *("none", "all", "random:k=4"),
        *asked.selections,
    }


def test_what_ekfac_cannot_do_is_found_before_anything_is_trained(
    world: World, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lipo_cli.comparison.reference.run_cell", None)
    with pytest.raises(ValuationError, match="a bitfit model has none below its head"):
        run(
            world.settings(
                selections=("influence:top=3",), peft=("bitfit",), influence={"solver": "ekfac"}
            ),
            store,
        )


def test_several_splits_are_as_many_comparisons_and_one_verdict(world: World, store: Store) -> None:
    drawn = {"split": "random", "split_seed": 3, "fractions": (0.6, 0.2, 0.2)}
    settings = world.settings(data=drawn, selections=("tsds:top=6",), splits=2)
    result = run(settings, store)
    names = ["none", "all", "tsds:top=6", "random:k=6"]
    assert [(cell.split, cell.selection) for cell in result.cells] == [
        (split, name) for split in (3, 4) for name in names
    ]
    for split in (3, 4):
        alone = world.settings(data={**drawn, "split_seed": split}, selections=("tsds:top=6",))
        own = [row for row in result.cells if row.split == split]
        # The cells of a split are those of a comparison on it alone: found again, each of them.
        single = run(alone, store)
        assert all(cell.reused for cell in single.cells)
        assert [cell.test_rmse for cell in single.cells] == [cell.test_rmse for cell in own]
    assert {(v.selection, v.against) for v in result.verdicts} == {
        ("all", "none"),
        ("tsds:top=6", "none"),
        ("tsds:top=6", "all"),
        ("tsds:top=6", "random:k=6"),
    }
    assert all(v.n_splits == 2 and v.p is not None for v in result.verdicts)
    assert result.best is not None
    assert result.best.split == 3


def test_one_fixed_split_cannot_be_drawn_again(world: World) -> None:
    with pytest.raises(SettingsError, match="for several, take random or scaffold_balanced"):
        world.settings(splits=2)


def test_a_selection_that_keeps_nothing_is_the_control_found_again(
    world: World, store: Store
) -> None:
    settings = world.settings(selections=("tsds:positive=1000000",), controls=False)
    result = run(world.settings(selections=("none",), controls=False), store)
    nothing = run(settings, store).cells[0]
    assert (nothing.selection, nothing.n_selected) == ("tsds:positive=1000000", 0)
    assert nothing.reused
    assert nothing.run_id == result.cells[0].run_id


def test_a_later_split_that_cannot_be_run_is_found_before_anything_is_trained(
    world: World, store: Store
) -> None:
    settings = world.settings(
        data={"split": "random", "fractions": (0.6, 0.2, 0.2)},
        selections=("random:k=24",),
        splits=2,
    )
    first, second = prepare(settings.data), *other_splits(settings)
    assert second.pool is not None
    smaller = replace(second, pool=replace(second.pool, examples=second.pool.examples.take(FEW)))
    listener = Listener()
    with pytest.raises(SettingsError, match="of a pool of 5"):
        compare(
            settings,
            first,
            MlflowLedger(store, settings.experiment),
            listener,
            other_splits=[smaller],
        )
    assert listener.heard == []


def test_a_later_split_that_cannot_be_scored_leaves_the_first_its_results(
    world: World, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = engine_module.reference_model

    def diverging(cell, *rest):  # type: ignore[no-untyped-def]
        if cell.split == 1:
            raise TrainingError("the loss became nan in epoch 1")
        return trained(cell, *rest)

    monkeypatch.setattr(engine_module, "reference_model", diverging)
    settings = world.settings(
        data={"split": "random", "fractions": (0.6, 0.2, 0.2)},
        selections=("tsds:top=6",),
        splits=2,
    )
    result = run(settings, store)
    assert [c.status for c in result.cells] == [
        *["finished"] * 4,
        *("failed", "finished", "failed"),  # what needs no values is run all the same
    ]
    none, _, chosen = result.cells[4:]
    assert none.error == "the loss became nan in epoch 1"
    assert chosen.error is not None
    assert chosen.error.startswith("no values: split 1 / none / lora / seed 0, which is to give")
    assert chosen.error.endswith("failed: the loss became nan in epoch 1")
    assert all(v.n_splits == 1 for v in result.verdicts)
    assert result.best is not None
    alone = world.settings(
        data={"split": "random", "split_seed": 1, "fractions": (0.6, 0.2, 0.2)},
        selections=("tsds:top=6",),
    )
    monkeypatch.setattr(
        engine_module,
        "reference_model",
        lambda cell, *rest: diverging(replace(cell, split=1), *rest),
    )
    first = run(alone, store)
    assert [c.status for c in first.cells] == ["failed", "finished", "failed"]
    assert (first.scored, first.chosen.keys()) == ({}, {"none", "all"})
    assert first.best is not None
    assert first.best.selection == "all"


def test_the_reference_embeds_each_set_once_for_all_methods_and_the_values_are_the_same(
    world: World, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedded: list[int] = []
    embed = Regressor.embed

    def counting(self: Regressor, smiles: Sequence[str], **options: Any) -> Any:
        embedded.append(len(smiles))
        return embed(self, smiles, **options)

    monkeypatch.setattr(Regressor, "embed", counting)
    one, other = "knn:top=6", "loo:top=6"
    together = run(world.settings(selections=(one, other)), store)
    prepared = prepare(world.settings().data)
    assert embedded == [len(prepared.train), len(prepared.validation), 24]
    pairs: tuple[tuple[str, ScoringMethod], ...] = ((one, "knn"), (other, "loo"))
    for selection, method in pairs:
        apart = open_store(tmp_path / f"apart-{method}")
        alone = run(world.settings(selections=(selection,)), apart)
        expected = alone.scored[method].scores.values
        np.testing.assert_array_equal(together.scored[method].scores.values, expected)


def test_a_reference_of_another_method_is_known_of_before_one_is_trained(
    world: World, store: Store
) -> None:
    settings, prepared = world.settings(), prepare(world.settings().data)
    ledger = MlflowLedger(store, settings.experiment)
    lora = Cell(Choice("none", parse_selection("none"), "control"), "lora", 0)
    ia3 = replace(lora, peft="ia3")
    assert other_references(ia3, prepared, settings.training, ledger) == []
    reference_model(lora, prepared, settings.training, ledger, Listener())
    assert other_references(ia3, prepared, settings.training, ledger) == ["lora"]
    assert other_references(lora, prepared, settings.training, ledger) == []
    other_seed = replace(ia3, seed=1)
    assert other_references(other_seed, prepared, settings.training, ledger) == []


def test_selections_of_the_whole_pool_share_the_cells_of_all(world: World, store: Store) -> None:
    whole = ("all", "tsds:top=24", "tsds:bottom=24", "random:k=24")
    settings = world.settings(selections=whole[1:], seeds=2, training={"epochs": 1})
    result = run(settings, store)
    assert {cell.selection for cell in result.cells} == {"none", *whole}
    for seed in (0, 1):
        of_seed = {cell.selection: cell for cell in result.cells if cell.seed == seed}
        run_ids = {of_seed[name].run_id for name in whole}
        assert len(run_ids) == 1
        assert run_ids != {of_seed["none"].run_id}
        assert [of_seed[name].reused for name in whole] == [False, True, True, True]
        assert len({of_seed[name].test_rmse for name in whole}) == 1
    kept = find_runs(store, settings.experiment, "tags.`lipo.kind` = 'cell'")
    assert len(kept) == 4  # none and all, with two seeds
    assert {(v.against, v.n_tests) for v in result.verdicts} == {("none", 1)}
