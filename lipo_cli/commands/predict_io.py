"""Rows in, rows out: a table read in chunks and written with one column more."""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Protocol, cast

from lipo_cli.chem.columns import SMILES, find_column
from lipo_cli.chem.molecules import parse
from lipo_cli.chem.reading import read_rows
from lipo_cli.errors import DataError
from lipo_cli.progress import Progress

CHUNK = 4096
"""Rows in memory at a time."""


@dataclass(frozen=True)
class Row:
    """A row of the file.

    Attributes:
        line: Where it begins in the file, from 1.
        fields: Its cells, as many as the header has.
        smiles: The canonical molecule; None when the row cannot be used.
        reason: Why it cannot be used.
    """

    line: int
    fields: tuple[str, ...]
    smiles: str | None
    reason: str = ""


class MoleculeFile:
    """A CSV or TSV file, plain or gzipped, that is read from front to back, never held whole.

    Attributes:
        path: The file.
        header: Its column names.
    """

    def __init__(self, path: Path, smiles_column: str | None = None) -> None:
        """Reads the header.

        Raises:
            DataError: the file cannot be read, or has no SMILES column.
        """
        if path.exists() and not path.is_file() and not path.is_dir():
            raise DataError(
                "is a pipe or a device, and the file is read twice",
                where=path,
                hint="write it to a file first",
            )
        self.path = path
        self.header = tuple(name.strip() for name in next(read_rows(path))[1])
        position = find_column(self.header, SMILES, wanted=smiles_column, path=path, required=True)
        assert position is not None
        self._position = position

    def check(self, *, molecules: bool, progress: Progress) -> int:
        """Reads the whole file once before anything is predicted, and keeps nothing of it.

        Whatever makes the file useless, on its last line too, is then known before the first
        prediction is printed.

        Args:
            molecules: Whether a row that holds no molecule is an error.
            progress: Told of every `CHUNK` rows.

        Returns:
            The number of rows.

        Raises:
            DataError: the file is damaged, or (with `molecules`) a row holds no molecule.
        """
        n_rows = 0
        progress.start("checking", None, "rows")
        for chunk in self._batches():
            for line, fields in chunk:
                if molecules and (row := self._row(line, fields)).smiles is None:
                    raise DataError(
                        row.reason,
                        where=f"{self.path}:{line}",
                        hint="--on-invalid skip leaves such rows out, nan leaves the prediction "
                        "empty",
                    )
            n_rows += len(chunk)
            progress.advance(len(chunk))
        progress.finish()
        return n_rows

    def chunks(self) -> Iterator[list[Row]]:
        """Yields the rows in order, `CHUNK` at a time."""
        for chunk in self._batches():
            yield [self._row(line, fields) for line, fields in chunk]

    def _batches(self) -> Iterator[tuple[tuple[int, list[str]], ...]]:
        rows = read_rows(self.path)
        next(rows)  # the header
        while chunk := tuple(islice(rows, CHUNK)):
            yield chunk

    def _row(self, line: int, fields: Sequence[str]) -> Row:
        width = len(self.header)
        if len(fields) != width:
            # Cells of a row that is too long have no column to stand in.
            padded = (*fields[:width], *[""] * (width - len(fields)))
            reason = f"the row has {len(fields)} cells, the header {width}"
            return Row(line, padded, None, reason if fields else "the row is empty")
        parsed = parse(fields[self._position])
        if isinstance(parsed, str):
            return Row(line, tuple(fields), None, parsed)
        return Row(line, tuple(fields), parsed.canonical)


class Writer(Protocol):
    """Where predictions go."""

    def write(self, row: Row, values: Sequence[float]) -> None:
        """Writes one row and what is predicted of it; NaN where there is none."""

    def close(self) -> None:
        """Writes what comes after the last row."""


class CsvWriter:
    """The input's columns and the predicted ones."""

    def __init__(self, stream: IO[str], names: Sequence[str], delimiter: str) -> None:
        self._writer = csv.writer(stream, delimiter=delimiter, lineterminator="\n")
        self._writer.writerow(names)

    def write(self, row: Row, values: Sequence[float]) -> None:
        """Writes one row; a missing prediction is an empty cell."""
        numbers = [f"{value:.6f}" if math.isfinite(value) else "" for value in values]
        self._writer.writerow([*row.fields, *numbers])

    def close(self) -> None:
        """Has nothing more to write."""


class JsonWriter:
    """A JSON array of objects, written as it grows."""

    def __init__(self, stream: IO[str], names: Sequence[str]) -> None:
        self._stream = stream
        self._names = names
        self._between = "["

    def write(self, row: Row, values: Sequence[float]) -> None:
        """Writes one object; a missing prediction is null."""
        numbers = [value if math.isfinite(value) else None for value in values]
        content = dict(zip(self._names, [*row.fields, *numbers], strict=True))
        self._stream.write(f"{self._between}\n{json.dumps(content)}")
        self._between = ","

    def close(self) -> None:
        """Closes the array."""
        self._stream.write("\n]\n" if self._between == "," else "[]\n")


@contextmanager
def output(path: Path | None, names: Sequence[str], *, as_json: bool = False) -> Iterator[Writer]:
    """Opens the output: stdout without a path, else a file that appears only when it is whole.

    `names` are the columns, the input's first and the predicted ones behind them. The suffix
    decides: `.tsv` is written with tabs, `.json` as JSON, `.gz` packed.

    Raises:
        DataError: the file cannot be written.
    """
    suffixes = set(path.suffixes) if path is not None else set()
    as_json = ".json" in suffixes or (path is None and as_json)

    def writer(stream: IO[str]) -> Writer:
        if as_json:
            return JsonWriter(stream, names)
        return CsvWriter(stream, names, "\t" if {".tsv", ".tab"} & suffixes else ",")

    if path is None:
        with _in_one_line("stdout"):
            to_terminal = writer(sys.stdout)
            yield to_terminal
            to_terminal.close()
            sys.stdout.flush()
        return
    with _whole_or_nothing(path) as stream:
        to_file = writer(stream)
        yield to_file
        to_file.close()


@contextmanager
def _whole_or_nothing(path: Path) -> Iterator[IO[str]]:
    path = path.resolve() if path.is_file() else path  # a link stays one
    if path.exists() and not path.is_file():
        with _in_one_line(path), path.open("wb") as device:
            yield from _packed_or_plain(path, device)
        return
    try:
        number, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise DataError(f"cannot be written: {error.strerror}", where=path) from None
    scratch = Path(name)
    try:
        with _in_one_line(path):
            with os.fdopen(number, "wb") as raw:
                yield from _packed_or_plain(path, raw)
            scratch.chmod(0o666 & ~_umask())
            scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)


@contextmanager
def _in_one_line(where: Path | str) -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:  # the reader has had enough
        raise
    except OSError as error:
        raise DataError(f"cannot be written: {error.strerror}", where=where) from None


def _packed_or_plain(path: Path, raw: IO[bytes]) -> Iterator[IO[str]]:
    if path.suffix == ".gz":
        # No name and no time inside: the same predictions are the same bytes.
        with gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as packed:
            yield from _as_text(cast(IO[bytes], packed))
    else:
        yield from _as_text(raw)


def _as_text(binary: IO[bytes]) -> Iterator[IO[str]]:
    text = io.TextIOWrapper(binary, encoding="utf-8", newline="")
    yield text
    text.flush()
    text.detach()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
