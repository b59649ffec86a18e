"""From settings to molecules in hand: dataset, split, and the secondary pool without overlap."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from lipo_cli.chem.datasets import Dataset, load_dataset
from lipo_cli.chem.overlap import OverlapReport, drop_overlap
from lipo_cli.chem.splits import Split, make_split
from lipo_cli.chem.tables import MoleculeTable
from lipo_cli.errors import DataError
from lipo_cli.settings import DataSettings
from lipo_cli.training.finetune import Examples


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
        """Names the primary data and its split: numbers compare within one scope only."""
        return f"{self.dataset.name}:{self.dataset.primary.sha256[:12]}:{self.split.fingerprint()}"

    def require_pool(self) -> Pool:
        """Returns the pool.

        Raises:
            DataError: there is no secondary set, or all of it overlaps with validation and test.
        """
        if self.pool is None:
            raise DataError(
                f"the dataset '{self.dataset.name}' has no secondary set",
                hint="give one: --secondary FILE",
            )
        if len(self.pool) < 2:
            raise DataError(
                f"{len(self.pool)} secondary molecules are left without the overlap",
                where=self.pool.table.path,
            )
        return self.pool


def examples_of(table: MoleculeTable, positions: NDArray[np.int64]) -> Examples:
    """Returns the molecules at these positions of a table."""
    smiles = table.smiles
    return Examples([smiles[i] for i in positions], table.labels[positions])


def prepare(settings: DataSettings) -> Prepared:
    """Loads the dataset, splits it and drops what overlaps.

    Raises:
        DataError: a file, column, row or split cannot be used.
    """
    dataset = load_dataset(settings)
    split = make_split(dataset.primary, settings)
    for part in ("train", "val", "test"):
        if (size := len(split.part(part))) < 2:
            raise DataError(
                f"the {part} part of the split '{split.name}' has {size} molecules",
                where=dataset.primary.path,
                hint="another --split or other --fractions",
            )
    pool = None
    if (secondary := dataset.secondary) is not None:
        kept, overlap = drop_overlap(secondary, dataset.primary, split)
        pool = Pool(
            examples=examples_of(secondary, kept),
            rows=secondary.frame["row"].to_numpy(dtype=np.int64)[kept],
            table=secondary,
            positions=kept,
            overlap=overlap,
        )
    return Prepared(dataset, split, pool)
