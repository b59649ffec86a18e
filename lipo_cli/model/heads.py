"""What sits on an encoder: the mean over tokens, token logits, a regression in raw label units."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers.activations import ACT2FN
from transformers.modeling_outputs import SequenceClassifierOutput

from lipo_cli.model.config import MolformerConfig
from lipo_cli.model.dropout import Dropout


def wide(dtype: torch.dtype) -> torch.dtype:
    """Returns the type to sum in: half precision is lifted to float32, float64 stays."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def mean_pool(hidden: Tensor, mask: Tensor) -> Tensor:
    """Averages hidden [batch, length, hidden] over unmasked tokens, bos and eos included."""
    exact = wide(hidden.dtype)
    weight = mask.unsqueeze(-1).to(exact)
    return (hidden.to(exact) * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1e-9)


class LMTransform(nn.Module):
    """Dense, GELU, LayerNorm before the decoder."""

    def __init__(self, config: MolformerConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.activation = ACT2FN[config.hidden_act]
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, hidden: Tensor) -> Tensor:
        """Maps [..., hidden] to the same shape."""
        return self.LayerNorm(self.activation(self.dense(hidden)))


class LMHead(nn.Module):
    """Token logits; the decoder has no bias and is not tied to the embeddings."""

    def __init__(self, config: MolformerConfig) -> None:
        super().__init__()
        self.transform = LMTransform(config)
        self.decoder = nn.Linear(config.hidden_size, config.vocab_size, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        """Maps [..., hidden] to logits [..., vocabulary]."""
        return self.decoder(self.transform(hidden))


class RegressionHead(nn.Module):
    """Two dense layers with skip connections, a linear output, and the scale of the labels.

    The output is in the raw units of the label: `label_mean + label_scale * z`, where z is what is
    trained. Both are buffers, saved with the weights.
    """

    label_mean: Tensor
    label_scale: Tensor

    def __init__(self, config: MolformerConfig) -> None:
        super().__init__()
        rate = config.classifier_dropout_prob
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.dense2 = nn.Linear(config.hidden_size, config.hidden_size)
        self.dropout = Dropout(config.hidden_dropout_prob if rate is None else rate)
        self.activation = ACT2FN[config.hidden_act]
        self.out_proj = nn.Linear(config.hidden_size, config.num_labels)
        self.skip = config.classifier_skip_connection
        self.register_buffer("label_mean", torch.zeros(config.num_labels))
        self.register_buffer("label_scale", torch.ones(config.num_labels))

    def forward(self, pooled: Tensor) -> Tensor:
        """Maps pooled [batch, hidden] to predictions [batch, n_labels] in raw units."""
        # Never in half precision: bf16 rounded predictions to a grid, so that ranks were tied.
        with torch.autocast(pooled.device.type, enabled=False):
            pooled = pooled.to(self.out_proj.weight.dtype)
            hidden = self.activation(self.dropout(self.dense(pooled)))
            hidden = hidden + pooled if self.skip else hidden
            second = self.activation(self.dropout(self.dense2(hidden)))
            hidden = second + hidden if self.skip else second
            standardised = self.out_proj(hidden)
        standardised = standardised.to(wide(standardised.dtype))
        return self.label_mean + self.label_scale * standardised


def regress(head: nn.Module, pooled: Tensor, labels: Tensor | None) -> SequenceClassifierOutput:
    """Predicts [batch, n_labels] in raw units; the loss is the mean of squared z errors.

    Args:
        head: A `RegressionHead`, in PEFT's wrapper or not.
        pooled: [batch, hidden].
        labels: [batch] or [batch, n_labels] in raw units, or None where no loss is asked.
    """
    logits = head(pooled)
    loss = None
    if labels is not None:
        error = (logits - labels.reshape(logits.shape)) / head.label_scale
        loss = error.square().mean()
    return SequenceClassifierOutput(loss=loss, logits=logits)
