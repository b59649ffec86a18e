"""Which cells go to workers, and which are found, failed or the same as another."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import pytest

from lipo_cli.comparison.cell_result import CellResult
from lipo_cli.comparison.cell_runs import Task, run_cells, run_task
from lipo_cli.comparison.cells import cell_fingerprint
from lipo_cli.comparison.ledger import Ledger
from lipo_cli.comparison.plan import NO_ROWS, Cell, make_plan
from lipo_cli.comparison.prepare import Prepared, prepare
from lipo_cli.comparison.view import View
from lipo_cli.errors import SettingsError
from lipo_cli.tracking.ledger import MlflowLedger
from lipo_cli.tracking.store import Store
from tests.comparison.conftest import Listener, World


class Here:
    """Workers that are this process, and write down what they were given."""

    def __init__(self) -> None:
        self.given: list[str] = []

    def run(
        self, tasks: Sequence[Task], prepared: Prepared, ledger: Ledger, view: View
    ) -> list[CellResult]:
        self.given = [task.cell.choice.name for task in tasks]
        results = [run_task(task, prepared, ledger, lambda _: None) for task in tasks]
        for result, task in zip(results, tasks, strict=True):
            view.finished(task.cell, result)
        return results


def test_workers_get_what_must_be_computed_once(world: World, store: Store) -> None:
    settings = world.settings(
        selections=("random:k=6", "random:k=24", "random:k=7"), training={"epochs": 1}
    )
    prepared = prepare(settings.data)
    cells = make_plan(settings).cells()
    assert [cell.choice.name for cell in cells] == [
        *("none", "all", "random:k=6", "random:k=24", "random:k=7")
    ]
    n_pool = len(prepared.require_pool())

    def task_of(cell: Cell) -> Task:
        if cell.choice.name == "random:k=7":
            raise SettingsError("seven will not do")
        return Task(cell, cell.choice.rows({}, n_pool, cell.seed), settings.training)

    ledger, workers, view = MlflowLedger(store, "cells"), Here(), Listener()
    run_cells(cells[:1], task_of, prepared, ledger, Listener())
    results = run_cells(cells, task_of, prepared, ledger, view, workers)
    assert n_pool == 24  # so that 24 at random are all of them: found, not trained
    assert workers.given == ["all", "random:k=6"]
    assert [result.selection for result in results] == [cell.choice.name for cell in cells]
    assert [result.status for result in results] == ["finished"] * 4 + ["failed"]
    assert results[-1].error == "seven will not do"
    assert [result.reused for result in results] == [True, False, False, True, False]
    # Each is told of once.
    assert sorted(r.selection for r in view.done) == sorted(cell.choice.name for cell in cells)
    again = Here()
    found = run_cells(cells[:4], task_of, prepared, ledger, Listener(), again)
    assert all(result.reused for result in found)
    assert again.given == []
    assert [r.test_rmse for r in found] == pytest.approx([r.test_rmse for r in results[:4]])


def test_equal_cells_are_computed_once(world: World, store: Store) -> None:
    settings = world.settings(selections=("random:k=6",), seeds=2, training={"epochs": 1})
    prepared = prepare(settings.data)
    cells = make_plan(settings).cells()
    # Every choice adds nothing, and so is the control.
    workers = Here()
    results = run_cells(
        cells,
        lambda cell: Task(cell, NO_ROWS, settings.training),
        prepared,
        MlflowLedger(store, "cells"),
        Listener(),
        workers,
    )
    assert workers.given == ["none", "none"]  # of two seeds
    assert [result.reused for result in results] == [False, True, True, False, True, True]


def test_the_same_molecules_at_other_rows_are_another_cell(world: World) -> None:
    """The record keeps predictions by row: found again, they would be given to others."""
    settings = world.settings(selections=("none",), data={"on_invalid": "skip"})
    cell = make_plan(settings).cells()[0]
    before = prepare(settings.data)
    name = cell_fingerprint(cell, NO_ROWS, before, settings.training)
    assert cell_fingerprint(cell, NO_ROWS, prepare(settings.data), settings.training) == name
    table = pd.read_csv(world.primary)
    unread = table.head(1).assign(smiles="no molecule")
    pd.concat([unread, table]).to_csv(world.primary, index=False)
    after = prepare(settings.data)
    for part in ("train", "val", "test"):
        assert after.part(part).smiles == before.part(part).smiles
        assert after.part(part).labels.tolist() == before.part(part).labels.tolist()
    moved = after.dataset.primary.frame["row"] - before.dataset.primary.frame["row"]
    assert set(moved) == {1}
    assert cell_fingerprint(cell, NO_ROWS, after, settings.training) != name
