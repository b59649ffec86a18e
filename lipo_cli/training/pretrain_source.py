"""Where the molecules of a pretraining run come from, and by what they are known again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lipo_cli.chem.molecules import parse
from lipo_cli.chem.reading import check_is_file, file_sha256
from lipo_cli.chem.splits import Split, make_split
from lipo_cli.chem.tables import MoleculeTable
from lipo_cli.errors import DataError
from lipo_cli.settings import PretrainSettings
from lipo_cli.training.corpus_cleaning import text_hash
from lipo_cli.training.corpus_lines import is_table, read_smiles


@dataclass(frozen=True)
class Source:
    """Molecules that can be read once more.

    Attributes:
        name: The file, or the dataset and its parts.
        identity: What decides which molecules they are.
        pairs: Opens them as (line, SMILES).
    """

    name: str
    identity: dict[str, str]
    pairs: Callable[[], Iterable[tuple[int, str]]]


def source_of(settings: PretrainSettings) -> Source:
    """Finds the molecules that the settings name.

    Raises:
        DataError: a file or dataset is missing or cannot be used.
    """
    excluded = {f"exclude.{i}": file_sha256(Path(f)) for i, f in enumerate(settings.exclude)}
    if settings.adapt:
        from lipo_cli.chem.datasets import load_dataset

        dataset = load_dataset(settings.data)
        split = make_split(dataset.primary, settings.data)
        found = adaptation_source(dataset.primary, split, dataset.name)
    else:
        assert settings.corpus is not None  # the settings refuse to be without
        found = file_source(Path(settings.corpus), settings.smiles_column, settings.limit)
    return Source(found.name, found.identity | excluded, found.pairs)


def file_source(path: Path, smiles_column: str | None, limit: int | None = None) -> Source:
    """Returns the molecules of a file, or of its first `limit` lines that hold one."""
    check_is_file(path)
    identity = {"data": file_sha256(path)}
    if is_table(path, smiles_column):
        identity["smiles_column"] = smiles_column or "found by name"
    return Source(str(path), identity, lambda: islice(read_smiles(path, smiles_column), limit))


def adaptation_source(primary: MoleculeTable, split: Split, name: str) -> Source:
    """Returns the molecules of the training and validation rows, and none of the test rows."""
    rows = np.sort(np.concatenate([split.train, split.val]))
    lines = primary.frame["line"].to_numpy()
    smiles = primary.smiles
    # With duplicates kept, a molecule may stand in two parts of the split.
    hidden = {smiles[i] for i in split.test.tolist()}
    pairs = [(int(lines[i]), smiles[i]) for i in rows.tolist() if smiles[i] not in hidden]
    identity = {"data": primary.sha256, "split": split.fingerprint()}
    return Source(f"{name} (train + validation)", identity, lambda: pairs)


def excluded_skeletons(files: Sequence[str]) -> tuple[NDArray[np.uint64] | None, list[str]]:
    """Returns hashes of the stereo-free molecules of these files, and lines to tell the user.

    Raises:
        DataError: a file cannot be read or holds no molecule at all.
    """
    if not files:
        return None, []
    hashes: set[int] = set()
    notes: list[str] = []
    for file in files:
        parsed = [parse(smiles) for _, smiles in read_smiles(Path(file))]
        good = {text_hash(p.skeleton) for p in parsed if not isinstance(p, str)}
        if not good:
            raise DataError("holds no molecule to leave out", where=file)
        unusable = sum(isinstance(p, str) for p in parsed)
        unread = f", {unusable:,} lines unreadable" if unusable else ""
        notes.append(f"{file}: {len(good):,} molecules are left out where met{unread}")
        hashes |= good
    return np.array(sorted(hashes), dtype=np.uint64), notes
