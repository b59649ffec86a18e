"""Which column holds the SMILES, which the label, which the split."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lipo_cli.errors import DataError


@dataclass(frozen=True)
class ColumnKind:
    """A column that is looked for by name.

    Attributes:
        title: What it holds, as a message says it.
        flag: The option that names it.
        names: The names it goes by; case, spaces and punctuation do not count.
    """

    title: str
    flag: str
    names: frozenset[str]


SMILES = ColumnKind(
    "SMILES",
    "--smiles-column",
    frozenset({"smiles", "canonicalsmiles", "isomericsmiles", "smi", "structure"}),
)
LABEL = ColumnKind(
    "label",
    "--label-column",
    frozenset(
        {
            "exp",
            "expt",
            "experimental",
            "label",
            "labels",
            "lipophilicity",
            "logd",
            "logd74",
            "logdph74",
            "measured",
            "target",
            "targets",
            "y",
        }
    ),
)
SPLIT = ColumnKind("split", "--split-file", frozenset({"split"}))
SELECTED = ColumnKind("selected", "--selection", frozenset({"selected"}))


def find_column(
    header: Sequence[str], kind: ColumnKind, *, wanted: str | None, path: Path, required: bool
) -> int | None:
    """Returns the position of a column, by the name given or by the names of its kind.

    Args:
        header: The column names of the file.
        kind: What is looked for.
        wanted: The name that the user gave, if any.
        path: The file, for messages.
        required: Whether finding none, or several, is an error (otherwise None is returned).

    Raises:
        DataError: the name given is not there, or none or several columns could be meant.
    """
    if wanted is not None:
        return _named(header, kind, wanted, path)
    found = [i for i, name in enumerate(header) if _plain(name) in kind.names]
    if len(found) == 1:
        return found[0]
    if not required:
        return None
    if not found:
        raise DataError(
            f"no {kind.title} column was found among: {_listed(header)}",
            where=path,
            hint=f"name it with {kind.flag}",
        )
    raise DataError(
        f"several columns could be the {kind.title}: {_listed([header[i] for i in found])}",
        where=path,
        hint=f"name the right one with {kind.flag}",
    )


def _named(header: Sequence[str], kind: ColumnKind, wanted: str, path: Path) -> int:
    found = [i for i, name in enumerate(header) if name == wanted]
    found = found or [i for i, name in enumerate(header) if _plain(name) == _plain(wanted)]
    if not found:
        raise DataError(
            f"has no column {wanted!r} for the {kind.title}",
            where=path,
            hint=f"its columns are: {_listed(header)}",
        )
    if len(found) > 1:
        raise DataError(
            f"has {len(found)} columns named {wanted!r}", where=path, hint="rename all but one"
        )
    return found[0]


def has_column(header: Sequence[str], wanted: str) -> bool:
    """Returns whether a column goes by this name; case, spaces and punctuation do not count."""
    return _plain(wanted) in map(_plain, header)


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _listed(names: Sequence[str], most: int = 12) -> str:
    shown = ", ".join(name[:40] or "(no name)" for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
