"""Processes that run cells: order, shares, and those that die."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, cast

import pytest

from lipo_cli.commands import cell_workers
from lipo_cli.commands.cell_workers import CellWorkers
from lipo_cli.comparison.cell_result import CellResult
from lipo_cli.comparison.cell_runs import Task
from lipo_cli.comparison.plan import NO_ROWS, Cell, Choice
from lipo_cli.settings import TrainingSettings
from lipo_cli.valuation.selection_text import parse_selection
from tests.comparison.conftest import Listener
from tests.fixtures import workers

NONE = Choice("none", parse_selection("none"), "control")


class Watcher(Listener):
    """Writes down what it hears of cells, by their seeds."""

    def __init__(self) -> None:
        super().__init__()
        self.begun: list[int] = []
        self.epochs: list[int] = []

    def started(self, cell: Cell) -> None:
        self.begun.append(cell.seed)

    def epoch(self, cell: Cell, row: Mapping[str, float]) -> None:
        assert row["val_rmse"] == cell.seed
        self.epochs.append(cell.seed)


def run(n_tasks: int, jobs: int, view: Watcher) -> list[CellResult]:
    tasks = [Task(Cell(NONE, "lora", seed), NO_ROWS, TrainingSettings()) for seed in range(n_tasks)]
    prepared, ledger = cast("Any", "the data"), cast("Any", "the ledger")
    return CellWorkers(jobs).run(tasks, prepared, ledger, view)


@pytest.mark.parametrize(("n_tasks", "jobs", "n_processes"), [(5, 2, 2), (2, 8, 2)])
def test_results_are_in_order_whoever_ends_first(
    monkeypatch: pytest.MonkeyPatch, n_tasks: int, jobs: int, n_processes: int
) -> None:
    monkeypatch.setattr(cell_workers, "_serve", workers.works)
    view = Watcher()
    results = run(n_tasks, jobs, view)
    said = [re.fullmatch(r"ValueError: (.+) in (\d+)", each.error or "") for each in results]
    # Each has its share of the threads: of as many as there are, not as were asked for.
    expected = [f"the data seed {seed} of {n_processes}" for seed in range(n_tasks)]
    assert [found and found[1] for found in said] == expected
    assert len({found and found[2] for found in said}) == n_processes
    assert sorted(view.begun) == list(range(n_tasks))
    assert sorted(view.epochs) == list(range(n_tasks))
    assert {result.seed for result in view.done} == set(range(n_tasks))


def test_one_that_dies_before_it_begins_is_a_failed_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cell_workers, "_serve", workers.dies)
    results = run(3, 2, Watcher())
    assert [r.status for r in results] == ["failed"] * 3
    assert all("its process ended with code 7" in (r.error or "") for r in results)


def test_one_that_dies_at_its_cell_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cell_workers, "_serve", workers.stubborn)
    view = Watcher()
    results = run(3, 2, view)
    assert [r.error for r in results] == [f"its process ended with code {i}" for i in (1, 2, 3)]
    assert sorted(view.begun) == [0, 1, 2]
