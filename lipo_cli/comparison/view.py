"""What a comparison tells while it runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from lipo_cli.comparison.cell_result import CellResult
from lipo_cli.comparison.plan import Cell
from lipo_cli.comparison.scoring import Scored
from lipo_cli.comparison.tuning import TuningView


class View(TuningView, Protocol):
    """What a comparison shows while it runs: the table of cells, beside progress."""

    def planned(self, cells: Sequence[Cell], n_expected: int) -> None:
        """The cells known so far; more may follow once the pool is scored."""

    def started(self, cell: Cell) -> None:
        """A cell starts, or is looked up."""

    def epoch(self, cell: Cell, row: Mapping[str, float]) -> None:
        """An epoch of a cell is over."""

    def finished(self, cell: Cell, result: CellResult) -> None:
        """A cell is over, well or badly."""

    def scored(self, scored: Scored) -> None:
        """The pool has values."""
