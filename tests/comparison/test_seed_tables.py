"""Published numbers beside ours."""

from __future__ import annotations

from pathlib import Path

import pytest

from lipo_cli.comparison.cell_result import CellResult
from lipo_cli.comparison.plan import make_plan
from lipo_cli.comparison.seed_figures import draw_tables
from lipo_cli.comparison.seed_tables import (
    Published,
    departures,
    read_published,
    said_of_model,
    side_by_side,
    tables_frame,
)
from lipo_cli.presets import FOLDER, read_preset
from lipo_cli.settings import CompareSettings, Peft, build


@pytest.fixture(scope="module")
def published() -> Published:
    return read_published(FOLDER / "seed_figures.toml")


@pytest.fixture(scope="module")
def tasks() -> dict[str, CompareSettings]:
    preset = read_preset("seed")
    return {t: build(CompareSettings, preset.layer, layer) for t, layer in preset.tasks.items()}


def cell(selection: str, peft: Peft, seed: int = 0, **changes: object) -> CellResult:
    fields: dict[str, object] = {
        "role": "asked", "status": "finished", "n_selected": 7, "test_rmse": 1.0 + seed,
        "val_rmse": 2.0, "seconds": 120.0, "history": [{"epoch": 1.0}] * 4,
    }  # fmt: skip
    return CellResult(selection, peft, seed, **{**fields, **changes})  # type: ignore[arg-type]


def test_every_published_cell_is_in_the_plan_and_no_other(
    published: Published, tasks: dict[str, CompareSettings]
) -> None:
    assert published.tables.keys() == tasks.keys()
    for task, table in published.tables.items():
        theirs = {(row.selection, peft) for row in table.rows for peft in row.rmse()}
        ours = {(c.choice.name, c.peft) for c in make_plan(tasks[task]).cells()}
        assert theirs == ours


def test_the_published_numbers_agree_with_themselves(published: Published) -> None:
    """Task 3 took over what task 2 had trained: its column `full` repeats two of its numbers."""
    rows = {row.selection: row for row in published.tables["task3"].rows}
    for row in published.tables["task2"].rows:
        if row.selection in rows:
            assert rows[row.selection].full == row.full
    assert sum(len(t.rows) for t in published.tables.values()) == 8
    assert sum(len(r.rmse()) for t in published.tables.values() for r in t.rows) == 17
    assert rows["tsds"].minutes == {"full": 29, "bitfit": 18, "lora": 18, "ia3": 23}


def test_the_recipe_is_theirs(tasks: dict[str, CompareSettings]) -> None:
    for task, settings in tasks.items():
        training = settings.training
        assert (training.learning_rate, training.batch_size, training.max_length) == (1e-7, 16, 128)
        assert (training.weight_decay, training.warmup, training.averaging) == (0, 0, 0)
        assert (training.layer_decay, training.randomise, training.standardise) == (1, 0, False)
        assert (training.lora_rank, training.lora_alpha, training.lora_dropout) == (4, 8, 0.1)
        assert training.lora_targets == "attention"
        assert (settings.seeds, settings.controls, settings.data.split) == (1, False, "reference")
        stops = (50, 5, 0.001) if task == "task3" else (20, None, 0.001)
        assert (training.epochs, training.patience, training.min_delta) == stops
        assert settings.influence.target == "validation"


def test_ours_stand_beside_theirs_with_means_over_seeds(published: Published) -> None:
    cells = [cell("tsds", "lora", seed) for seed in (0, 1, 2)]
    cells.append(cell("tsds", "ia3", status="failed", error="it diverged"))
    paired = {
        (c.selection, c.peft): c for c in side_by_side("task3", published.tables["task3"], cells)
    }
    assert len(paired) == 12
    lora = paired["tsds", "lora"]
    assert (lora.test_rmse_reference, lora.minutes_reference, lora.chosen_reference) == (
        1.1471, 18, 159,
    )  # fmt: skip
    assert (lora.test_rmse, lora.test_rmse_sd, lora.n_seeds) == (2.0, 1.0, 3)
    assert lora.difference == pytest.approx(2.0 - 1.1471)
    assert (lora.minutes, lora.epochs, lora.chosen) == (2.0, 4.0, 7)
    assert (paired["tsds", "ia3"].error, paired["tsds", "ia3"].test_rmse) == ("it diverged", None)
    assert paired["all", "full"].test_rmse is None
    assert len(tables_frame(list(paired.values()))) == 12


def test_the_adapted_model_is_told_from_its_base(published: Published) -> None:
    table = published.tables["task1"]
    cells = [cell("none", "full", model="small"), cell("none", "full", model="there", test_rmse=9)]
    paired = side_by_side("task1", table, cells, adapted_model="there")
    assert [(c.adapted, c.test_rmse) for c in paired] == [(False, 1.0), (True, 9)]
    alone = side_by_side("task1", table, [cell("none", "full")], error="no such model")
    assert [(c.test_rmse, c.error) for c in alone] == [(1.0, None), (None, "no such model")]


def test_what_was_changed_is_said(tasks: dict[str, CompareSettings]) -> None:
    assert departures(tasks, tasks) == ""
    other = {t: build(CompareSettings, s.model_dump(), {"training": {"epochs": 2}})
             for t, s in tasks.items()}  # fmt: skip
    assert departures(other, tasks) == "Changed from the preset: training.epochs = 2."
    assert said_of_model("ibm-research/MoLFormer-XL-both-10pct") == ""
    assert "this is small" in said_of_model("small")


def test_the_figures_are_drawn_of_what_there_is(published: Published, tmp_path: Path) -> None:
    table = published.tables["task3"]
    none = side_by_side("task3", table, [])
    assert draw_tables(none, tmp_path, "logD") == []
    some = side_by_side("task3", table, [cell("tsds", "lora")])
    names = [path.name for path in draw_tables(some, tmp_path, "logD")]
    assert names == ["test_rmse_beside_reference.png", "training_time_beside_reference.png"]
