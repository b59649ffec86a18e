"""The state of a fine-tuning run after an epoch, on disk: written whole or not at all."""

from __future__ import annotations

import math
import os
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch


@dataclass
class TrainingState:
    """Where a run stands; enough to go on as if it had never stopped.

    `key` names the run: its settings, seed and molecules.
    """

    key: str = ""
    epoch: int = 0
    best_epoch: int = 0
    best_val_rmse: float = math.inf
    patience_from: int = 0
    stopped_early: bool = False
    seconds: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)
    best_weights: dict[str, torch.Tensor] | None = None
    weights: dict[str, torch.Tensor] | None = None
    average: dict[str, torch.Tensor] | None = None
    n_averaged: int = 0
    optimizer: dict[str, Any] = field(default_factory=dict)
    schedule: dict[str, Any] = field(default_factory=dict)


def write_state(path: Path, state: TrainingState) -> None:
    """Writes the state beside `path` and moves it there: a killed writer leaves the old one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.partial")
    fields = {name: getattr(state, name) for name in TrainingState.__dataclass_fields__}
    torch.save(fields, partial)
    partial.replace(path)


def read_state(path: Path, key: str) -> TrainingState | None:
    """Reads the state of the run `key`, or returns None where there is none that can be read.

    Only plain data is unpickled (`weights_only`). A damaged file, or one of another run, costs the
    work it held and nothing else, so it is not an error.
    """
    if not path.is_file():
        return None
    try:
        # torch reads past the checksums of its own archive: changed bytes would pass as weights.
        with zipfile.ZipFile(path) as archive:
            if archive.testzip() is not None:
                return None
        state = TrainingState(**torch.load(path, weights_only=True, map_location="cpu"))
    except Exception:  # a damaged archive raises whatever its bytes happen to say
        return None
    return state if state.key == key and state.weights is not None else None
