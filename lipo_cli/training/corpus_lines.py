"""SMILES out of any file: one per line (.smi, .txt, their .gz), or a column of a CSV/TSV table."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path

from lipo_cli.chem.columns import SMILES, find_column
from lipo_cli.chem.reading import GZIP_MAGIC, check_is_file, read_rows
from lipo_cli.errors import DataError

TABLE_SUFFIXES = frozenset({".csv", ".tsv", ".tab"})
_HEADINGS = frozenset({"smiles", "canonical_smiles", "smi"})


def is_table(path: Path, smiles_column: str | None) -> bool:
    """Says whether a file is read as a table with a header."""
    return smiles_column is not None or bool(TABLE_SUFFIXES & {s.lower() for s in path.suffixes})


def read_smiles(path: Path, smiles_column: str | None = None) -> Iterator[tuple[int, str]]:
    """Yields (line, SMILES) one after the other, without holding the file.

    In a file without a header the SMILES is the first word of the line, as `.smi` files carry a
    name behind it. Blank lines are passed over.

    Args:
        path: The file.
        smiles_column: A column's name: the file is then a table whatever it is called.

    Raises:
        DataError: the file is missing, empty, not UTF-8, or a damaged gzip; or has no such column.
    """
    check_is_file(path)
    found = False
    pairs = _column(path, smiles_column) if is_table(path, smiles_column) else _lines(path)
    for line, smiles in pairs:
        found = True
        yield line, smiles
    if not found:
        raise DataError("holds no SMILES", where=path)


def _column(path: Path, smiles_column: str | None) -> Iterator[tuple[int, str]]:
    rows = read_rows(path)
    header = [name.strip() for name in next(rows)[1]]
    position = find_column(header, SMILES, wanted=smiles_column, path=path, required=True)
    assert position is not None  # find_column raises when a required column is absent
    for line, fields in rows:
        if fields:
            yield line, fields[position].strip() if position < len(fields) else ""


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    with path.open("rb") as raw:
        packed = raw.read(2) == GZIP_MAGIC or path.suffix == ".gz"
    number = 0
    try:
        with gzip.open(path, "rb") if packed else path.open("rb") as stream:
            for number, content in enumerate(stream, start=1):
                words = content.decode("utf-8-sig" if number == 1 else "utf-8").split(maxsplit=1)
                if words and not (number == 1 and words[0].lower() in _HEADINGS):
                    yield number, words[0]
    except UnicodeDecodeError:
        raise DataError(
            "is not UTF-8 text", where=f"{path}:{number}", hint="save the file as UTF-8"
        ) from None
    except EOFError:
        raise DataError(
            "the gzip file is cut short", where=path, hint="copy or download it again"
        ) from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"is not a sound gzip file: {error}", where=path) from None
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}", where=path) from None
