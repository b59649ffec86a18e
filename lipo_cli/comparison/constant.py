"""The error of the simplest model: the mean label of train, predicted for every molecule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from lipo_cli.comparison.cell_result import CellResult
from lipo_cli.comparison.digits import decimals
from lipo_cli.comparison.prepare import Prepared

HARDLY = 0.9
"""A model above this part of the constant's error has learned little."""


@dataclass(frozen=True)
class Constant:
    """The RMSE of train's mean label on a split, raw label units.

    Attributes:
        split: The split, where several are compared.
        val_rmse: On validation.
        test_rmse: On test.
    """

    split: int | None
    val_rmse: float
    test_rmse: float

    @classmethod
    def of(cls, prepared: Prepared, split: int | None) -> Constant:
        """Measures it on the validation and test molecules of a split."""
        mean = prepared.train.labels.mean()
        val, test = (
            float(np.sqrt(np.mean((prepared.part(part).labels - mean) ** 2)))
            for part in ("val", "test")
        )
        return cls(split, val, test)

    def as_dict(self) -> dict[str, Any]:
        """Returns the numbers by name."""
        return asdict(self)


def constant_line(constants: Sequence[Constant], digits: int | None = None) -> str:
    """Says in one line how far off the mean label is: what every model has to beat."""
    if digits is None:
        digits = decimals(each.test_rmse for each in constants) + 1
    said = [
        f"val RMSE {each.val_rmse:.{digits}f}, test RMSE {each.test_rmse:.{digits}f}"
        + (f" (split {each.split})" if each.split is not None else "")
        for each in constants
    ]
    return f"the mean label of train, predicted for all: {'; '.join(said)}"


def hardly_beaten(constants: Sequence[Constant], cells: Sequence[CellResult]) -> list[Constant]:
    """Returns the splits on which no finished cell is much better than the mean label."""
    best: dict[int | None, float] = {}
    for cell in cells:
        if cell.val_rmse is not None:
            best[cell.split] = min(cell.val_rmse, best.get(cell.split, cell.val_rmse))
    return [each for each in constants if best.get(each.split, 0.0) > HARDLY * each.val_rmse]


def warning_line(beaten: Sequence[Constant], n_splits: int, digits: int | None = None) -> str:
    """Says that models learned little, and on which splits."""
    where = "" if len(beaten) == n_splits else " on that split"
    return f"{constant_line(beaten, digits)}; no cell is much better than that{where}"
