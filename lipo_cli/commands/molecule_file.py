"""A table of molecules, read in chunks and never held whole: once to check it, once to use it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO

from lipo_cli.chem.columns import SMILES, find_column
from lipo_cli.chem.molecules import canonicalise
from lipo_cli.chem.reading import read_rows
from lipo_cli.errors import DataError
from lipo_cli.progress import Progress
from lipo_cli.training.workers import ordered_map, usable_cores

CHUNK = 4096
"""Rows in memory at a time."""
_PARALLEL_BYTES = 1_000_000
"""A smaller file is read sooner than other processes have started."""
_BAD = "!"
"""What no SMILES begins with: a reason follows."""


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


@dataclass(frozen=True)
class _Cell:
    """What is read of a row: its line, the SMILES cell, or why there is none to read."""

    line: int
    text: str
    problem: str


class MoleculeFile:
    """A CSV or TSV file, plain or gzipped, that is read from front to back, never held whole.

    Its molecules are read once, in `check`; their canonical SMILES wait in a temporary file until
    `chunks` puts them beside their rows.

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
        self._kept: IO[str] | None = None
        self._state = _state(path)

    def check(self, *, molecules: bool, progress: Progress, workers: int | None = None) -> int:
        """Reads the whole file once before anything is predicted.

        Whatever makes the file useless, on its last line too, is then known before the first
        prediction is printed.

        Args:
            molecules: Whether a row that holds no molecule is an error.
            progress: Told of every `CHUNK` rows.
            workers: Processes that read molecules; 0: this one; None: by the file and the machine.

        Returns:
            The number of rows.

        Raises:
            DataError: the file is damaged, or (with `molecules`) a row holds no molecule, or the
                temporary file cannot be written.
        """
        if workers is None:
            cores = usable_cores()
            large = self.path.stat().st_size >= _PARALLEL_BYTES
            workers = cores if large and cores > 1 else 0
        kept = self._kept = tempfile.TemporaryFile(  # noqa: SIM115 - read in `chunks`
            "w+", encoding="utf-8", newline="\n"
        )
        n_rows = 0
        progress.start("checking", None, "rows")
        cells = ([self._cell(*row) for row in chunk] for chunk in self._batches())
        for found in ordered_map(_canonical_texts, cells, workers):
            for line, text in found:
                if molecules and text.startswith(_BAD):
                    raise DataError(
                        text.removeprefix(_BAD),
                        where=f"{self.path}:{line}",
                        hint="--on-invalid skip leaves such rows out, nan leaves the prediction "
                        "empty",
                    )
            try:
                kept.writelines(f"{text}\n" for _, text in found)
            except OSError as error:
                raise DataError(
                    f"cannot be written: {error.strerror}", where=tempfile.gettempdir()
                ) from None
            n_rows += len(found)
            progress.advance(len(found))
        progress.finish()
        return n_rows

    def chunks(self) -> Iterator[list[Row]]:
        """Yields the rows that `check` has read, in order, `CHUNK` at a time.

        Raises:
            DataError: the file has changed since.
        """
        assert self._kept is not None, "check comes first"
        self._kept.seek(0)
        self._check_unchanged()
        for chunk in self._batches():
            texts = [text.removesuffix("\n") for text in islice(self._kept, len(chunk))]
            if len(texts) < len(chunk):
                raise self._changed()
            yield [self._row(*row, text) for row, text in zip(chunk, texts, strict=True)]
        self._check_unchanged()

    def _check_unchanged(self) -> None:
        try:
            unchanged = _state(self.path) == self._state
        except OSError:  # gone, or what it lies on
            unchanged = False
        if not unchanged:
            raise self._changed()

    def _changed(self) -> DataError:
        return DataError("the file has changed, or gone, while it was read", where=self.path)

    def _batches(self) -> Iterator[tuple[tuple[int, list[str]], ...]]:
        rows = read_rows(self.path)
        next(rows)  # the header
        while chunk := tuple(islice(rows, CHUNK)):
            yield chunk

    def _cell(self, line: int, fields: Sequence[str]) -> _Cell:
        width = len(self.header)
        if len(fields) == width:
            return _Cell(line, fields[self._position], "")
        problem = f"the row has {len(fields)} cells, the header {width}"
        return _Cell(line, "", problem if fields else "the row is empty")

    def _row(self, line: int, fields: Sequence[str], text: str) -> Row:
        width = len(self.header)
        # Cells of a row that is too long have no column to stand in.
        padded = (*fields[:width], *[""] * (width - len(fields)))
        if text.startswith(_BAD):
            return Row(line, padded, None, text.removeprefix(_BAD))
        return Row(line, padded, text)


def _canonical_texts(cells: Sequence[_Cell]) -> list[tuple[int, str]]:
    """Returns of each row its line, and its canonical SMILES or `!` and a reason."""
    found = []
    for cell in cells:
        canonical, reason = (None, cell.problem) if cell.problem else canonicalise(cell.text)
        text = canonical if canonical is not None else _BAD + " ".join(reason.split())
        found.append((cell.line, text))
    return found


def _state(path: Path) -> tuple[int, int, int]:
    """Returns what differs after a file was written to or replaced."""
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns
