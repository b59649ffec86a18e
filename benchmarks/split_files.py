"""One split as a file that every method reads: `smiles`, `label`, `split` of each molecule.

Ours and a peer in another environment are then known to train, validate and test on the same rows.
"""

from __future__ import annotations

import hashlib
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from lipo_cli.chem.datasets import load_dataset
from lipo_cli.chem.splits import PARTS, make_split
from lipo_cli.settings import DataSettings

if TYPE_CHECKING:
    from lipo_cli.training.examples import Examples


@dataclass(frozen=True)
class SplitFile:
    """A split on disk.

    Attributes:
        dataset: `lipophilicity`, `demo`, or the stem of a file's name.
        split: How it was made.
        path: The CSV file; its SMILES are canonical, its parts `train`, `val` and `test`.
        frame: Its content.
    """

    dataset: str
    split: str
    path: Path
    frame: pd.DataFrame

    def sha256(self) -> str:
        """Returns the hash of the file: runs on other rows are other runs."""
        return hashlib.sha256(self.path.read_bytes()).hexdigest()

    def rows(self, *parts: str) -> pd.DataFrame:
        """Returns the rows of some parts, in the order of the file."""
        return self.frame[self.frame["split"].isin(parts)].reset_index(drop=True)

    def examples(self, part: str) -> Examples:
        """Returns the molecules and labels of a part, in the order of the file."""
        from lipo_cli.training.examples import Examples

        rows = self.rows(part)
        return Examples(list(rows["smiles"]), rows["label"].to_numpy(np.float64))


def split_file(settings: DataSettings, folder: Path, limit: int | None = None) -> SplitFile:
    """Returns the split that the settings name, written to `folder/DATASET/SPLIT.csv`.

    A file that is there must hold what would be written: runs kept beside it were made with it.

    Args:
        settings: Data and split.
        folder: Where it lies; with a limit, beside the whole one.
        limit: About how many molecules to keep, an equal share of each part; None: all.

    Raises:
        SystemExit: a file of another content is there.
    """
    dataset = load_dataset(settings)
    primary = dataset.primary
    split = make_split(primary, settings)
    share = 1.0 if limit is None else min(1.0, limit / len(primary))
    words = np.full(len(primary), "", dtype="<U5")
    for part in PARTS:
        positions = split.part(part)
        words[positions[: math.ceil(share * len(positions))]] = part
    whole = pd.DataFrame({"smiles": primary.smiles, "label": primary.labels, "split": words})
    text = whole[words != ""].to_csv(index=False, lineterminator="\n")
    name = Path(dataset.name).stem
    path = folder / (name if limit is None else f"{name}-{limit}") / f"{settings.split}.csv"
    if not path.exists():
        write_whole(path, text)
    elif path.read_text(encoding="utf-8") != text:
        raise SystemExit(f"{path} holds another split: give another --out")
    return SplitFile(name, settings.split, path, pd.read_csv(path))


def write_whole(path: Path, text: str) -> None:
    """Writes a file that is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    beside.write_text(text, encoding="utf-8", newline="")
    beside.replace(path)
