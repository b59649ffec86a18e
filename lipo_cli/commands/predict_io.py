"""Result tables on their way out: CSV, TSV or JSON, files that appear only when they are whole."""

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
from pathlib import Path
from typing import IO, Protocol, cast

from lipo_cli.commands.molecule_file import Row
from lipo_cli.errors import DataError


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
        numbers = [_number(value) if math.isfinite(value) else "" for value in values]
        self._writer.writerow([*row.fields, *numbers])

    def close(self) -> None:
        """Has nothing more to write."""


def _number(value: float) -> str:
    """Returns six decimals, and of small numbers the seven digits that float32 has."""
    return f"{value:.6f}" if abs(value) >= 1 or value == 0 else f"{value:#.7g}"


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
