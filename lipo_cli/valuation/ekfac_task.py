"""What kronfluence is asked to differentiate; importable where `lipo[ekfac]` is installed.

kronfluence reads a loss that is summed over a batch, so that the gradient of a molecule carries no
1/batch. Its factors are second moments of the gradients of a pseudo-loss, commonly the loss against
labels drawn from the model. For squared error with labels y ~ N(f, v) that is, by molecule,

    E_y[grad (f - y)^2 grad (f - y)^2^T] = 4 E[(f - y)^2] grad f grad f^T = 4 v grad f grad f^T,

hence the Gauss-Newton matrix 2 grad f grad f^T of the loss for v = 1/2 (the variance at which the
negative log-likelihood is the loss itself). As the output is one number, nothing need be drawn: the
pseudo-loss sqrt(2) f has just that outer product. Its mean over molecules is the Gauss-Newton
matrix of the mean squared error in raw label units, and the factors hold no noise of sampling.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from kronfluence import Task
from torch import Tensor, nn
from torch.utils.data import Dataset

from lipo_cli.model.batches import collate
from lipo_cli.progress import Progress

Row = tuple[Any, float]
"""Token ids or an embedding, and a label."""


class Rows(Dataset[Row]):
    """Token ids or embeddings with labels; no list, as kronfluence prints what it is given."""

    def __init__(self, inputs: Sequence[Any], labels: Sequence[float]) -> None:
        self._inputs, self._labels = inputs, labels

    def __len__(self) -> int:
        return len(self._inputs)

    def __getitem__(self, index: int) -> Row:
        return self._inputs[index], self._labels[index]


class SquaredError(Task):  # type: ignore[misc]
    """The loss (f - y)^2 in raw label units, summed over a batch; the target's is the same.

    Args:
        maps: The linear maps that count.
        progress: Told of molecules.
    """

    def __init__(self, maps: Sequence[str], progress: Progress) -> None:
        self._maps = list(maps)
        self._progress = progress

    def compute_train_loss(
        self, batch: dict[str, Tensor], model: nn.Module, sample: bool = False
    ) -> Tensor:
        """Returns the loss, or (`sample`) what has the Gauss-Newton matrix for second moments."""
        predicted = predict(model, batch)
        self._progress.advance(len(predicted))
        if sample:
            return math.sqrt(2) * predicted.sum()
        return (predicted - batch["labels"]).square().sum()

    def compute_measurement(self, batch: dict[str, Tensor], model: nn.Module) -> Tensor:
        """Returns the target's loss."""
        return self.compute_train_loss(batch, model)

    def get_influence_tracked_modules(self) -> list[str]:
        """Returns the linear maps that count."""
        return self._maps

    def get_attention_mask(self, batch: dict[str, Tensor]) -> Tensor | None:
        """Returns the mask [batch, length]: what stands at padding is no activation."""
        return batch.get("attention_mask")


def predict(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """Returns predictions [batch] in raw label units of a network, or of a head on embeddings."""
    if "embeddings" in batch:
        values: Tensor = model(batch["embeddings"])
    else:
        values = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    return values[:, 0]


def collator(
    dtype: torch.dtype, pad_id: int, *, on_embeddings: bool
) -> Callable[[Sequence[Row]], dict[str, Tensor]]:
    """Returns what makes a batch; a plain function: kronfluence copies it with all it holds."""

    def put_together(rows: Sequence[Row]) -> dict[str, Tensor]:
        inputs, labels = zip(*rows, strict=True)
        found = {"labels": torch.tensor(labels, dtype=dtype)}
        if on_embeddings:
            return found | {"embeddings": torch.from_numpy(np.stack(inputs)).to(dtype)}
        batch = collate(inputs, pad_id)
        return found | {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}

    return put_together
