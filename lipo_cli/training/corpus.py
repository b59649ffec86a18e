"""The molecules to pretrain on, in the memory that their tokens need: two bytes each."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lipo_cli.chem.records import BadRow
from lipo_cli.errors import DataError
from lipo_cli.progress import Progress, SilentProgress
from lipo_cli.training.corpus_cleaning import CHUNK, ChunkTask, CleanChunk, clean_chunk
from lipo_cli.training.workers import ordered_map

REMEMBERED = 20
"""How many bad lines a report names; it counts them all."""
N_ENDS = 2
"""bos and eos."""
_MOST_TOKENS = 2**16 - 1
_FEW_LINES = 10 * CHUNK
"""Up to here starting processes takes longer than the work."""


@dataclass(frozen=True)
class CorpusReport:
    """What became of the lines of a corpus.

    Attributes:
        source: The file, or what else it was.
        n_read: Lines with a SMILES.
        n_kept: Molecules that are left.
        n_bad: Lines without a usable molecule; the first are in `bad_rows`.
        n_duplicates: Lines with the same canonical SMILES as an earlier one.
        n_excluded: Molecules left out because another file holds them, stereo not compared.
        n_too_long: Molecules of more tokens than the model reads.
        bad_rows: The first bad lines.
    """

    source: str
    n_read: int
    n_kept: int
    n_bad: int
    n_duplicates: int
    n_excluded: int
    n_too_long: int
    bad_rows: tuple[BadRow, ...]

    def as_dict(self) -> dict[str, Any]:
        """Returns plain values, for JSON."""
        return {**asdict(self), "bad_rows": [asdict(row) for row in self.bad_rows]}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> CorpusReport:
        """Takes back what `as_dict` gave."""
        rows = tuple(BadRow(**row) for row in content["bad_rows"])
        return cls(**{**content, "bad_rows": rows})

    def sentence(self) -> str:
        """Returns the counts in one line."""
        parts = [
            (self.n_bad, "bad"),
            (self.n_duplicates, "duplicate"),
            (self.n_excluded, "excluded"),
            (self.n_too_long, "too long"),
        ]
        left_out = ", ".join(f"{n:,} {why}" for n, why in parts if n)
        return f"{self.n_kept:,} molecules of {self.n_read:,} lines" + (
            f" ({left_out})" if left_out else ""
        )


@dataclass(frozen=True)
class Corpus:
    """Molecules as tokens.

    Attributes:
        tokens: The distinct tokens.
        flat: Positions in `tokens`, all molecules one behind the other, uint16.
        offsets: Where each molecule begins [n + 1].
        report: What was read and left out.
    """

    tokens: tuple[str, ...]
    flat: NDArray[np.uint16]
    offsets: NDArray[np.int64]
    report: CorpusReport

    def __len__(self) -> int:
        """Returns the number of molecules."""
        return len(self.offsets) - 1

    def smiles(self, position: int) -> str:
        """Returns the canonical SMILES of one molecule."""
        row = self.flat[self.offsets[position] : self.offsets[position + 1]]
        return "".join([self.tokens[i] for i in row.tolist()])

    def __iter__(self) -> Iterator[str]:
        """Yields the canonical SMILES in order."""
        return (self.smiles(i) for i in range(len(self)))

    def save(self, path: Path) -> None:
        """Writes the corpus whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        about = json.dumps({"tokens": self.tokens, "report": self.report.as_dict()})
        partial = path.with_suffix(".partial")
        with partial.open("wb") as stream:
            np.savez(stream, flat=self.flat, offsets=self.offsets, about=np.array(about))
        partial.replace(path)

    @classmethod
    def load(cls, path: Path) -> Corpus:
        """Reads what `save` wrote."""
        with np.load(path, allow_pickle=False) as content:
            about = json.loads(str(content["about"]))
            report = CorpusReport.from_dict(about["report"])
            return cls(tuple(about["tokens"]), content["flat"], content["offsets"], report)


def gather_corpus(
    pairs: Iterable[tuple[int, str]],
    source: str,
    *,
    max_length: int,
    excluded: NDArray[np.uint64] | None = None,
    on_invalid: Literal["error", "skip"] = "skip",
    workers: int = 0,
    progress: Progress | None = None,
    check: Callable[[], None] = lambda: None,
) -> Corpus:
    """Cleans molecules: canonical, once each, none of the excluded, none too long.

    Args:
        pairs: (line, SMILES), read once.
        source: Where they come from, for messages.
        max_length: Longest molecule in tokens, bos and eos included.
        excluded: Hashes of skeletons to leave out (`excluded_skeletons`).
        on_invalid: `skip` counts and names bad lines, `error` ends at the first.
        workers: Processes; 0 works here. The corpus does not depend on it.
        progress: Told of every chunk.
        check: Called between chunks; it may raise to stop.

    Raises:
        DataError: nothing is left, or with `error` a line holds no usable molecule.
    """
    listener = progress or SilentProgress()
    chunks: list[CleanChunk] = []
    table: dict[str, int] = {}
    n_bad, bad = 0, list[BadRow]()
    listener.start("reading molecules", None, "lines")
    try:
        for chunk in _cleaned(pairs, excluded is not None, workers, check):
            if chunk.bad and on_invalid == "error":
                first = chunk.bad[0]
                raise DataError(
                    f"{first.reason}: {first.text!r}",
                    where=f"{source}:{first.line}",
                    hint="--on-invalid skip leaves such lines out",
                )
            n_bad += len(chunk.bad)
            bad.extend(chunk.bad[: REMEMBERED - len(bad)])
            chunks.append(_in_common_tokens(chunk, table))
            listener.advance(len(chunk.lengths) + len(chunk.bad))
    finally:
        listener.finish()
    return _joined(chunks, tuple(table), source, excluded, max_length, n_bad, tuple(bad))


def _cleaned(
    pairs: Iterable[tuple[int, str]], skeletons: bool, workers: int, check: Callable[[], None]
) -> Iterator[CleanChunk]:
    stream = iter(pairs)
    start = list(islice(stream, _FEW_LINES))
    if len(start) < _FEW_LINES:
        workers = 0

    def tasks() -> Iterator[ChunkTask]:
        for i in range(0, len(start), CHUNK):
            yield ChunkTask(start[i : i + CHUNK], skeletons)
        while chunk := list(islice(stream, CHUNK)):
            yield ChunkTask(chunk, skeletons)

    return ordered_map(clean_chunk, tasks(), workers, check)


def _in_common_tokens(chunk: CleanChunk, table: dict[str, int]) -> CleanChunk:
    """Renumbers a chunk's tokens as the whole corpus numbers them."""
    numbers = [table.setdefault(token, len(table)) for token in chunk.tokens]
    if len(table) > _MOST_TOKENS:
        raise DataError(f"more than {_MOST_TOKENS:,} different tokens", hint="is this SMILES?")
    flat = np.array(numbers, dtype=np.uint16)[chunk.flat]
    return CleanChunk([], flat, chunk.lengths, chunk.hashes, chunk.skeletons, [])


def _joined(
    chunks: list[CleanChunk],
    tokens: tuple[str, ...],
    source: str,
    excluded: NDArray[np.uint64] | None,
    max_length: int,
    n_bad: int,
    bad: tuple[BadRow, ...],
) -> Corpus:
    lengths = _concatenated([chunk.lengths for chunk in chunks], np.uint16)
    hashes = _concatenated([chunk.hashes for chunk in chunks], np.uint64)
    first = np.zeros(len(hashes), dtype=bool)
    first[np.unique(hashes, return_index=True)[1]] = True
    foreign = np.ones(len(hashes), dtype=bool)
    if excluded is not None:
        skeletons = _concatenated([chunk.skeletons for chunk in chunks], np.uint64)
        foreign = ~np.isin(skeletons, excluded)
    fits = lengths.astype(np.int64) + N_ENDS <= max_length
    kept = first & foreign & fits
    report = CorpusReport(
        source=source,
        n_read=len(hashes) + n_bad,
        n_kept=int(kept.sum()),
        n_bad=n_bad,
        n_duplicates=int((~first).sum()),
        n_excluded=int((first & ~foreign).sum()),
        n_too_long=int((first & foreign & ~fits).sum()),
        bad_rows=bad,
    )
    if report.n_kept == 0:
        where = f"{source}:{bad[0].line}" if bad else source
        reason = f"; the first bad line: {bad[0].reason}" if bad else ""
        raise DataError(f"no molecule is left: {report.sentence()}{reason}", where=where)
    flat = _concatenated([chunk.flat for chunk in chunks], np.uint16)
    chunks.clear()
    flat = flat[np.repeat(kept, lengths)]
    offsets = np.zeros(report.n_kept + 1, dtype=np.int64)
    np.cumsum(lengths[kept], out=offsets[1:])
    return Corpus(tokens, flat, offsets, report)


def _concatenated(parts: list[NDArray[Any]], kind: type[np.generic]) -> NDArray[Any]:
    return np.concatenate(parts) if parts else np.empty(0, dtype=kind)
