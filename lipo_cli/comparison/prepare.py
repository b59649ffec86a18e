"""From settings to molecules in hand: dataset, split, and the secondary pool without overlap."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lipo_cli.chem.datasets import Dataset, load_dataset, read_selection
from lipo_cli.chem.downloads import SECONDARY
from lipo_cli.chem.overlap import OverlapReport, drop_overlap
from lipo_cli.chem.splits import Split, make_split
from lipo_cli.chem.tables import MoleculeTable, read_header
from lipo_cli.errors import DataError
from lipo_cli.settings import CompareSettings, DataSettings
from lipo_cli.training.examples import Examples
from lipo_cli.valuation.selection import CHOSEN_ON, LEAKING
from lipo_cli.valuation.table import COLUMNS

_SCOPE = re.compile(r":([0-9a-f]{16}):([0-9a-f]{16})$")
"""The digests of molecules and split at the end of a scope."""


@dataclass(frozen=True)
class Pool:
    """The secondary molecules that may be scored.

    Attributes:
        examples: Their SMILES and labels, in file order.
        rows: [n] their 0-based data rows in the secondary file.
        table: The whole secondary set.
        positions: [n] their positions in the table's frame.
        overlap: What was dropped, and why.
    """

    examples: Examples
    rows: NDArray[np.int64]
    table: MoleculeTable
    positions: NDArray[np.int64]
    overlap: OverlapReport

    def __len__(self) -> int:
        """Returns the number of molecules."""
        return len(self.examples)


@dataclass(frozen=True)
class Prepared:
    """Everything a comparison reads.

    Attributes:
        dataset: Primary and secondary tables.
        split: Positions of train, validation and test in the primary frame.
        pool: The secondary molecules; None without a secondary set.
    """

    dataset: Dataset
    split: Split
    pool: Pool | None

    def part(self, name: str) -> Examples:
        """Returns `train`, `val` or `test`."""
        return examples_of(self.dataset.primary, self.split.part(name))

    @cached_property
    def train(self) -> Examples:
        """The primary training molecules."""
        return self.part("train")

    @cached_property
    def validation(self) -> Examples:
        """The molecules that choose epochs, values and the champion."""
        return self.part("val")

    def scope(self) -> str:
        """Names the primary molecules, their labels and the split: RMSEs compare within one."""
        primary = self.dataset.primary
        content = digest(Examples(primary.smiles, primary.labels))
        return f"{self.dataset.name}:{content}:{self.split.fingerprint()}"

    def require_pool(self, *, at_least: int = 2) -> Pool:
        """Returns the pool.

        Args:
            at_least: How many molecules it must hold; there is nothing to choose from fewer than 2.

        Raises:
            DataError: there is no secondary set, or it overlaps with validation and test and too
                few of it are left.
        """
        if self.pool is None:
            beside = self.dataset.primary.path.parent / SECONDARY.name
            known = self.dataset.name == "lipophilicity"
            raise DataError(
                f"the dataset '{self.dataset.name}' has no secondary set",
                hint="give one: --secondary FILE" + (f"; {beside} is missing" if known else ""),
            )
        if len(self.pool) < at_least:
            raise DataError(
                f"{len(self.pool)} secondary molecules are left without the overlap",
                where=self.pool.table.path,
            )
        return self.pool


def digest(examples: Examples) -> str:
    """Returns 16 hex digits of molecules and labels, in their order."""
    content = hashlib.sha256("\n".join(examples.smiles).encode())
    content.update(examples.labels.astype("<f8").tobytes())
    return content.hexdigest()[:16]


def rows_digest(rows: NDArray[np.int64]) -> str:
    """Returns the hex digits of data rows, in their order: they name molecules of one file."""
    return hashlib.sha256(rows.astype("<i8").tobytes()).hexdigest()


def examples_of(table: MoleculeTable, positions: NDArray[np.int64]) -> Examples:
    """Returns the molecules at these positions of a table."""
    smiles = table.smiles
    return Examples([smiles[i] for i in positions], table.labels[positions])


def resolved(settings: CompareSettings, prepared: Prepared) -> CompareSettings:
    """Returns the settings with `auto` replaced by what it came to, so that they can be given back.

    A comparison on the demo set, given back after the real data arrived, is one on the demo set.
    """
    named = prepared.dataset.name if settings.data.dataset == "auto" else settings.data.dataset
    data = settings.data.model_copy(update={"dataset": named})
    return settings.model_copy(
        update={"data": data, "reference_peft": settings.reference_peft or settings.peft[0]}
    )


def other_splits(settings: CompareSettings) -> list[Prepared]:
    """Returns the data on every split of a comparison but the first.

    Raises:
        DataError: as `prepare`.
    """
    seeds = range(settings.data.split_seed + 1, settings.data.split_seed + settings.splits)
    return [prepare(settings.data.model_copy(update={"split_seed": seed})) for seed in seeds]


def _read_chosen(path: Path, settings: DataSettings) -> MoleculeTable:
    if set(COLUMNS) <= set(read_header(path)):
        # Written by `lipo select` beside the file's own columns: the molecules that were scored,
        # duplicates merged, whatever the columns of the primary set are called.
        names = {"smiles_column": "smiles", "label_column": "label"}
        settings = settings.model_copy(update=names)
    return read_selection(path, settings)


def _check_origin(chosen: MoleculeTable, prepared: Prepared) -> None:
    """Checks that no test molecule of this split has chosen these rows, as far as they say.

    A table of `lipo select` that holds the rows that were left, too, is a whole pool: none of it
    was chosen.

    Raises:
        DataError: they were chosen by the test split, or by the validation molecules of another.
    """
    told = {name: chosen.frame.get(name) for name in ("selected", "reason", CHOSEN_ON)}
    texts = {n: [] if c is None else c.fillna("").astype(str).tolist() for n, c in told.items()}
    if "False" in texts["selected"]:
        return
    if any(text.startswith(LEAKING) for text in texts["reason"]):
        raise DataError(
            "these rows were chosen by the test split: what is trained on them cannot be tested",
            where=chosen.path,
            hint="score with --target validation and choose again",
        )
    # The name of the primary set, before the digests of its molecules and split, decides nothing.
    known = {match.groups() for text in texts[CHOSEN_ON] if (match := _SCOPE.search(text))}
    if not known:
        return
    scope = prepared.scope()
    here = _SCOPE.search(scope)
    assert here is not None
    if known - {here.groups()}:
        raise DataError(
            "these rows were chosen on another primary set or split, whose validation molecules "
            "may be test molecules here",
            where=chosen.path,
            hint=f"score and choose on this one ({scope}), or train on that (column {CHOSEN_ON}); "
            "with --splits every split but the first is another",
        )


def prepare(settings: DataSettings, selection: str | None = None) -> Prepared:
    """Loads the dataset, splits it and drops what overlaps.

    Args:
        settings: The data.
        selection: A file that `lipo select` wrote: its chosen rows are then the secondary set.

    Raises:
        DataError: a file, column, row or split cannot be used.
    """
    dataset = load_dataset(settings)
    if selection is not None:
        dataset = replace(dataset, secondary=_read_chosen(Path(selection), settings))
    split = make_split(dataset.primary, settings)
    for part in ("train", "val", "test"):
        if (size := len(split.part(part))) < 2:
            raise DataError(
                f"the {part} part of the split '{split.name}' has {size} of at least 2 molecules",
                where=dataset.primary.path,
                hint="more molecules, --split random, or other --fractions",
            )
    prepared = Prepared(dataset, split, None)
    if (secondary := dataset.secondary) is None:
        return prepared
    _check_origin(secondary, prepared)
    kept, overlap = drop_overlap(secondary, dataset.primary, split)
    pool = Pool(
        examples=examples_of(secondary, kept),
        rows=secondary.frame["row"].to_numpy(dtype=np.int64)[kept],
        table=secondary,
        positions=kept,
        overlap=overlap,
    )
    return replace(prepared, pool=pool)
