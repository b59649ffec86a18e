"""Rows of a CSV or TSV file, plain or gzipped, each with its true line number."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from lipo_cli.errors import DataError

GZIP_MAGIC = b"\x1f\x8b"
ZIP_MAGIC = b"PK\x03\x04"
"""Excel's .xlsx is a zip file."""


def file_sha256(path: Path) -> str:
    """Returns the sha256 of the bytes on disk (of the packed file, if it is packed).

    Raises:
        DataError: the file cannot be read.
    """
    check_is_file(path)
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", where=path) from None


def check_is_file(path: Path) -> None:
    """Raises DataError when `path` is missing or is not a file."""
    if path.is_dir():
        raise DataError("is a directory, not a file", where=path, hint="name the CSV file in it")
    if not path.exists():
        raise DataError("does not exist", where=path, hint="check the path")


def read_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yields the header and then each row, as (line, fields); the line counts from 1.

    A row with quoted line breaks has the line where it begins. Blank lines in the middle are
    yielded as rows without fields; blank lines at the end of the file are not rows.

    Raises:
        DataError: the file is missing, a directory, empty, not UTF-8, or a damaged gzip.
    """
    check_is_file(path)
    with _failures_of(path), _open_binary(path) as stream:
        text = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
        delimiter = _delimiter(path, text.readline())
        text.seek(0)
        reader = csv.reader(text, delimiter=delimiter)
        blank: list[int] = []
        line, found = 1, False
        for fields in reader:
            if fields:
                # A blank line is a row only once something follows it.
                yield from ((earlier, []) for earlier in blank if found)
                blank, found = [], True
                yield line, fields
            else:
                blank.append(line)
            line = reader.line_num + 1
    if not found:
        raise DataError("the file is empty", where=path)


@contextmanager
def _open_binary(path: Path) -> Iterator[BinaryIO]:
    with path.open("rb") as raw:
        magic = raw.read(4)
        if magic == ZIP_MAGIC:
            raise DataError(
                "is a spreadsheet or a zip file, not text", where=path, hint="save it as CSV"
            )
        packed = magic.startswith(GZIP_MAGIC)
        raw.seek(0)
        if packed or path.suffix == ".gz":
            with gzip.open(raw, "rb") as unpacked:
                yield cast(BinaryIO, unpacked)
        else:
            yield raw


@contextmanager
def _failures_of(path: Path) -> Iterator[None]:
    """Turns what reading can raise into one clear line."""
    try:
        yield
    except UnicodeDecodeError:
        line = _first_undecodable_line(path)
        raise DataError(
            "is not UTF-8 text", where=f"{path}:{line}", hint="save the file as UTF-8"
        ) from None
    except EOFError:
        raise DataError(
            "the gzip file is cut short", where=path, hint="copy or download it again"
        ) from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise DataError(
            f"is not a sound gzip file: {error}", where=path, hint="copy or download it again"
        ) from None
    except csv.Error as error:
        raise DataError(f"cannot be read as a table: {error}", where=path) from None
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}", where=path) from None


def _delimiter(path: Path, header: str) -> str:
    """Goes by the name for TSV, otherwise by what the header line holds most."""
    if {".tsv", ".tab"} & set(path.suffixes):
        return "\t"
    return max(",\t;", key=header.count)


def _first_undecodable_line(path: Path) -> int:
    """The reader decodes ahead in blocks, so its own count is not the line."""
    with _open_binary(path) as stream:
        for number, content in enumerate(stream, start=1):
            try:
                content.decode("utf-8")
            except UnicodeDecodeError:
                return number
    return 1
