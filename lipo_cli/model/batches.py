"""Batches of molecules of like length, padded to their own length instead of the maximum."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

PAD_MULTIPLE = 8
"""Lengths are rounded up to this: the CPU's bf16 kernels are compiled and kept per shape."""

_PREDICTED_AT_ONCE = {"cpu": 32, "cuda": 256}


def predicted_at_once(device: torch.device) -> int:
    """Returns how many SMILES go through a device in one pass without gradients.

    On a CPU as many as leave what the layers pass on in its cache: 128 took twice as long.
    """
    return _PREDICTED_AT_ONCE.get(device.type, 128)


@dataclass(frozen=True)
class Batch:
    """Padded token ids and mask, both [batch, length]."""

    input_ids: torch.Tensor
    attention_mask: torch.Tensor


def collate(
    rows: Sequence[Sequence[int]], pad_id: int, device: torch.device | str = "cpu"
) -> Batch:
    """Pads token ids to the longest of the batch, rounded up to `PAD_MULTIPLE`."""
    longest = max(len(row) for row in rows)
    length = -(-longest // PAD_MULTIPLE) * PAD_MULTIPLE
    ids = np.full((len(rows), length), pad_id, dtype=np.int64)
    mask = np.zeros((len(rows), length), dtype=np.int64)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = row
        mask[i, : len(row)] = 1
    return Batch(torch.from_numpy(ids).to(device), torch.from_numpy(mask).to(device))


def batches_in_order(lengths: Sequence[int], batch_size: int) -> list[NDArray[np.int64]]:
    """Returns batches of positions, sorted by length: for prediction."""
    order = np.argsort(np.asarray(lengths), kind="stable").astype(np.int64)
    return [order[i : i + batch_size] for i in range(0, len(order), batch_size)]


def shuffled_batches(
    lengths: Sequence[int], batch_size: int, rng: np.random.Generator, *, window: int = 16
) -> list[NDArray[np.int64]]:
    """Returns batches of positions for one epoch: shuffled, of like length, in random order.

    Rows are shuffled, sorted by length within windows of `window` batches, cut, and the batches
    shuffled: every batch is nearly without padding and still differs between epochs.
    """
    sizes = np.asarray(lengths)
    order = rng.permutation(len(sizes)).astype(np.int64)
    batches: list[NDArray[np.int64]] = []
    for start in range(0, len(order), batch_size * window):
        chunk = order[start : start + batch_size * window]
        chunk = chunk[np.argsort(sizes[chunk], kind="stable")]
        batches.extend(chunk[i : i + batch_size] for i in range(0, len(chunk), batch_size))
    return [batches[i] for i in rng.permutation(len(batches))]
