"""What pretraining minimises: masked tokens, descriptors from the pooled output, or both.

One pass of the encoder gives both. Descriptors of a molecule whose atoms are hidden can only be
guessed at, so with both objectives a share of the molecules is shown whole (`clean`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lipo_cli.model.modeling import MolformerForMaskedLM
from lipo_cli.model.precision import autocast
from lipo_cli.training.descriptor_targets import DescriptorTargets
from lipo_cli.training.masked_lm import encode, on_device, token_loss
from lipo_cli.training.masking import MaskedBatch

_RIDGE = 1e-3
"""Of the closed-form start of the head, as a share of the features' mean square."""


@dataclass(frozen=True)
class HeldOut:
    """Held-out molecules, canonical, with fixed masks and once more whole.

    Attributes:
        masked: For the tokens; empty where none are asked.
        clean: The same molecules with nothing hidden, for the descriptors; or empty.
    """

    masked: Sequence[MaskedBatch]
    clean: Sequence[MaskedBatch]


@dataclass(frozen=True)
class Sums:
    """Losses summed over a batch, so that batches of a step weigh by what they ask.

    Attributes:
        tokens: Cross-entropy of the asked tokens (nats).
        n_right: Tokens predicted right.
        n_tokens: Tokens asked.
        descriptors: Smooth-L1 loss over the batch's finite targets.
        n_descriptors: Finite targets.
    """

    tokens: Tensor
    n_right: Tensor
    n_tokens: int
    descriptors: Tensor
    n_descriptors: int

    def detached(self) -> Sums:
        """Returns the same without the graph that made them."""
        return replace(
            self,
            tokens=self.tokens.detach(),
            n_right=self.n_right.detach(),
            descriptors=self.descriptors.detach(),
        )


class Objective:
    """Losses of a model on masked batches.

    Attributes:
        tokens: Whether masked tokens are asked.
        targets: Standardised descriptors, or None where they are not asked.
        head: The linear map from the pooled output to the descriptors; not part of the model.
        weight: Of the mean descriptor loss beside the mean token loss.
    """

    def __init__(
        self,
        model: MolformerForMaskedLM,
        *,
        tokens: bool,
        targets: DescriptorTargets | None,
        weight: float,
        device: torch.device,
        precision: str,
    ) -> None:
        self.tokens = tokens
        self.targets = targets
        self.weight = weight
        self._device = device
        self._precision = precision
        self.head: nn.Linear | None = None
        if targets is not None:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                self.head = nn.Linear(model.config.hidden_size, len(targets.mean)).to(device)
        if not tokens:
            # Weight decay would wear away a head that no loss holds.
            model.lm_head.requires_grad_(False)

    def sums(self, model: MolformerForMaskedLM, batch: MaskedBatch) -> Sums:
        """Returns the summed losses of one batch after one pass of the encoder."""
        zero = torch.zeros((), device=self._device)
        n_tokens = batch.n_asked if self.tokens else 0
        tokens, n_right, descriptors, n_descriptors = zero, zero, zero, 0
        with autocast(self._device, self._precision):
            encoded = encode(model, batch, self._device)
        if self.tokens:
            tokens, n_right = token_loss(
                model, encoded.last_hidden_state, batch, self._device, self._precision
            )
        if self.targets is not None and self.head is not None:
            aimed = self.targets.of(batch.rows)
            finite = np.isfinite(aimed)
            n_descriptors = int(finite.sum())
            predicted = self.head(encoded.pooler_output.float())
            aim = on_device(np.where(finite, aimed, 0), self._device)
            known = on_device(finite, self._device)
            errors = nn.functional.smooth_l1_loss(predicted, aim, reduction="none")
            descriptors = (errors * known).sum()
        return Sums(tokens, n_right, n_tokens, descriptors, n_descriptors)

    def n_descriptors(self, batch: MaskedBatch) -> int:
        """Returns how many descriptors a batch asks for."""
        return 0 if self.targets is None else int(np.isfinite(self.targets.of(batch.rows)).sum())

    def loss(self, sums: Sums, n_tokens: int, n_descriptors: int) -> Tensor:
        """Returns a batch's part in the loss of a step that asks so many tokens and targets."""
        return sums.tokens / max(1, n_tokens) + self.weight * sums.descriptors / max(
            1, n_descriptors
        )

    @torch.inference_mode()
    def evaluate(self, model: MolformerForMaskedLM, held_out: HeldOut) -> dict[str, float]:
        """Returns the held-out columns of a row of the history."""
        was_training = model.training
        model.eval()
        row: dict[str, float] = {}
        if self.tokens:
            found = [self.sums(model, batch) for batch in held_out.masked]
            n = max(1, sum(each.n_tokens for each in found))
            row["val_loss"] = sum(float(each.tokens) for each in found) / n
            row["val_accuracy"] = sum(int(each.n_right) for each in found) / n
        if self.head is not None:
            loss, r2 = self.descriptor_scores(model, held_out.clean)
            row["val_descriptor_loss"] = loss
            if np.isfinite(r2).any():  # none varies among a handful of held-out molecules
                row["val_descriptor_r2"] = float(np.nanmean(r2))
        model.train(was_training)
        return row

    @torch.inference_mode()
    def descriptor_scores(
        self, model: MolformerForMaskedLM, clean: Sequence[MaskedBatch]
    ) -> tuple[float, NDArray[np.float64]]:
        """Returns the mean smooth-L1 loss, and R2 [d] of each descriptor, on whole molecules.

        R2 is that of the clipped targets, and NaN where a descriptor does not vary.
        """
        assert self.head is not None
        features, aimed = self._pooled(model, clean)
        errors = np.abs(self.head(features).double().cpu().numpy() - aimed)
        loss = float(np.nanmean(np.where(errors < 1, errors**2 / 2, errors - 0.5)))
        aimed = aimed.astype(np.float64)
        spread = np.nansum((aimed - np.nanmean(aimed, axis=0)) ** 2, axis=0)
        r2 = np.full(aimed.shape[1], np.nan)
        # Asked of the values: a group that no held-out molecule has leaves a spread by rounding.
        varies = np.fmin.reduce(aimed) < np.fmax.reduce(aimed)
        r2[varies] = 1 - np.nansum(errors**2, axis=0)[varies] / spread[varies]
        return loss, r2

    @torch.no_grad()
    def start_head(self, model: MolformerForMaskedLM, clean: Sequence[MaskedBatch]) -> None:
        """Sets the head to the ridge solution on some training molecules.

        A random head would send its noise through a pretrained encoder for its first steps.
        """
        if self.head is None:
            return
        was_training = model.training
        model.eval()
        features, aimed = self._pooled(model, clean)
        model.train(was_training)
        x = features.double().cpu().numpy()
        aimed = np.nan_to_num(aimed)
        center, base = x.mean(axis=0), aimed.mean(axis=0)
        x = x - center
        gram = x.T @ x
        gram[np.diag_indices_from(gram)] += _RIDGE * np.trace(gram) / len(gram) + 1e-12
        weight = np.linalg.solve(gram, x.T @ (aimed - base)).T
        self.head.weight.copy_(torch.from_numpy(weight))
        self.head.bias.copy_(torch.from_numpy(base - weight @ center))

    def _pooled(
        self, model: MolformerForMaskedLM, batches: Sequence[MaskedBatch]
    ) -> tuple[Tensor, NDArray[np.float32]]:
        assert self.targets is not None
        with autocast(self._device, self._precision):
            pooled = [encode(model, batch, self._device).pooler_output for batch in batches]
        rows = np.concatenate([batch.rows for batch in batches])
        return torch.cat(pooled).float(), self.targets.of(rows)
