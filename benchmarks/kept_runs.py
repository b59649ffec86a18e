"""What a training run of the accuracy benchmark leaves: its predictions and its time, on disk.

A run is kept under its method, split, seed and a key over all that decides its numbers, and found
again: an interrupted benchmark goes on, and ensembles and averages over SMILES are computed from
what is kept, without training anew.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from split_files import SplitFile, write_whole

PEER = "chemprop"
"""The method that is not ours."""
KERNEL = "kernel"
"""The method of ours that trains no network and joins those that do."""
COMMITTED = Path(__file__).parent / "peer_runs"
"""Runs of the peer that came with the repository: they depend on nothing of ours but the split, and
one takes 7 to 17 minutes of a core. Predictions alone: the molecules and labels are not ours."""


@dataclass(frozen=True)
class Run:
    """One trained model's predictions of the validation and test rows of a split file.

    Attributes:
        method: A fine-tuning method of ours, or `chemprop`.
        split: Name of the split.
        seed: Seed of the run.
        seconds: Wall-clock time of the training.
        rows: Part and label of each row: columns `split` and `label`.
        views: Predictions [n, k] in raw label units, one column for each SMILES of a molecule.
        about: What else is known of the run; `found` where it was kept from an earlier start, and
            `committed` where it came with the repository: measured elsewhere.
    """

    method: str
    split: str
    seed: int
    seconds: float
    rows: pd.DataFrame
    views: NDArray[np.float64]
    about: Mapping[str, Any]

    @property
    def device(self) -> str:
        """What it was trained on; runs of before this was kept, and the peer's, on a CPU."""
        return str(self.about.get("device", "cpu"))

    @property
    def elsewhere(self) -> bool:
        """Whether its time is no time of this machine: it came along, or is of another device."""
        away = self.method != PEER and self.device != this_device()
        return bool(self.about.get("committed")) or away


def this_device() -> str:
    """Returns what a run of this machine is trained on: the name of its GPU, or `cpu`."""
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"


class Shelf:
    """The runs on one split file: of this machine, and those that came with the repository."""

    def __init__(self, splits: SplitFile, committed: Path = COMMITTED) -> None:
        self._splits = splits
        self._folder = splits.path.with_suffix("")
        self._committed = committed / splits.dataset / splits.split

    def stem(self, method: str, seed: int, key: str) -> Path:
        """Returns the path of a run's files without their suffix."""
        return self._folder / f"{method}-seed{seed}-{key[:8]}"

    def find(self, method: str, seed: int, key: str, n_views: int = 1) -> Run | None:
        """Returns a kept run that has at least `n_views` predictions of a molecule, or None.

        Raises:
            SystemExit: its predictions are not those of the split file's molecules.
        """
        own = self.stem(method, seed, key)
        for stem in (own, self._committed / own.name):
            file = stem.with_suffix(".json")
            if not file.is_file():
                continue
            about = json.loads(file.read_text(encoding="utf-8"))
            if about["key"] == key and about["views"] >= n_views:
                break
        else:
            return None
        rows = self._splits.rows("val", "test")[["split", "label"]]
        views = pd.read_csv(stem.with_suffix(".csv")).to_numpy(np.float64)
        if views.shape != (len(rows), about["views"]):
            raise SystemExit(f"{stem}.csv holds {views.shape} predictions of {len(rows)} molecules")
        about |= {"found": True, "committed": stem != own}
        return Run(method, self._splits.split, seed, about["seconds"], rows, views, about)

    def keep(
        self,
        method: str,
        seed: int,
        key: str,
        views: NDArray[np.float64],
        seconds: float,
        **about: Any,
    ) -> Run:
        """Writes a run: the predictions first, then the JSON that says it is whole.

        Args:
            method: The method.
            seed: Its seed.
            key: What `key_of` gave.
            views: Predictions [n, k] of validation and test in the order of the split file.
            seconds: Wall-clock time of the training.
            **about: What else is to be known of it.

        Raises:
            SystemExit: a prediction is not a finite number.
        """
        rows = self._splits.rows("val", "test")
        if len(rows) != len(views) or not np.isfinite(views).all():
            raise SystemExit(f"{method}, seed {seed}: the predictions are not all finite numbers")
        frame = pd.DataFrame({f"view{i}": views[:, i] for i in range(views.shape[1])})
        stem = self.stem(method, seed, key)
        content = {**about, "key": key, "seconds": seconds, "views": views.shape[1]}
        write_whole(stem.with_suffix(".csv"), frame.to_csv(index=False, lineterminator="\n"))
        text = json.dumps(content, indent=1, sort_keys=True, default=str)
        write_whole(stem.with_suffix(".json"), text + "\n")
        split = self._splits.split
        return Run(method, split, seed, seconds, rows[["split", "label"]], views, content)


def key_of(splits: SplitFile, **content: object) -> str:
    """Names a run by what decides its numbers: the rows, and whatever else is given."""
    text = json.dumps({"rows": splits.sha256(), **content}, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()
