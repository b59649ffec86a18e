"""The value table: one row per point with its value, error, rank, and what was done with it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from lipo_cli.errors import DataError, ValuationError
from lipo_cli.valuation.arrays import finite_vector, ranks
from lipo_cli.valuation.removal import CURVE_COLUMNS
from lipo_cli.valuation.selection import CHOSEN_ON, Scores, Selected

COLUMNS = ("row", "smiles", "label", "value", "standard_error", "rank", "selected", "reason")
_WHOLE = ("row", "rank")
VALUE_FILES = ("values.csv", "values.parquet", "removal_curve.csv")
"""What a folder of values holds, by the names that `write_values` gives."""
_NUMBERS = ("label", "value", "standard_error")
_TEXTS = ("smiles", "reason")


def value_table(
    rows: Sequence[int] | ArrayLike,
    smiles: Sequence[str],
    labels: ArrayLike,
    scores: Scores,
    selected: Selected,
) -> pd.DataFrame:
    """Returns the value table of n points in their given order.

    Args:
        rows: [n] the points' rows in their file.
        smiles: [n] SMILES.
        labels: [n] labels, raw units.
        scores: Their values and standard errors.
        selected: What was selected, and why.

    Returns:
        The columns `row`, `smiles`, `label`, `value`, `standard_error`, `rank` (1 = highest value),
        `selected`, `reason`.

    Raises:
        ValuationError: lengths differ or a number is not finite.
    """
    n = len(smiles)
    values = finite_vector("the values", scores.values, n)
    row_numbers = np.asarray(rows, dtype=np.int64)
    if len(row_numbers) != n or len(selected.reasons) != n:
        raise ValuationError(f"{n} points need {n} rows and reasons")
    taken = np.zeros(n, dtype=bool)
    taken[selected.positions] = True
    content = {
        "row": row_numbers,
        "smiles": list(smiles),
        "label": finite_vector("the labels", labels, n),
        "value": values,
        "standard_error": finite_vector("the standard errors", scores.standard_error, n),
        "rank": ranks(values),
        "selected": taken,
        "reason": list(selected.reasons),
    }
    return _typed(pd.DataFrame(content, columns=list(COLUMNS)))


def write_values(
    folder: Path, table: pd.DataFrame, curve: pd.DataFrame | None = None
) -> tuple[Path, ...]:
    """Writes `values.csv` and `values.parquet`, and with a curve `removal_curve.csv`.

    Returns:
        The paths written. Floats are written so that they read back to the same bits.
    """
    folder.mkdir(parents=True, exist_ok=True)
    as_csv, as_parquet, of_curve = (folder / name for name in VALUE_FILES)
    table.to_csv(as_csv, index=False)
    table.to_parquet(as_parquet, index=False)
    if curve is None:
        return as_csv, as_parquet
    curve.to_csv(of_curve, index=False)
    return as_csv, as_parquet, of_curve


def read_values(path: Path) -> pd.DataFrame:
    """Reads a value table from a CSV or Parquet file, or from the folder of `write_values`.

    Raises:
        DataError: the file is missing or unreadable, lacks a column, or holds a number that is not
            finite, a repeated row or ranks that do not follow the values.
    """
    if path.is_dir():
        path = path / "values.parquet"
    table = _read(path)
    missing = [name for name in COLUMNS if name not in table.columns]
    if missing:
        raise DataError(
            f"no value table: column(s) {', '.join(missing)} missing",
            where=path,
            hint=f"expected: {', '.join(COLUMNS)}",
        )
    _check_numbers(table, (*_WHOLE, *_NUMBERS), path)
    for name in _WHOLE:
        if (pd.to_numeric(table[name]) % 1 != 0).any():
            raise DataError(f"column {name} must hold whole numbers", where=path)
    try:
        table = _typed(table[list(COLUMNS)])
    except (ValueError, TypeError) as error:
        raise DataError(f"no value table: {error}", where=path) from None
    if (table["standard_error"] < 0).any():
        raise DataError("column standard_error holds a number below 0", where=path)
    if table["row"].duplicated().any():
        first = table.loc[table["row"].duplicated(), "row"].iloc[0]
        raise DataError(f"row {first} is listed twice", where=path)
    by_rank = table.sort_values("rank")
    if not np.array_equal(by_rank["rank"].to_numpy(), np.arange(1, len(table) + 1)):
        raise DataError(f"the ranks are not 1 to {len(table)}", where=path)
    if (np.diff(by_rank["value"].to_numpy()) > 0).any():
        raise DataError("the ranks do not follow the values", where=path)
    return table


def read_chosen_on(path: Path) -> str | None:
    """Returns the primary set and split that a table of `lipo select` names; None without one.

    Args:
        path: The table, or the folder of `write_values`, whose tables name none.
    """
    if path.is_dir() or CHOSEN_ON not in (table := _read(path)).columns:
        return None
    named = {str(text) for text in table[CHOSEN_ON] if str(text)}
    return named.pop() if len(named) == 1 else None


def read_curve(path: Path, n: int | None = None) -> pd.DataFrame:
    """Reads the `removal_curve.csv` of `write_values`, from the file or its folder.

    Args:
        path: The file or the folder.
        n: Points of the pool, where that is known.

    Raises:
        DataError: the file is missing or unreadable, lacks a column, holds a non-finite number, or
            is the curve of another number of points.
    """
    if path.is_dir():
        path = path / "removal_curve.csv"
    curve = _read(path)
    missing = [name for name in CURVE_COLUMNS if name not in curve.columns]
    if missing:
        raise DataError(f"no removal curve: column(s) {', '.join(missing)} missing", where=path)
    _check_numbers(curve, CURVE_COLUMNS, path)
    last = len(curve) - 1 if n is None else n
    if last < 0 or sorted(curve["n_kept"].tolist()) != [*range(last + 1)]:
        of = "" if n is None else f" of {n} points"
        raise DataError(
            f"no removal curve{of}: n_kept must go from 0 to {max(last, 0)}", where=path
        )
    return curve[list(CURVE_COLUMNS)]


def _read(path: Path) -> pd.DataFrame:
    try:
        if path.suffix == ".parquet":
            return pd.read_parquet(path)
        # SMILES such as "NA" are text.
        return pd.read_csv(
            path,
            keep_default_na=False,
            na_values={name: ["", "nan", "NaN"] for name in (*_NUMBERS, *_WHOLE)},
        )
    except FileNotFoundError:
        raise DataError("no such file", where=path) from None
    except (OSError, ValueError) as error:
        raise DataError(f"cannot be read: {error}", where=path) from None


def _check_numbers(table: pd.DataFrame, names: Sequence[str], path: Path) -> None:
    for name in names:
        numbers = pd.to_numeric(table[name], errors="coerce").to_numpy(dtype=np.float64)
        bad = np.flatnonzero(~np.isfinite(numbers))
        if bad.size:
            raise DataError(
                f"column {name} holds {bad.size} number(s) that are missing or not finite, "
                f"the first in data row {bad[0] + 1}",
                where=path,
            )


def _typed(table: pd.DataFrame) -> pd.DataFrame:
    kinds = dict.fromkeys(_WHOLE, "int64") | dict.fromkeys(_NUMBERS, "float64")
    typed = table.astype(kinds | dict.fromkeys(_TEXTS, "str"))
    if typed["selected"].dtype != bool:
        raise ValueError("column selected must hold True and False")
    return typed.reset_index(drop=True)
