"""Descriptors as targets: computed once in parallel, kept on disk, standardised and clipped."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lipo_cli.chem.descriptors import DESCRIPTORS, Float32s, descriptor_matrix
from lipo_cli.errors import DataError
from lipo_cli.progress import Progress, SilentProgress
from lipo_cli.training.corpus import Corpus
from lipo_cli.training.views import Positions
from lipo_cli.training.workers import ordered_map

CLIP = 5.0
"""Standard deviations: one polymer or peptide must not outweigh a batch."""
_CHUNK = 1_000
_FEW_MOLECULES = 4_000
"""Up to here starting processes takes longer than the work."""


@dataclass(frozen=True)
class DescriptorTargets:
    """Targets of the molecules of a corpus.

    Attributes:
        values: Raw descriptors [n, d], float32, mapped from disk.
        mean: Of the training molecules [d].
        scale: Their standard deviation [d]; 1 where a descriptor does not vary.
    """

    values: Float32s
    mean: Float32s
    scale: Float32s

    def of(self, rows: NDArray[np.int64]) -> Float32s:
        """Returns standardised, clipped targets [len(rows), d]; NaN where there is none."""
        z = (np.asarray(self.values[rows]) - self.mean) / self.scale
        clipped: Float32s = np.clip(z, -CLIP, CLIP)
        return clipped


def descriptor_targets(
    corpus: Corpus,
    train: Positions,
    folder: Path,
    *,
    workers: int = 0,
    progress: Progress | None = None,
    check: Callable[[], None] = lambda: None,
) -> DescriptorTargets:
    """Computes the descriptors of a corpus, or takes those an earlier part of the run computed.

    Args:
        corpus: The molecules.
        train: Positions that mean and scale are taken from.
        folder: Where `descriptors.npy` is kept. It is written in place and counts as whole once
            `descriptors.json` stands beside it.
        workers: Processes; 0 works here. The values do not depend on it.
        progress: Told of every chunk.
        check: Called between chunks; it may raise to stop.
    """
    file, mark = folder / "descriptors.npy", folder / "descriptors.json"
    if not mark.is_file():
        _compute(corpus, file, workers, progress or SilentProgress(), check)
        mark.write_text(json.dumps({"names": DESCRIPTORS}), encoding="utf-8")
    elif json.loads(mark.read_text(encoding="utf-8")).get("names") != list(DESCRIPTORS):
        raise DataError(
            "these descriptors are not those that this RDKit computes",
            where=mark,
            hint="they were cached by another version: remove the file, and they are computed anew",
        )
    values = np.load(file, mmap_mode="r")
    # Over a slice at a time: all rows at once would be a second copy of the file in memory.
    total, squares, counts = (np.zeros(len(DESCRIPTORS)) for _ in range(3))
    for i in range(0, len(train), 10 * _CHUNK):
        block = np.asarray(values[train[i : i + 10 * _CHUNK]], dtype=np.float64)
        total += np.nansum(block, axis=0)
        squares += np.nansum(block**2, axis=0)
        counts += np.isfinite(block).sum(axis=0)
    mean = total / np.maximum(counts, 1)
    variance = np.maximum(squares / np.maximum(counts, 1) - mean**2, 0)
    # Below this a column is constant but for rounding.
    varies = variance > 1e-9 * np.maximum(mean**2, 1e-6)
    scale = np.where(varies, np.sqrt(variance), 1.0)
    return DescriptorTargets(values, mean.astype(np.float32), scale.astype(np.float32))


def _compute(
    corpus: Corpus, file: Path, workers: int, progress: Progress, check: Callable[[], None]
) -> None:
    n = len(corpus)
    out = np.lib.format.open_memmap(file, mode="w+", dtype=np.float32, shape=(n, len(DESCRIPTORS)))

    def chunks() -> Iterator[list[str]]:
        for start in range(0, n, _CHUNK):
            yield [corpus.smiles(i) for i in range(start, min(start + _CHUNK, n))]

    progress.start("computing descriptors", n, "molecules")
    start = 0
    try:
        for block in ordered_map(
            descriptor_matrix, chunks(), workers if n > _FEW_MOLECULES else 0, check
        ):
            out[start : start + len(block)] = block
            start += len(block)
            progress.advance(len(block))
    finally:
        progress.finish()
    out.flush()
