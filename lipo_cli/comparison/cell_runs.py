"""The cells of a comparison, one after another or side by side in processes of their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from lipo_cli.comparison.cell_record import read_result
from lipo_cli.comparison.cell_result import CellResult
from lipo_cli.comparison.cells import cell_fingerprint, run_cell
from lipo_cli.comparison.ledger import Ledger
from lipo_cli.comparison.plan import Cell
from lipo_cli.comparison.prepare import Prepared
from lipo_cli.comparison.view import View
from lipo_cli.errors import LipoError
from lipo_cli.progress import Progress
from lipo_cli.settings import TrainingSettings


@dataclass(frozen=True)
class Task:
    """A cell with what decides it.

    Attributes:
        cell: Selection, method and seed.
        rows: Positions in the pool that join primary train.
        training: How it is trained.
    """

    cell: Cell
    rows: NDArray[np.int64]
    training: TrainingSettings


class Workers(Protocol):
    """Processes that run cells side by side."""

    def run(
        self, tasks: Sequence[Task], prepared: Prepared, ledger: Ledger, view: View
    ) -> list[CellResult]:
        """Returns the results in the order of the tasks; a failure is a result.

        Args:
            tasks: Cells, no two of which are the same computation.
            prepared: Dataset, split and pool.
            ledger: Where results are kept; it crosses to the processes.
            view: Told of starts, epochs and ends.
        """


def run_cells(
    cells: Sequence[Cell],
    task_of: Callable[[Cell], Task],
    prepared: Prepared,
    ledger: Ledger,
    view: View,
    workers: Workers | None = None,
) -> list[CellResult]:
    """Runs cells; the failure of one is its result and stops no other, an interruption does.

    Args:
        cells: The cells.
        task_of: Says what decides a cell; what it raises is a failure of that cell.
        prepared: Dataset, split and pool.
        ledger: Where results are kept and found again.
        view: Told of everything.
        workers: Run what is not found side by side; None: one after another, here.

    Returns:
        The results, in the order of the cells.
    """
    known = (
        {} if workers is None else _side_by_side(cells, task_of, prepared, ledger, view, workers)
    )
    return [
        known[cell] if cell in known else _here(cell, task_of, prepared, ledger, view)
        for cell in cells
    ]


def _side_by_side(
    cells: Sequence[Cell],
    task_of: Callable[[Cell], Task],
    prepared: Prepared,
    ledger: Ledger,
    view: View,
    workers: Workers,
) -> dict[Cell, CellResult]:
    """Returns the results of the cells that are found, and of the others; of equal ones, one."""
    known: dict[Cell, CellResult] = {}
    tasks: dict[str, Task] = {}
    for cell in cells:
        try:
            task = task_of(cell)
            name = cell_fingerprint(cell, task.rows, prepared, task.training)
            found = ledger.find(name)
            result = None if found is None else read_result(cell, found)
        except Exception:  # said when the cell's turn comes
            continue
        if result is None:
            tasks.setdefault(name, task)
        else:
            view.started(cell)
            view.finished(cell, result)
            known[cell] = result
    if len(tasks) > 1:
        results = workers.run(list(tasks.values()), prepared, ledger, view)
        for (name, task), result in zip(tasks.items(), results, strict=True):
            known[task.cell] = result
            if result.reused:  # finished by somebody else meanwhile: kept in mind here, too
                ledger.find(name)
    return known


def _here(
    cell: Cell,
    task_of: Callable[[Cell], Task],
    prepared: Prepared,
    ledger: Ledger,
    view: View,
) -> CellResult:
    view.started(cell)
    try:
        task = task_of(cell)
    except Exception as error:  # as in `run_task`
        result = failed(cell, error)
    else:
        result = run_task(task, prepared, ledger, lambda row: view.epoch(cell, row), view)
    view.finished(cell, result)
    return result


def run_task(
    task: Task,
    prepared: Prepared,
    ledger: Ledger,
    on_epoch: Callable[[dict[str, float]], None],
    progress: Progress | None = None,
) -> CellResult:
    """Finds or computes a cell; its failure is a result, an interruption is not."""
    try:
        return run_cell(
            task.cell,
            task.rows,
            prepared,
            task.training,
            ledger,
            progress=progress,
            on_epoch=on_epoch,
        )
    except Exception as error:  # a cell that fails, for whatever reason, must not stop the rest
        return failed(task.cell, error)


def failed(cell: Cell, error: Exception) -> CellResult:
    """Returns the result of a cell that failed, with the reason in one line."""
    text = str(error) if isinstance(error, LipoError) else f"{type(error).__name__}: {error}"
    return CellResult.of(cell, "failed", error=" ".join(text.split())[:300])
