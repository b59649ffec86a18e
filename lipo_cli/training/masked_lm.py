"""The masked-token loss, with logits at the places to predict only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutputWithPooling

from lipo_cli.model.modeling import MolformerForMaskedLM
from lipo_cli.model.precision import autocast
from lipo_cli.training.corpus import Corpus
from lipo_cli.training.masking import IGNORED, MaskedBatch, MaskingSpec


def on_device(array: NDArray[Any], device: torch.device) -> Tensor:
    """Returns an array as a tensor of the device, without waiting for what a GPU is at."""
    tensor = torch.from_numpy(array)
    if device.type == "cuda":
        # From memory that may be paged out, the copy waits for the step before it to end.
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def encode(
    model: MolformerForMaskedLM, batch: MaskedBatch, device: torch.device
) -> BaseModelOutputWithPooling:
    """Returns the encoder's output for a batch, padding masked."""
    ids = on_device(batch.input_ids, device)
    places = torch.arange(ids.shape[1], device=device)
    mask = (places < on_device(batch.lengths, device)[:, None]).to(torch.int64)
    encoded: BaseModelOutputWithPooling = model.molformer(ids, mask)
    return encoded


def token_loss(
    model: MolformerForMaskedLM,
    hidden: Tensor,
    batch: MaskedBatch,
    device: torch.device,
    precision: str,
) -> tuple[Tensor, Tensor]:
    """Returns the summed cross-entropy (nats) of a batch's asked tokens, and how many are right.

    The LM head sees a fixed number of places per batch shape, and never the whole batch.
    """
    slots, labels = on_device(batch.slots, device), on_device(batch.labels, device)
    with autocast(device, precision):
        logits = model.lm_head(hidden.flatten(0, 1).index_select(0, slots))
    loss = nn.functional.cross_entropy(
        logits.float(), labels, ignore_index=IGNORED, reduction="sum"
    )
    return loss, (logits.argmax(dim=-1) == labels).sum()


def unigram_loss(corpus: Corpus, batches: Sequence[MaskedBatch], spec: MaskingSpec) -> float:
    """Returns the loss of predicting every asked token by its frequency in the corpus (nats).

    What a model gains below this it has from the context.
    """
    counts = np.ones(max(spec.vocabulary.values()) + 1)
    seen = np.bincount(corpus.flat, minlength=len(corpus.tokens))
    for token, n in zip(corpus.tokens, seen.tolist(), strict=True):
        counts[spec.vocabulary.get(token, spec.unk)] += n
    counts[spec.special] = 0
    logs: NDArray[np.float64] = np.log(np.where(counts > 0, counts, 1) / counts.sum())
    labels = np.concatenate([batch.labels for batch in batches])
    return float(-logs[labels[labels != IGNORED]].mean())
