"""The pictures show what the engine decided."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from lipo_cli.comparison import figures
from lipo_cli.comparison.cell_result import CellResult
from lipo_cli.comparison.result import Comparison
from lipo_cli.comparison.summary import pick_champion, summarise

PREDICTIONS = pd.DataFrame(
    {"part": ["test"] * 3, "measured": [1.0, 2.0, 3.0], "predicted": [1.1, 1.9, 3.2]}
)


def cell(selection: str, n_selected: int, val_rmse: float) -> CellResult:
    return CellResult(
        selection=selection, peft="lora", seed=0, role="control", status="finished",
        run_id=selection, n_selected=n_selected, val_rmse=val_rmse, test_rmse=0.6, seconds=1.0,
        predictions=PREDICTIONS,
        history=[{"epoch": 1.0, "val_rmse": val_rmse, "train_rmse": val_rmse}],
    )  # fmt: skip


def comparison(cells: list[CellResult], *, pool_is_sound: bool) -> Comparison:
    summary = summarise(cells)
    best = pick_champion(cells, pool_is_sound=pool_is_sound)
    prepared: Any = None
    return Comparison(prepared, cells, summary, [], [], {}, best=best)


@pytest.mark.parametrize(("pool_is_sound", "shown"), [(True, "all"), (False, "none")])
def test_the_cell_shown_is_the_one_that_was_offered_as_champion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pool_is_sound: bool, shown: str
) -> None:
    drawn: list[CellResult] = []
    real = figures.predicted_vs_measured

    def watched(cell: CellResult, label: str) -> Any:
        drawn.append(cell)
        return real(cell, label)

    monkeypatch.setattr(figures, "predicted_vs_measured", watched)
    cells = [cell("none", 0, 0.7), cell("all", 9, 0.1)]
    paths = figures.draw_all(comparison(cells, pool_is_sound=pool_is_sound), tmp_path, "logD")
    assert [found.selection for found in drawn] == [shown]
    assert tmp_path / "predicted_vs_measured.png" in paths


def test_without_a_champion_no_cell_stands_for_it(tmp_path: Path) -> None:
    paths = figures.draw_all(
        comparison([cell("all", 9, 0.1)], pool_is_sound=False), tmp_path, "logD"
    )
    names = [path.name for path in paths]
    assert "rmse_by_cell.png" in names
    assert "predicted_vs_measured.png" not in names
