"""A table of molecules with their labels, read from a file, every bad row named by its line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from lipo_cli.chem.columns import SELECTED, find_column
from lipo_cli.chem.reading import file_sha256, read_rows
from lipo_cli.chem.records import (
    BadRow,
    Layout,
    Record,
    find_layout,
    read_record,
    unusable_record,
)
from lipo_cli.errors import DataError

__all__ = ["BadRow", "MoleculeTable", "read_header", "read_table"]

OnInvalid = Literal["error", "skip", "nan"]
Duplicates = Literal["mean", "keep"]

OWN_COLUMNS = (
    "row",
    "line",
    "smiles",
    "input_smiles",
    "skeleton",
    "label",
    "n_merged",
    "label_spread",
)
"""The columns of every frame; a column of the file with such a name is kept as `file.NAME`."""
CLASH = "file."


@dataclass(frozen=True)
class MoleculeTable:
    """Molecules and labels of one file.

    Attributes:
        frame: One row per molecule: `row` (0-based data row in the file, of the first duplicate),
            `line` (1-based line), `smiles` (canonical; None for an unusable row that was kept),
            `input_smiles`, `skeleton`, `label` (float, NaN when absent), `n_merged` (rows merged
            into this one, itself included), `label_spread` (largest minus smallest merged label),
            then the file's other columns unchanged, as text.
        path: The file.
        sha256: Of its bytes on disk.
        n_rows_read: Data rows in the file, bad ones included.
        bad_rows: What could not be used.
        smiles_column: Name of the SMILES column in the file.
        label_column: Name of the label column, None without labels.
        n_merged_rows: How many rows went into another row.
    """

    frame: pd.DataFrame
    path: Path
    sha256: str
    n_rows_read: int
    bad_rows: tuple[BadRow, ...]
    smiles_column: str
    label_column: str | None
    n_merged_rows: int

    def __len__(self) -> int:
        """Returns the number of molecules."""
        return len(self.frame)

    @property
    def smiles(self) -> list[str]:
        """Canonical SMILES in order; "" where a row was kept although it is unusable."""
        return [text if isinstance(text, str) else "" for text in self.frame["smiles"]]

    @property
    def skeletons(self) -> list[str]:
        """Canonical SMILES without stereochemistry; "" for an unusable row."""
        return [text if isinstance(text, str) else "" for text in self.frame["skeleton"]]

    @property
    def labels(self) -> np.ndarray:
        """Labels in order, float64, shape [n]; NaN where there is none."""
        return self.frame["label"].to_numpy(dtype=np.float64)

    @property
    def usable(self) -> np.ndarray:
        """Which rows hold a molecule, bool, shape [n]."""
        return self.frame["smiles"].notna().to_numpy(dtype=bool)

    def file_columns(self) -> dict[str, str]:
        """Returns the file's other columns: the name in the frame -> the name in the file."""
        others = [str(name) for name in self.frame.columns if name not in OWN_COLUMNS]
        return {name: name.removeprefix(CLASH) for name in others}


def read_table(
    path: str | Path,
    *,
    smiles_column: str | None = None,
    label_column: str | None = None,
    on_invalid: OnInvalid = "error",
    duplicates: Duplicates = "mean",
    require_label: bool = True,
    selected_only: bool = False,
) -> MoleculeTable:
    """Reads molecules and labels from a CSV or TSV file, plain or gzipped.

    Args:
        path: The file; its first line names the columns.
        smiles_column: Name of the SMILES column; None: found by its usual names.
        label_column: Name of the label column; None: found by its usual names.
        on_invalid: What a bad row does: `error` ends the reading, `skip` leaves it out, `nan`
            keeps it in order with smiles None and label NaN (for prediction).
        duplicates: `mean` merges rows of the same canonical molecule, `keep` leaves them.
        require_label: Whether a row without a finite label is a bad row.
        selected_only: Whether rows that a column `selected` marks as False or 0 are passed over,
            as if they were not in the file; without this column all rows are read.

    Raises:
        DataError: the file, a column or (with `error`) a row cannot be used.
    """
    path = Path(path)
    rows = read_rows(path)
    header = tuple(name.strip() for name in next(rows)[1])
    layout = find_layout(header, path, smiles_column, label_column, require_label)
    marks = _marks(header, path) if selected_only else None
    records: list[Record] = []
    bad: list[BadRow] = []
    n_rows = 0
    for row, (line, fields) in enumerate(rows):
        n_rows += 1
        if marks is not None and _is_rejected(fields, marks, f"{path}:{line}"):
            continue
        record = read_record(row, line, fields, layout)
        if isinstance(record, Record):
            records.append(record)
            continue
        bad.append(record)
        if on_invalid == "nan":
            records.append(unusable_record(row, line, fields, layout))
    _check_rows(path, n_rows, records, bad, on_invalid)
    frame = _merge_duplicates(records, layout) if duplicates == "mean" else _frame(records, layout)
    return MoleculeTable(
        frame=frame,
        path=path,
        sha256=file_sha256(path),
        n_rows_read=n_rows,
        bad_rows=tuple(bad),
        smiles_column=header[layout.smiles],
        label_column=None if layout.label is None else header[layout.label],
        n_merged_rows=len(records) - len(frame),
    )


def read_header(path: Path) -> list[str]:
    """Returns the column names of a file.

    Raises:
        DataError: the file cannot be read.
    """
    return [name.strip() for name in next(read_rows(path))[1]]


def _marks(header: Sequence[str], path: Path) -> int | None:
    """Returns the position of the column `selected`, if there is one."""
    return find_column(header, SELECTED, wanted=None, path=path, required=False)


def _is_rejected(fields: Sequence[str], marks: int, where: str) -> bool:
    if marks >= len(fields):
        return False  # a row that is cut short is a bad row, not one that was left out
    mark = fields[marks].strip().lower()
    if mark not in ("true", "1", "false", "0"):
        raise DataError(f"selected is {fields[marks]!r}, neither True nor False", where=where)
    return mark in ("false", "0")


def _check_rows(
    path: Path, n_rows: int, records: Sequence[Record], bad: Sequence[BadRow], rule: OnInvalid
) -> None:
    if n_rows == 0:
        raise DataError("holds a header and no rows", where=path, hint="add molecules to it")
    if not records and not bad:
        raise DataError(f"none of the {n_rows:,} rows is selected", where=path)
    if bad and rule == "error":
        first = bad[0]
        shown = f": {first.text!r}" if first.text else ""
        count = "1 bad row" if len(bad) == 1 else f"{len(bad):,} bad rows"
        # Where most rows are bad it is the file that is wrong, not they.
        advice = (
            "correct the file" if 2 * len(bad) > n_rows > 2 else "--on-invalid skip leaves them out"
        )
        raise DataError(
            f"{first.reason}{shown}",
            where=f"{path}:{first.line}",
            hint=f"{count} among {n_rows:,}; {advice}",
        )
    if not records:
        raise DataError(
            f"none of the {n_rows:,} rows can be used; the first: {bad[0].reason}",
            where=f"{path}:{bad[0].line}",
        )


def _frame(records: Sequence[Record], layout: Layout) -> pd.DataFrame:
    columns: dict[str, object] = {
        "row": np.array([r.row for r in records], dtype=np.int64),
        "line": np.array([r.line for r in records], dtype=np.int64),
        "smiles": pd.Series([r.smiles for r in records], dtype=object),
        "input_smiles": pd.Series([r.input_smiles for r in records], dtype=object),
        "skeleton": pd.Series([r.skeleton for r in records], dtype=object),
        "label": np.array([r.label for r in records], dtype=np.float64),
        "n_merged": np.ones(len(records), dtype=np.int64),
        "label_spread": np.zeros(len(records)),
    }
    for position, name in enumerate(_other_names(layout)):
        columns[name] = pd.Series([r.others[position] for r in records], dtype=object)
    return pd.DataFrame(columns)


def _other_names(layout: Layout) -> list[str]:
    """Makes the names of the other columns distinct, from each other and from our own."""
    names: list[str] = []
    for i in layout.others:
        name = layout.header[i]
        while name in OWN_COLUMNS or name in names:
            name = f"{CLASH}{name}"
        names.append(name)
    return names


def _merge_duplicates(records: Sequence[Record], layout: Layout) -> pd.DataFrame:
    groups: dict[str, list[Record]] = {}
    for record in records:
        # A row that is kept although it is unusable has no molecule to share.
        groups.setdefault(record.smiles or f"line {record.line}", []).append(record)
    frame = _frame([group[0] for group in groups.values()], layout)
    labels = [np.array([r.label for r in group]) for group in groups.values()]
    labels = [known[np.isfinite(known)] if np.isfinite(known).any() else known for known in labels]
    frame["label"] = [float(known.mean()) for known in labels]
    frame["n_merged"] = np.array([len(group) for group in groups.values()], dtype=np.int64)
    frame["label_spread"] = [
        float(np.ptp(known)) if np.isfinite(known).all() else 0.0 for known in labels
    ]
    return frame
