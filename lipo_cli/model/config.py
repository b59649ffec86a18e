"""The configuration of MoLFormer, in the names of the published checkpoints."""

from __future__ import annotations

from huggingface_hub.dataclasses import strict
from transformers.configuration_utils import PreTrainedConfig


@strict
class MolformerConfig(PreTrainedConfig):
    """MoLFormer (Ross et al. 2022, Large-scale chemical language representations).

    The defaults are those of MoLFormer-XL. `deterministic_eval` is read from published files and
    kept, but the random features are always fixed here, in training too: see `FeatureMap`.
    """

    model_type = "molformer"

    vocab_size: int = 2362
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 768
    hidden_act: str = "gelu"
    hidden_dropout_prob: float | int = 0.1
    embedding_dropout_prob: float | int = 0.2
    max_position_embeddings: int = 202
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    linear_attention_eps: float = 1e-6
    num_random_features: int = 32
    feature_map_kernel: str = "relu"
    deterministic_eval: bool = True
    classifier_dropout_prob: float | int | None = None
    classifier_skip_connection: bool = True
    pad_token_id: int | None = 2
    bos_token_id: int | None = 0
    eos_token_id: int | list[int] | None = 1
    tie_word_embeddings: bool = False
