"""Train, validation and test: which rows of the primary set go where, and under what name."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lipo_cli.chem.columns import SPLIT, find_column
from lipo_cli.chem.molecules import murcko_scaffold
from lipo_cli.chem.tables import MoleculeTable, read_header, read_table
from lipo_cli.errors import DataError
from lipo_cli.settings import DataSettings, SplitName

Positions = npt.NDArray[np.int64]
Parts = tuple[Sequence[int] | Positions, Sequence[int] | Positions, Sequence[int] | Positions]

PARTS = ("train", "val", "test")
WORDS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}
"""What a user's own split column may say, and the part that is meant."""
FEWEST_ROWS = 10
REFERENCE_SEED = 42
REFERENCE_SHARES = (0.2, 0.1)
"""Test share of all rows, then validation share of the rest."""


@dataclass(frozen=True)
class Split:
    """Which rows of a primary set train, validate and test.

    Attributes:
        name: How it was made.
        seed: Of a seeded split; what the settings said for the others.
        train: Positions in the primary frame, ascending.
        val: As `train`.
        test: As `train`.
    """

    name: SplitName
    seed: int
    train: Positions
    val: Positions
    test: Positions

    def fingerprint(self) -> str:
        """Returns 16 hex digits of the positions: two splits with the same rows are the same."""
        digest = hashlib.sha256()
        for part in PARTS:
            digest.update(part.encode())
            digest.update(self.part(part).astype("<i8").tobytes())
        return digest.hexdigest()[:16]

    def part(self, name: str) -> Positions:
        """Returns the positions of `train`, `val` or `test`."""
        return {"train": self.train, "val": self.val, "test": self.test}[name]

    def columns(self, n: int) -> npt.NDArray[np.str_]:
        """Returns the part of each of `n` rows as text, shape [n]; "" for a row in none."""
        words = np.full(n, "", dtype="<U5")
        for part in PARTS:
            words[self.part(part)] = part
        return words


def make_split(primary: MoleculeTable, settings: DataSettings) -> Split:
    """Splits a primary set as the settings say.

    Args:
        primary: The molecules; every row must be usable.
        settings: `split`, `split_seed`, `fractions`, `split_file`, `keep_stereo_groups`.

    Raises:
        DataError: there are too few rows, a part would be empty, or a split column is not usable.
    """
    parts = _parts(primary, settings)
    train, val, test = (np.sort(np.asarray(part, dtype=np.int64)) for part in parts)
    split = Split(settings.split, settings.split_seed, train, val, test)
    _check_parts(split, primary.path)
    return split


def _parts(primary: MoleculeTable, settings: DataSettings) -> Parts:
    n = len(primary)
    if settings.split == "column":
        return _column_parts(primary, settings)
    if n < FEWEST_ROWS:
        raise DataError(
            f"{n} molecules are too few for a {settings.split} split",
            where=primary.path,
            hint=f"it takes {FEWEST_ROWS}; or mark the rows yourself and use --split column",
        )
    if settings.split == "reference":
        return reference_parts(n)
    if settings.split == "random":
        keys = primary.skeletons if settings.keep_stereo_groups else list(range(n))
        return random_parts(keys, settings.fractions, settings.split_seed)
    scaffolds = [murcko_scaffold(smiles) for smiles in primary.smiles]
    if settings.split == "scaffold":
        return scaffold_parts(scaffolds, settings.fractions)
    return balanced_parts(scaffolds, settings.fractions, settings.split_seed)


def reference_parts(n: int) -> Parts:
    """Splits `n` rows as two calls of Hugging Face's `Dataset.train_test_split` do, seed 42.

    20 % go to test, then 10 % of the rest to validation, sizes rounded up; the library draws one
    permutation per call from `numpy.random.default_rng(seed)` and cuts the test rows off its front.
    """
    test_share, val_share = REFERENCE_SHARES
    rest, test = _front_of_permutation(np.arange(n, dtype=np.int64), test_share)
    train, val = _front_of_permutation(rest, val_share)
    return train, val, test


def _front_of_permutation(rows: Positions, share: float) -> tuple[Positions, Positions]:
    order = np.random.default_rng(REFERENCE_SEED).permutation(len(rows))
    n_front = math.ceil(share * len(rows))
    return rows[order[n_front:]], rows[order[:n_front]]


def random_parts(keys: Sequence[object], fractions: tuple[float, float, float], seed: int) -> Parts:
    """Splits rows at random; rows with the same key (say, one skeleton) stay together.

    The groups are met in random order. Each goes to the first of test, validation and train that
    still has room for it, so the sizes are those asked for while single molecules remain.
    """
    order = np.random.default_rng(seed).permutation(len(keys))
    groups: dict[object, list[int]] = {}
    for row in order:
        groups.setdefault(keys[row], []).append(int(row))
    n_val, n_test = round(fractions[1] * len(keys)), round(fractions[2] * len(keys))
    train: list[int] = []
    val: list[int] = []
    test: list[int] = []
    for group in groups.values():
        if len(test) + len(group) <= n_test:
            test += group
        elif len(val) + len(group) <= n_val:
            val += group
        else:
            train += group
    return train, val, test


def scaffold_parts(scaffolds: Sequence[str], fractions: tuple[float, float, float]) -> Parts:
    """Splits by scaffold as DeepChem's `ScaffoldSplitter` does: deterministic, largest sets first.

    Equal sizes are ordered by the first row of the set, later ones first (Wu et al., Chem. Sci. 9
    (2018) 513). A set that does not fit into train is tried in validation and else goes to test.
    """
    sets = sorted(_sets(scaffolds), key=lambda rows: (len(rows), rows[0]), reverse=True)
    train_size = fractions[0] * len(scaffolds)
    train_val_size = (fractions[0] + fractions[1]) * len(scaffolds)
    train: list[int] = []
    val: list[int] = []
    test: list[int] = []
    for rows in sets:
        if len(train) + len(rows) <= train_size:
            train += rows
        elif len(train) + len(val) + len(rows) <= train_val_size:
            val += rows
        else:
            test += rows
    return train, val, test


def balanced_parts(
    scaffolds: Sequence[str], fractions: tuple[float, float, float], seed: int
) -> Parts:
    """Splits by scaffold with a seed, as Chemprop's `scaffold_balanced` (Yang et al. 2019).

    Sets larger than half of validation or test are shuffled and come first, so that they land in
    train; the others are shuffled and fill train, then validation, then test.
    """
    n = len(scaffolds)
    rng = np.random.default_rng(seed)
    n_train, n_val, n_test = (fraction * n for fraction in fractions)
    large = [rows for rows in _sets(scaffolds) if len(rows) > min(n_val, n_test) / 2]
    small = [rows for rows in _sets(scaffolds) if len(rows) <= min(n_val, n_test) / 2]
    shuffled = [sets[i] for sets in (large, small) for i in rng.permutation(len(sets))]
    train: list[int] = []
    val: list[int] = []
    test: list[int] = []
    for rows in shuffled:
        if len(train) + len(rows) <= n_train:
            train += rows
        elif len(val) + len(rows) <= n_val:
            val += rows
        else:
            test += rows
    return train, val, test


def _sets(scaffolds: Sequence[str]) -> list[list[int]]:
    sets: dict[str, list[int]] = {}
    for row, scaffold in enumerate(scaffolds):
        sets.setdefault(scaffold, []).append(row)
    return list(sets.values())


def _column_parts(primary: MoleculeTable, settings: DataSettings) -> Parts:
    if settings.split_file is not None:
        words = _words_of_file(primary, Path(settings.split_file), settings)
    elif (primary.frame["n_merged"] > 1).any():
        # Merged rows must agree on their part: a molecule is not trained on and tested.
        words = _words_of_file(primary, Path(primary.path), settings)
    else:
        words = _words_of_column(primary)
    parts: dict[str, list[int]] = {part: [] for part in PARTS}
    for row, (word, line) in enumerate(words):
        parts[_part_of(word, line)].append(row)
    return parts["train"], parts["val"], parts["test"]


def _part_of(word: str, line: str) -> str:
    part = WORDS.get(word.strip().lower())
    if part is None:
        shown = f"the split {word!r} is not known" if word.strip() else "the split is missing"
        raise DataError(shown, where=line, hint="it may be train, val (valid, validation) or test")
    return part


def _words_of_column(primary: MoleculeTable) -> list[tuple[str, str]]:
    """Returns each row's word and the place of the file where it stands."""
    names = primary.file_columns()
    position = find_column(
        list(names.values()), SPLIT, wanted=None, path=primary.path, required=True
    )
    assert position is not None  # find_column raises when a required column is absent
    words = primary.frame[list(names)[position]]
    return [
        (str(word), f"{primary.path}:{line}")
        for word, line in zip(words, primary.frame["line"], strict=True)
    ]


def _words_of_file(
    primary: MoleculeTable, path: Path, settings: DataSettings
) -> list[tuple[str, str]]:
    header = read_header(path)
    table = read_table(
        path,
        # The file may be another than the dataset's, with columns of the usual names.
        smiles_column=settings.smiles_column if settings.smiles_column in header else None,
        on_invalid=settings.on_invalid,
        duplicates="keep",
        require_label=False,
    )
    known: dict[str, tuple[str, str]] = {}
    for smiles, (word, place) in zip(table.smiles, _words_of_column(table), strict=True):
        earlier = known.setdefault(smiles, (word, place))
        if _part_of(*earlier) != _part_of(word, place):
            raise DataError(
                f"the molecule is {word!r} here and {earlier[0]!r} at {earlier[1]}", where=place
            )
    missing = [
        line
        for smiles, line in zip(primary.smiles, primary.frame["line"], strict=True)
        if smiles not in known
    ]
    if missing:
        raise DataError(
            f"has no row for {len(missing):,} of {len(primary):,} molecules",
            where=path,
            hint=f"the first stands at {primary.path}:{missing[0]}",
        )
    return [known[smiles] for smiles in primary.smiles]


def _check_parts(split: Split, path: Path) -> None:
    for part in PARTS:
        if len(split.part(part)) == 0:
            hint = "give every part a larger share with --fractions, or use more molecules"
            if split.name == "column":
                hint = f"mark some rows {part}"
            elif split.name.startswith("scaffold"):
                hint = "there are too few scaffolds to part: --split random, or more molecules"
            raise DataError(f"the {split.name} split leaves {part} empty", where=path, hint=hint)
