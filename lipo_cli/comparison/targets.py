"""The rows whose loss is to fall: validation, some of it, or (said aloud) the test split."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lipo_cli.comparison.prepare import Prepared, examples_of
from lipo_cli.errors import DataError
from lipo_cli.settings import InfluenceSettings
from lipo_cli.training.finetune import Examples
from lipo_cli.valuation.arrays import IntArray

_PARTS = {"validation": "val", "test": "test"}


@dataclass(frozen=True)
class Target:
    """What influence is measured on.

    Attributes:
        examples: The molecules.
        rows: [m] their 0-based data rows in the primary file.
        fold_of: [m] the fold of each.
        n_folds: Folds; those of validation rows are the removal curve's.
        by_row: Whether rows were named, and each is to have its column of values.
    """

    examples: Examples
    rows: IntArray
    fold_of: IntArray
    n_folds: int
    by_row: bool


def target_of(prepared: Prepared, settings: InfluenceSettings, fold_of: IntArray) -> Target:
    """Finds the target rows.

    Args:
        prepared: Dataset and split.
        settings: Names the split and, perhaps, rows of it.
        fold_of: The fold of each validation row.

    Raises:
        DataError: a row that is named is not in that split.
    """
    primary = prepared.dataset.primary
    positions = prepared.split.part(_PARTS[settings.target])
    n_folds = int(fold_of.max()) + 1
    if settings.target == "test":
        fold_of = np.random.default_rng(0).permutation(len(positions)) % n_folds
    rows = primary.frame["row"].to_numpy(dtype=np.int64)[positions]
    if settings.target_rows is not None:
        place = {row: i for i, row in enumerate(rows.tolist())}
        if absent := [row for row in settings.target_rows if row not in place]:
            raise DataError(
                f"data row {absent[0]} is not in the {settings.target} split, so that its loss "
                "cannot be a target",
                where=primary.path,
                hint="rows count from 0; lipo data split --out FILE writes the split of each row",
            )
        chosen = np.array([place[row] for row in settings.target_rows], dtype=np.int64)
        positions, rows, fold_of = positions[chosen], rows[chosen], fold_of[chosen]
    return Target(
        examples_of(primary, positions),
        rows,
        fold_of.astype(np.int64),
        n_folds,
        by_row=settings.target_rows is not None,
    )
