"""The rows whose loss is to fall: validation, some of it, or (said aloud) the test split."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lipo_cli.comparison.prepare import Prepared, digest, examples_of, rows_digest
from lipo_cli.errors import DataError
from lipo_cli.settings import InfluenceSettings
from lipo_cli.training.examples import Examples
from lipo_cli.valuation.arrays import IntArray
from lipo_cli.valuation.ridge_game import RidgeGame

_PARTS = {"validation": "val", "test": "test"}


@dataclass(frozen=True)
class Target:
    """What influence is measured on.

    Attributes:
        examples: The molecules.
        rows: [m] their 0-based data rows in the primary file.
        within: [m] their positions in their split.
        judged: Positions of the validation rows that judge the removal curve: where the target is
            apart from them, no part of the values need be left out for them.
        apart: Whether none of the target rows is among those.
        by_row: Whether rows were named, and each is to have its column of values.
    """

    examples: Examples
    rows: IntArray
    within: IntArray
    judged: IntArray
    apart: bool
    by_row: bool

    def fingerprint(self) -> str:
        """Names the molecules, and the rows of the file that stand for them."""
        return f"{digest(self.examples)}:{rows_digest(self.rows)[:16]}"

    def fold_of(self, game: RidgeGame) -> IntArray:
        """Returns [m] the fold of each target row: the game's, where it judges by them too."""
        if self.apart:
            return np.arange(len(self.rows), dtype=np.int64) % game.n_folds
        return game.fold_of[self.within]


def target_of(prepared: Prepared, settings: InfluenceSettings) -> Target:
    """Finds the target rows, and the validation rows that judge the removal curve.

    Where fewer than half of validation are named, the others judge: the few would fill no folds,
    and an order that no fold of values sets is that of the file.

    Args:
        prepared: Dataset and split.
        settings: Names the split and, perhaps, rows of it.

    Raises:
        DataError: a row that is named is not in that split.
    """
    primary = prepared.dataset.primary
    positions = prepared.split.part(_PARTS[settings.target])
    rows = primary.frame["row"].to_numpy(dtype=np.int64)[positions]
    within = np.arange(len(positions), dtype=np.int64)
    if settings.target_rows is not None:
        place = {row: i for i, row in enumerate(rows.tolist())}
        if absent := [row for row in settings.target_rows if row not in place]:
            raise DataError(
                f"data row {absent[0]} is not in the {settings.target} split, so that its loss "
                "cannot be a target",
                where=primary.path,
                hint="data rows count from 0, and of merged duplicates the first one counts",
            )
        within = np.array([place[row] for row in settings.target_rows], dtype=np.int64)
    judged = np.arange(len(prepared.validation), dtype=np.int64)
    apart = settings.target == "test"
    if not apart and len(within) < len(judged) / 2:
        judged, apart = np.setdiff1d(judged, within), True
    chosen = examples_of(primary, positions[within])
    return Target(chosen, rows[within], within, judged, apart, settings.target_rows is not None)
