"""The columns of the file that was scored, put back beside the values of its rows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lipo_cli.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

    from lipo_cli.chem.tables import MoleculeTable

SOURCE = "source.json"
"""Beside the values: which file was scored, its checksum, its SMILES and label column."""
CLASH = "file."
"""Stands before a column of the file that would be taken for one of ours."""


@dataclass(frozen=True)
class ScoredFile:
    """The secondary file whose rows were scored.

    Attributes:
        path: Where it is.
        known: Whether its checksum is that of the scored file; otherwise its molecules are
            compared with those that were scored.
        read: The columns that SMILES and labels were read from, as far as they are known.
    """

    path: Path
    known: bool
    read: tuple[str, ...] = ()


def write_source(
    folder: Path,
    table: MoleculeTable,
    method: str,
    scope: str,
    *,
    leaks: bool = False,
    said: Sequence[str] = (),
) -> Path:
    """Writes down which file the values in this folder belong to, and what gave them.

    Args:
        folder: Of the values.
        table: The file.
        method: What gave the values.
        scope: The primary molecules and their split.
        leaks: Whether their target was the test split.
        said: What the scoring said of its values.
    """
    path = folder / SOURCE
    content = {
        "path": str(table.path.resolve()),
        "sha256": table.sha256,
        "read": [table.smiles_column, table.label_column],
        "method": method,
        "scope": scope,
        "leaks": leaks,
        "said": [text for text in said if text],
    }
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return path


@dataclass(frozen=True)
class Origin:
    """What is written down about values.

    Attributes:
        method: What gave them.
        scope: The primary set and its split.
        leaks: Whether their target was the test split.
        said: What the scoring said of them, sentence by sentence.
    """

    method: str | None = None
    scope: str | None = None
    leaks: bool = False
    said: tuple[str, ...] = ()


def origin_of(values: Path) -> Origin:
    """Returns what gave the values in a folder, as far as it is written down."""
    folder = values if values.is_dir() else values.parent
    try:
        written = dict(json.loads((folder / SOURCE).read_text(encoding="utf-8")))
        leaks = bool(written.get("leaks", False))
        said = tuple(str(text) for text in written.get("said", ()))
        return Origin(str(written["method"]), written.get("scope"), leaks, said)
    except (OSError, ValueError, KeyError, TypeError):
        return Origin()


def find_source(values: Path, given: Path | None) -> ScoredFile | None:
    """Finds the file that was scored.

    Args:
        values: The value table or its folder.
        given: The file that the user names.

    Returns:
        The file; None when none is named, and the one written down is not known, gone or changed.
    """
    folder = values if values.is_dir() else values.parent
    try:
        written = json.loads((folder / SOURCE).read_text(encoding="utf-8"))
        path, sha256, read = Path(written["path"]), written["sha256"], tuple(written["read"])
    except (OSError, ValueError, KeyError, TypeError):
        return ScoredFile(given, known=False) if given is not None else None
    from lipo_cli.chem.reading import file_sha256

    if given is not None:
        return ScoredFile(given, file_sha256(given) == sha256, read)
    if path.is_file() and file_sha256(path) == sha256:
        return ScoredFile(path, True, read)
    return None


def with_file_columns(
    table: pd.DataFrame, source: ScoredFile, smiles_column: str | None = None
) -> pd.DataFrame:
    """Puts the file's columns, unchanged, before the columns of the value table.

    What was scored, the canonical SMILES and the label with duplicates merged, keeps the names
    `smiles` and `label`: whoever trains on the result trains on that. A column of the file that
    would be taken for one of these or of the table's others becomes `file.NAME`.

    Args:
        table: A value table; `row` counts the data rows of the file from 0.
        source: The file.
        smiles_column: Its SMILES column; None: found by its usual names.

    Returns:
        The file's columns, then `row`, `line` (where the row begins in the file, from 1) and the
        rest of the value table.

    Raises:
        DataError: the file cannot be read, or is not the one that was scored.
    """
    import pandas as pd

    from lipo_cli.chem.reading import read_rows

    rows = read_rows(source.path)
    header = [name.strip() for name in next(rows)[1]]
    wanted = set(table["row"].tolist())
    found = {row: content for row, content in enumerate(rows) if row in wanted}
    if missing := sorted(wanted - found.keys()):
        raise DataError(f"has no data row {missing[0]}, which was scored", where=source.path)
    if not source.known:
        _check_molecules(table, found, header, source.path, smiles_column)
    own = table.copy()
    own.insert(1, "line", [found[row][0] for row in table["row"]])
    theirs = pd.DataFrame(
        [_cells(found[row][1], len(header)) for row in table["row"]],
        columns=_distinct(header, list(own.columns), source.read),
        index=own.index,
        dtype=str,
    )
    return pd.concat([theirs, own], axis=1)


def renamed_columns(table: pd.DataFrame) -> list[str]:
    """Returns the columns of the file that bear another name in the result."""
    return [str(name) for name in table.columns if str(name).startswith(CLASH)]


def _check_molecules(
    table: pd.DataFrame,
    found: dict[int, tuple[int, list[str]]],
    header: list[str],
    path: Path,
    smiles_column: str | None,
) -> None:
    from lipo_cli.chem.columns import SMILES, find_column
    from lipo_cli.chem.molecules import canonical_smiles

    position = find_column(header, SMILES, wanted=smiles_column, path=path, required=True)
    assert position is not None  # find_column raises when a required column is absent
    for row, scored in zip(table["row"], table["smiles"], strict=True):
        line, fields = found[row]
        if canonical_smiles(_cells(fields, len(header))[position]) != scored:
            raise DataError(
                "another molecule stands here than was scored",
                where=f"{path}:{line}",
                hint=f"--secondary must name the file that was scored, where row {row} is {scored}",
            )


def _cells(fields: list[str], width: int) -> list[str]:
    return [*fields, *[""] * width][:width]


def _distinct(header: list[str], own: list[str], read: tuple[str, ...]) -> list[str]:
    """Names the file's columns so that none is taken for ours or for another."""
    from lipo_cli.chem.columns import has_column

    names: list[str] = []
    for given in header:
        name = f"{CLASH}{given}" if given in read or _is_read_by_name(given) else given
        while has_column(own, name) or name in names:
            name = f"{CLASH}{name}"
        names.append(name)
    return names


def _is_read_by_name(name: str) -> bool:
    """Tells whether a reader who is given no names would look for SMILES or labels here."""
    from lipo_cli.chem.columns import LABEL, SMILES, find_column

    return any(
        find_column([name], kind, wanted=None, path=Path(), required=False) is not None
        for kind in (SMILES, LABEL)
    )
