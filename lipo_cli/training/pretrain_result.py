"""What a pretraining run came to, as an object and as files."""

from __future__ import annotations

import csv
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rdkit
import torch
import transformers

from lipo_cli import __version__
from lipo_cli.errors import ModelError
from lipo_cli.model.base import CHECKPOINT_FILES, sha256_of
from lipo_cli.training.corpus import CorpusReport

COLUMNS = (
    "step",
    "epoch",
    "learning_rate",
    "train_loss",
    "val_loss",
    "val_accuracy",
    "train_descriptor_loss",
    "val_descriptor_loss",
    "val_descriptor_r2",
    "molecules",
    "seconds",
)


@dataclass(frozen=True)
class PretrainResult:
    """What a pretraining run came to.

    Attributes:
        folder: Holds the checkpoint, `history.csv`, `pretrain.json` and `training.png`.
        status: `finished`, or `paused` when `max_minutes` ran out.
        steps: Optimiser steps done, of `total_steps`.
        objective: `mlm`, `descriptors` or `both`; figures of what was not asked are None.
        val_loss: Held-out masked-token cross-entropy in nats, fixed masks.
        val_accuracy: Share of held-out masked tokens predicted right.
        unigram_loss: Held-out loss of predicting tokens by their frequency.
        val_descriptor_loss: Held-out smooth-L1 loss of the standardised descriptors.
        val_descriptor_r2: Mean R2 over the descriptors that vary.
        n_train: Molecules trained on; `n_validation` were held out.
        n_views: Molecules seen, repeats counted.
        n_parameters: Of the model with its LM head.
        n_unknown: Molecules with a token that the checkpoint's tokenizer does not know.
        new_head: Whether the LM head had to start from random weights on a pretrained encoder.
        seconds: Training time over all parts of the run.
        corpus: What became of the lines.
        history: The curve, one row per validation; the first is before training.
    """

    folder: Path
    status: str
    steps: int
    total_steps: int
    objective: str
    val_loss: float | None
    val_accuracy: float | None
    unigram_loss: float | None
    val_descriptor_loss: float | None
    val_descriptor_r2: float | None
    n_train: int
    n_validation: int
    n_views: int
    n_parameters: int
    n_unknown: int
    new_head: bool
    seconds: float
    corpus: CorpusReport
    history: list[dict[str, float]]

    def as_dict(self) -> dict[str, Any]:
        """Returns plain values without the curve."""
        content = asdict(self) | {"folder": str(self.folder), "corpus": self.corpus.as_dict()}
        content.pop("history")
        return content


def versions() -> dict[str, str]:
    """Returns the versions of what computed the weights."""
    return {
        "lipo": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "rdkit": rdkit.__version__,
        "numpy": np.__version__,
    }


def write_history(history: list[dict[str, float]], file: Path) -> None:
    """Writes the curve as CSV; a value that a row lacks is empty."""
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, COLUMNS)
        writer.writeheader()
        writer.writerows(history)


def check_whole(folder: Path, report: dict[str, Any]) -> None:
    """Checks that the checkpoint of a finished run is where the run left it.

    Raises:
        ModelError: a file is gone, or the weights are others.
    """
    lost = [name for name in CHECKPOINT_FILES if not (folder / name).is_file()]
    if lost or sha256_of(folder / "model.safetensors") != report["weights_sha256"]:
        what = f"{lost[0]} is gone" if lost else "model.safetensors has changed"
        raise ModelError(
            f"the run is finished, but {what}",
            where=folder,
            hint="delete the folder, or name another --out, and run the command again",
        )


def read_back(folder: Path, report: dict[str, Any]) -> PretrainResult:
    """Returns the result that a folder with this report holds."""
    with (folder / "history.csv").open(newline="", encoding="utf-8") as stream:
        history = [
            {name: float(value) for name, value in row.items() if value}
            for row in csv.DictReader(stream)
        ]
    own = {k: report[k] for k in PretrainResult.__dataclass_fields__ if k in report}
    own |= {"folder": folder, "history": history}
    return PretrainResult(**own | {"corpus": CorpusReport.from_dict(report["corpus"])})
