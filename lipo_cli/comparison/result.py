"""What a comparison came to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lipo_cli.comparison.cell_result import CellResult
from lipo_cli.comparison.constant import Constant
from lipo_cli.comparison.prepare import Prepared
from lipo_cli.comparison.scoring import Scored
from lipo_cli.comparison.summary import Overlap, SummaryRow
from lipo_cli.comparison.tuning_methods import Tunings
from lipo_cli.comparison.verdict import Verdict
from lipo_cli.errors import TrackingError
from lipo_cli.settings import ScoringMethod


@dataclass
class Comparison:
    """The result of a comparison.

    Attributes:
        prepared: What it read; of several splits the first.
        cells: Every cell, failed ones included.
        summary: One row per selection and method.
        verdicts: Each selection against each control.
        overlaps: How far the selections agree, for the first split and seed.
        scored: The values of the pool by method, as far as selections needed them, on the first
            split.
        best: The cell that was offered as champion; None where none may be.
        not_offered: Why none may be.
        champion: Model, version, run and the reason, as the ledger says it.
        refused: Why the offered champion could not be registered, where it could not.
        run_id: The record of the comparison.
        tunings: What was found for each method, where it was asked for.
        chosen: Positions in the pool by selection, for the first seed.
        left_out: What a time budget did not allow, in words.
        constants: The error of train's mean label on every split.
    """

    prepared: Prepared
    cells: list[CellResult]
    summary: list[SummaryRow]
    verdicts: list[Verdict]
    overlaps: list[Overlap]
    scored: dict[ScoringMethod, Scored]
    best: CellResult | None = None
    not_offered: str | None = None
    champion: dict[str, Any] | None = None
    refused: TrackingError | None = None
    run_id: str | None = None
    chosen: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    tunings: Tunings = field(default_factory=Tunings)
    left_out: list[str] = field(default_factory=list)
    constants: list[Constant] = field(default_factory=list)

    @property
    def n_failed(self) -> int:
        """How many cells failed."""
        return sum(cell.status == "failed" for cell in self.cells)


def verdicts_table(verdicts: Sequence[Verdict]) -> pd.DataFrame:
    """Returns the verdicts as a table, one row each."""
    return pd.DataFrame([verdict.as_dict() for verdict in verdicts])


def cells_table(cells: Sequence[CellResult]) -> pd.DataFrame:
    """Returns the cells as a table, one row each."""
    return pd.DataFrame([cell.as_dict() for cell in cells])
