"""One row of a file: a record that can be used, or the reason why not."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lipo_cli.chem.columns import LABEL, SMILES, find_column
from lipo_cli.chem.molecules import parse
from lipo_cli.errors import DataError

LARGEST_LABEL = 1e15
"""No property is measured in such numbers, and the square of a label must fit in float32."""


@dataclass(frozen=True)
class BadRow:
    """A row that cannot be used.

    Attributes:
        line: The line of the file where it begins, from 1.
        reason: Why, a short sentence.
        text: What stands there, shortened.
    """

    line: int
    reason: str
    text: str


@dataclass(frozen=True)
class Record:
    """A row as read; `smiles` and `skeleton` are None when it was kept although it is unusable."""

    row: int
    line: int
    smiles: str | None
    input_smiles: str
    skeleton: str | None
    label: float
    others: tuple[str, ...]


@dataclass(frozen=True)
class Layout:
    """Where the columns of one file are."""

    header: tuple[str, ...]
    smiles: int
    label: int | None
    require_label: bool

    @property
    def others(self) -> list[int]:
        """Positions of the columns that are neither SMILES nor label."""
        return [i for i in range(len(self.header)) if i not in (self.smiles, self.label)]


def find_layout(
    header: tuple[str, ...],
    path: Path,
    smiles_column: str | None,
    label_column: str | None,
    require_label: bool,
) -> Layout:
    """Finds the SMILES and label columns.

    Raises:
        DataError: a column is missing or could be one of several.
    """
    smiles = find_column(header, SMILES, wanted=smiles_column, path=path, required=True)
    label = find_column(header, LABEL, wanted=label_column, path=path, required=require_label)
    if smiles == label:
        raise DataError(
            f"column {label_column!r} cannot be both SMILES and label",
            where=path,
            hint=f"name two columns with {SMILES.flag} and {LABEL.flag}",
        )
    assert smiles is not None  # find_column raises when a required column is absent
    return Layout(header, smiles, label, require_label)


def read_record(row: int, line: int, fields: Sequence[str], layout: Layout) -> Record | BadRow:
    """Reads a row; a row that cannot be used comes back with its reason."""
    if not fields:
        return BadRow(line, "the line is empty", "")
    if len(fields) != len(layout.header):
        reason = f"{len(fields)} fields where the header names {len(layout.header)}"
        return BadRow(line, reason, _short(",".join(fields)))
    smiles = fields[layout.smiles].strip()
    parsed = parse(smiles)
    if isinstance(parsed, str):
        return BadRow(line, parsed, _short(smiles))
    label = math.nan
    if layout.label is not None:
        given = fields[layout.label].strip()
        value = _number(given)
        if isinstance(value, float):
            label = value
        elif layout.require_label:
            return BadRow(line, value, _short(given))
    others = tuple(fields[i] for i in layout.others)
    return Record(row, line, parsed.canonical, smiles, parsed.skeleton, label, others)


def _number(text: str) -> float | str:
    """Returns the finite number that `text` is, or why it is none."""
    if not text:
        return "the label is missing"
    try:
        # float() would take "1_0" for ten.
        value = float(text) if "_" not in text else None
    except ValueError:
        value = None
    if value is None:
        # Never guessed: 1,234 may be a thousand.
        comma = re.fullmatch(r"[+-]?\d+(,\d+)+", text) is not None
        return "the label is not a number" + (" (decimals take a point)" if comma else "")
    if not math.isfinite(value):
        return "the label is not finite"
    return value if abs(value) <= LARGEST_LABEL else f"the label is beyond {LARGEST_LABEL:g}"


def unusable_record(row: int, line: int, fields: Sequence[str], layout: Layout) -> Record:
    """Keeps the place of a row that cannot be used."""
    padded = [*fields, *[""] * len(layout.header)]
    others = tuple(padded[i] for i in layout.others)
    return Record(row, line, None, padded[layout.smiles].strip(), None, math.nan, others)


def _short(text: str, limit: int = 60) -> str:
    return text if len(text) <= limit else text[: limit - 3] + "..."
