"""A split as a file: the rows of the primary set with a column `split`."""

from __future__ import annotations

import csv
import gzip
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO, cast

from lipo_cli.chem.columns import SPLIT
from lipo_cli.chem.splits import Split
from lipo_cli.chem.tables import MoleculeTable
from lipo_cli.errors import DataError


def write_split(primary: MoleculeTable, split: Split, path: Path) -> None:
    """Writes the molecules with a column `split` (train, val, test), whole or not at all.

    The columns bear their names in the primary file, which is read back with the same options.
    SMILES are as they stood there; labels of merged rows are their mean. A path that ends in
    `.tsv` is tab-separated, one that ends in `.gz` is packed.

    Raises:
        DataError: the file cannot be written.
    """
    others = {
        name: title
        for name, title in primary.file_columns().items()
        if title.lower() not in SPLIT.names
    }
    columns = {"input_smiles": primary.smiles_column}
    if primary.label_column is not None:
        columns["label"] = primary.label_column
    columns |= others
    words = split.columns(len(primary))
    rows = primary.frame[list(columns)].itertuples(index=False, name=None)
    with _whole_file(path) as stream:
        tabs = ".tsv" in path.suffixes
        writer = csv.writer(stream, delimiter="\t" if tabs else ",", lineterminator="\n")
        writer.writerow([*columns.values(), "split"])
        writer.writerows([*row, word] for row, word in zip(rows, words, strict=True))


@contextmanager
def _whole_file(path: Path) -> Iterator[TextIO]:
    """Writes beside the file and renames at the end, so that no half file is left."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("wb") as raw:
            packed = path.suffix == ".gz"
            # Without a time stamp the same split is the same bytes.
            binary = gzip.GzipFile("", "wb", fileobj=raw, mtime=0) if packed else raw
            text = io.TextIOWrapper(cast(io.BufferedWriter, binary), encoding="utf-8", newline="")
            with text:
                yield text
        beside.replace(path)
    except OSError as error:
        raise DataError(f"cannot be written: {error.strerror}", where=path) from None
    finally:
        with suppress(OSError):
            beside.unlink()
