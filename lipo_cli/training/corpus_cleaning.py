"""One chunk of SMILES: canonicalised, named where unusable, and turned into small arrays.

This runs in worker processes: it knows RDKit and numpy, and no torch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lipo_cli.chem.molecules import parse
from lipo_cli.chem.records import BadRow
from lipo_cli.chem.tokens import split_tokens, unmatched

CHUNK = 2_000
"""Lines per chunk: about a second of work."""
_SHOWN = 60


@dataclass(frozen=True)
class ChunkTask:
    """Lines to clean: (line, SMILES) pairs, and whether their skeletons are asked for."""

    pairs: Sequence[tuple[int, str]]
    with_skeletons: bool


@dataclass(frozen=True)
class CleanChunk:
    """What is left of a chunk.

    Attributes:
        tokens: The distinct tokens of the chunk, in order of appearance.
        flat: Positions in `tokens` of all molecules, one behind the other, uint16.
        lengths: Tokens of each molecule [n], uint16.
        hashes: Of the canonical SMILES [n], uint64.
        skeletons: Of the canonical SMILES without stereo [n], uint64; empty when not asked for.
        bad: The lines that hold no usable molecule.
    """

    tokens: list[str]
    flat: NDArray[np.uint16]
    lengths: NDArray[np.uint16]
    hashes: NDArray[np.uint64]
    skeletons: NDArray[np.uint64]
    bad: list[BadRow]


def text_hash(text: str) -> int:
    """Returns 64 bits that stand for a text; a million texts collide with probability 3e-8."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def clean_chunk(task: ChunkTask) -> CleanChunk:
    """Reads every molecule of a chunk and splits its canonical SMILES into tokens."""
    table: dict[str, int] = {}
    flat: list[int] = []
    lengths: list[int] = []
    hashes: list[int] = []
    skeletons: list[int] = []
    bad: list[BadRow] = []
    for line, smiles in task.pairs:
        parsed = parse(smiles)
        if isinstance(parsed, str):
            bad.append(BadRow(line, parsed, smiles[:_SHOWN]))
            continue
        if odd := unmatched(parsed.canonical):
            bad.append(BadRow(line, f"no token covers {odd[:10]!r}", smiles[:_SHOWN]))
            continue
        tokens = split_tokens(parsed.canonical)
        flat.extend(table.setdefault(token, len(table)) for token in tokens)
        lengths.append(len(tokens))
        hashes.append(text_hash(parsed.canonical))
        if task.with_skeletons:
            skeletons.append(text_hash(parsed.skeleton))
    return CleanChunk(
        tokens=list(table),
        flat=np.array(flat, dtype=np.uint16),
        lengths=np.array(lengths, dtype=np.uint16),
        hashes=np.array(hashes, dtype=np.uint64),
        skeletons=np.array(skeletons, dtype=np.uint64),
        bad=bad,
    )
