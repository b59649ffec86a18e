"""MoLFormer in plain torch: rotary linear attention over SMILES tokens.

Ross et al. 2022 (Large-scale chemical language representations capture molecular structure and
properties), with the parameter names of the published checkpoints, so that their
`model.safetensors` load without remote code.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.modeling_outputs import (
    BaseModelOutputWithPooling,
    MaskedLMOutput,
    SequenceClassifierOutput,
)
from transformers.modeling_utils import PreTrainedModel

from lipo_cli.model.attention import (
    FeatureMap,
    LinearAttention,
    orthogonal_features,
    rotary_tables,
)
from lipo_cli.model.config import MolformerConfig
from lipo_cli.model.dropout import Dropout
from lipo_cli.model.heads import LMHead, RegressionHead, mean_pool, regress, wide


class ResidualOutput(nn.Module):
    """Dense, dropout, residual, LayerNorm: the end of both halves of a post-LN layer."""

    def __init__(self, config: MolformerConfig, width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = Dropout(config.hidden_dropout_prob)

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        """Projects x [..., width] and adds residual [..., hidden]."""
        return self.LayerNorm(self.dropout(self.dense(x)) + residual)


class Attention(nn.Module):
    """Self-attention with its residual output."""

    def __init__(self, config: MolformerConfig) -> None:
        super().__init__()
        self.self = LinearAttention(config)
        self.output = ResidualOutput(config, config.hidden_size)

    def forward(self, hidden: Tensor, mask: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
        """Maps hidden [batch, length, hidden] to the same shape."""
        return self.output(self.self(hidden, mask, rotary), hidden)


class Intermediate(nn.Module):
    """The first half of the feed-forward block."""

    def __init__(self, config: MolformerConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.intermediate_size)
        self.activation = ACT2FN[config.hidden_act]

    def forward(self, hidden: Tensor) -> Tensor:
        """Maps [..., hidden] to [..., intermediate]."""
        return self.activation(self.dense(hidden))


class Layer(nn.Module):
    """One post-LN transformer layer."""

    def __init__(self, config: MolformerConfig) -> None:
        super().__init__()
        self.attention = Attention(config)
        self.intermediate = Intermediate(config)
        self.output = ResidualOutput(config, config.intermediate_size)

    def forward(self, hidden: Tensor, mask: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
        """Maps hidden [batch, length, hidden] to the same shape."""
        hidden = self.attention(hidden, mask, rotary)
        return self.output(self.intermediate(hidden), hidden)


class Embeddings(nn.Module):
    """Token embeddings; positions enter through the rotary attention alone."""

    def __init__(self, config: MolformerConfig) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(
            config.vocab_size, config.hidden_size, padding_idx=config.pad_token_id
        )
        self.dropout = Dropout(config.embedding_dropout_prob)

    def forward(self, input_ids: Tensor) -> Tensor:
        """Maps ids [batch, length] to [batch, length, hidden]."""
        return self.dropout(self.word_embeddings(input_ids))


class Encoder(nn.Module):
    """The stack of layers."""

    def __init__(self, config: MolformerConfig) -> None:
        super().__init__()
        self.layer = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))

    def forward(self, hidden: Tensor, mask: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
        """Maps hidden [batch, length, hidden] to the same shape."""
        for layer in self.layer:
            hidden = layer(hidden, mask, rotary)
        return hidden


class MolformerPreTrainedModel(PreTrainedModel):
    """Initialisation and loading shared by the three models."""

    config_class = MolformerConfig
    base_model_prefix = "molformer"
    # A published checkpoint knows no label scale; 0 and 1 are then right.
    _keys_to_ignore_on_load_missing: ClassVar[list[str]] = [
        r"classifier\.label_mean",
        r"classifier\.label_scale",
    ]

    # Which modules an adapter may sit on is the architecture's knowledge, not the trainer's:
    # regular expressions over full module names, as PEFT takes them.
    adapter_targets: ClassVar[dict[str, str]] = {
        "lora": r".*\.(query|key|value|intermediate\.dense|output\.dense)",
        "lora_attention": r".*\.(query|key|value)",
        "ia3": r".*\.(key|value|layer\.\d+\.output\.dense)",
        "ia3_feedforward": r".*\.layer\.\d+\.output\.dense",
    }
    head_name: ClassVar[str] = "classifier"
    layer_pattern: ClassVar[re.Pattern[str]] = re.compile(r"\.layer\.(\d+)\.")

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, FeatureMap):
            width, features = module.weight.shape
            init.copy_(module.weight, orthogonal_features(width, features))
        elif isinstance(module, RegressionHead):
            init.zeros_(module.label_mean)
            init.ones_(module.label_scale)


class MolformerModel(MolformerPreTrainedModel):
    """The encoder: last hidden state and its mean over tokens."""

    def __init__(self, config: MolformerConfig) -> None:
        super().__init__(config)
        self.embeddings = Embeddings(config)
        self.encoder = Encoder(config)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """Returns the token embeddings."""
        return self.embeddings.word_embeddings

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replaces the token embeddings."""
        assert isinstance(value, nn.Embedding)
        self.embeddings.word_embeddings = value

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, **_: Any
    ) -> BaseModelOutputWithPooling:
        """Encodes input_ids [batch, length]; attention_mask is 1 at tokens, 0 at padding."""
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        hidden = self.embeddings(input_ids)
        head_dim = self.config.hidden_size // self.config.num_attention_heads
        cos, sin = rotary_tables(input_ids.shape[1], head_dim, hidden.device)
        exact = wide(hidden.dtype)
        hidden = self.encoder(hidden, attention_mask, (cos.to(exact), sin.to(exact)))
        hidden = self.LayerNorm(hidden)
        return BaseModelOutputWithPooling(
            last_hidden_state=hidden, pooler_output=mean_pool(hidden, attention_mask)
        )


class MolformerForMaskedLM(MolformerPreTrainedModel):
    """The encoder with token logits."""

    def __init__(self, config: MolformerConfig) -> None:
        super().__init__(config)
        self.molformer = MolformerModel(config)
        self.lm_head = LMHead(config)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        **_: Any,
    ) -> MaskedLMOutput:
        """Predicts masked tokens; labels [batch, length] are -100 where nothing is asked."""
        hidden = self.molformer(input_ids, attention_mask).last_hidden_state
        logits = self.lm_head(hidden)
        loss = None
        if labels is not None:
            loss = nn.functional.cross_entropy(logits.flatten(0, 1).float(), labels.flatten())
        return MaskedLMOutput(loss=loss, logits=logits)


class MolformerForSequenceClassification(MolformerPreTrainedModel):
    """The encoder with the regression head; named as transformers' Auto classes expect."""

    def __init__(self, config: MolformerConfig) -> None:
        super().__init__(config)
        self.molformer = MolformerModel(config)
        self.classifier = RegressionHead(config)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        **_: Any,
    ) -> SequenceClassifierOutput:
        """Predicts [batch, n_labels] in raw units; the loss is the mean of squared z errors."""
        return regress(self.classifier, self.encode(input_ids, attention_mask), labels)

    def encode(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Returns the mean over tokens [batch, hidden] that the head reads."""
        return self.molformer(input_ids, attention_mask).pooler_output

    @property
    def n_layers(self) -> int:
        """Layers, for layer-wise learning rates."""
        return int(self.config.num_hidden_layers)

    @property
    def max_tokens(self) -> int:
        """The longest sequence that the encoder was made for."""
        return int(self.config.max_position_embeddings)
