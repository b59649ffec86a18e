"""The network of a regressor: MoLFormer where the config says so, another encoder otherwise."""

from __future__ import annotations

from pathlib import Path

from transformers import PreTrainedTokenizerFast

from lipo_cli.model.base import Base, build_model, config_content, load_model, read_config
from lipo_cli.model.config import MolformerConfig
from lipo_cli.model.foreign import EncoderForRegression, build_encoder, load_encoder
from lipo_cli.model.foreign_tokenizer import load_foreign_tokenizer
from lipo_cli.model.modeling import MolformerForSequenceClassification
from lipo_cli.model.tokenizer import load_tokenizer

Network = MolformerForSequenceClassification | EncoderForRegression
"""Both say what a regressor, its adapters and its optimiser ask: `encode`, `adapter_targets`,
`head_name`, `layer_pattern`, `n_layers`, `max_tokens`, `config`."""


def load_network(base: Base, dropout: float, *, seed: int = 0) -> Network:
    """Puts a regression head on a checkpoint's encoder; what it lacks is drawn from `seed`.

    Raises:
        ModelError: the checkpoint does not fit its config, or is no encoder.
    """
    if not _is_molformer(base.folder):
        return load_encoder(base, dropout, seed=seed)
    return load_model(
        MolformerForSequenceClassification,
        base,
        seed=seed,
        hidden_dropout_prob=dropout,
        num_labels=1,
    )


def build_network(folder: Path, dropout: float) -> Network:
    """Builds a network of random weights from the config of a saved regressor.

    Raises:
        ModelError: the config makes no sense.
    """
    if not _is_molformer(folder):
        return build_encoder(folder, dropout)
    return build_model(MolformerForSequenceClassification, read_config(folder), folder)


def tokenizer_of(network: Network, folder: Path) -> PreTrainedTokenizerFast:
    """Loads the tokenizer in a folder for this network.

    Raises:
        ModelError: there is none, or it is that of another model.
    """
    size = int(network.config.vocab_size)
    if isinstance(network, MolformerForSequenceClassification):
        return load_tokenizer(folder, size)
    return load_foreign_tokenizer(folder, size)


def _is_molformer(folder: Path) -> bool:
    return bool(config_content(folder)["model_type"] == MolformerConfig.model_type)
