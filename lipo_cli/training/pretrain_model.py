"""What is pretrained: random weights of a preset size, or a checkpoint with its tokenizer."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save

from lipo_cli.chem.molecules import randomised_smiles
from lipo_cli.errors import ModelError
from lipo_cli.model.base import Base, load_model, read_config
from lipo_cli.model.batches import PAD_MULTIPLE
from lipo_cli.model.config import MolformerConfig
from lipo_cli.model.folder import write_json
from lipo_cli.model.modeling import MolformerForMaskedLM
from lipo_cli.model.tokenizer import MolformerTokenizer, build_tokenizer, load_tokenizer
from lipo_cli.settings import PretrainSettings
from lipo_cli.training.corpus import Corpus
from lipo_cli.training.masking import SPLIT, MaskingSpec, stream

_SMALLER: dict[str, float] = {
    "hidden_dropout_prob": 0.05,
    "embedding_dropout_prob": 0.0,
    "layer_norm_eps": 1e-5,
}
SIZES: dict[str, dict[str, Any]] = {
    "tiny": {
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 128,
        **_SMALLER,
    },
    "small": {
        "hidden_size": 256,
        "num_hidden_layers": 6,
        "num_attention_heads": 8,
        "intermediate_size": 512,
        **_SMALLER,
    },
    "base": {
        "hidden_size": 384,
        "num_hidden_layers": 8,
        "num_attention_heads": 12,
        "intermediate_size": 1024,
        **_SMALLER,
    },
    "xl": {},  # MolformerConfig's defaults are the published shape
}
"""About 0.1, 3.4, 11.5 and 46.8 million parameters with the LM head."""
LEARNING_RATES = {"tiny": 2e-3, "small": 7e-4, "base": 5e-4, "xl": 1.6e-4}
ADAPT_EPOCHS, ADAPT_BATCH = 10, 32
EPOCHS, BATCH = 1, 128
CONTINUED_LEARNING_RATE = 2e-4
ADAPTED_LEARNING_RATE = 5e-5
"""On a few thousand molecules 2e-4 lost in its first epoch what the checkpoint knew."""
_REWRITTEN = 10_000
"""Molecules also written anew for the vocabulary: random SMILES use more ring numbers."""


@dataclass(frozen=True)
class Start:
    """A model to pretrain.

    Attributes:
        model: The network.
        tokenizer: Its tokenizer.
        new_head: Whether the LM head starts from random weights on a pretrained encoder.
    """

    model: MolformerForMaskedLM
    tokenizer: MolformerTokenizer
    new_head: bool


def objective_of(settings: PretrainSettings) -> str:
    """Returns what is learned: both objectives, or masked tokens alone with `adapt`."""
    return settings.objective or ("mlm" if settings.adapt else "both")


def batch_size_of(settings: PretrainSettings) -> int:
    """Returns the molecules per batch, of the settings or by the task."""
    return settings.batch_size or (ADAPT_BATCH if settings.adapt else BATCH)


def epochs_of(settings: PretrainSettings) -> int:
    """Returns the passes over the molecules, of the settings or by the task."""
    return settings.epochs or (ADAPT_EPOCHS if settings.adapt else EPOCHS)


def learning_rate_of(settings: PretrainSettings) -> float:
    """Returns the learning rate of the settings, or the default of what is trained."""
    if settings.learning_rate is not None:
        return settings.learning_rate
    if settings.adapt:
        return ADAPTED_LEARNING_RATE
    return CONTINUED_LEARNING_RATE if settings.model else LEARNING_RATES[settings.size]


def longest(settings: PretrainSettings, base: Base | None) -> int:
    """Returns the longest sequence in tokens, of the settings and of the model."""
    config = MolformerConfig() if base is None else read_config(base.folder)
    return min(settings.max_length, int(config.max_position_embeddings))


def tokenizer_of(corpus: Corpus, base: Base | None, seed: int) -> MolformerTokenizer:
    """Returns the checkpoint's tokenizer, or one of every token that the corpus can show."""
    if base is not None:
        return load_tokenizer(base.folder)
    rng = stream(seed, SPLIT, 1)
    rewritten = (randomised_smiles(text, rng) for text in islice(corpus, _REWRITTEN))
    return build_tokenizer(chain(corpus, rewritten))


def starting_model(
    settings: PretrainSettings, tokenizer: MolformerTokenizer, base: Base | None
) -> Start:
    """Builds the network; what no checkpoint gives is drawn from the seed.

    Raises:
        ModelError: the checkpoint's tokenizer has more tokens than its embeddings.
    """
    changes: dict[str, object] = {}
    if settings.dropout is not None:
        changes["hidden_dropout_prob"] = settings.dropout
    if base is None:
        config = MolformerConfig(
            **{**SIZES[settings.size], **changes},
            vocab_size=len(tokenizer),
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            return Start(MolformerForMaskedLM(config), tokenizer, new_head=False)
    model = load_model(MolformerForMaskedLM, base, seed=settings.seed, **changes)
    highest = max(tokenizer.get_vocab().values())
    if highest >= model.config.vocab_size:
        raise ModelError(
            f"the tokenizer has an id {highest}, the embeddings {model.config.vocab_size} rows",
            where=base.folder,
        )
    with safe_open(base.weights, framework="pt") as weights:
        names = set(weights.keys())
    own = {name for name in model.state_dict() if name.startswith("lm_head.")}
    return Start(model, tokenizer, new_head=not own <= names)


def masking_spec(
    settings: PretrainSettings, tokenizer: MolformerTokenizer, max_length: int, batch_size: int
) -> MaskingSpec:
    """Returns how this tokenizer's molecules become masked batches."""
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    objective = objective_of(settings)
    clean = {"mlm": 0.0, "both": settings.clean, "descriptors": 1.0}[objective]
    return MaskingSpec(
        vocabulary=vocabulary,
        bos=tokenizer.bos_token_id,
        eos=tokenizer.eos_token_id,
        pad=tokenizer.pad_token_id,
        mask=tokenizer.mask_token_id,
        unk=vocabulary.get("<unk>", -1),
        share=settings.mask,
        clean=clean,
        randomise=settings.randomise,
        max_length=max_length,
        batch_size=batch_size,
        pad_multiple=PAD_MULTIPLE,
        seed=settings.seed,
    )


def export(
    model: MolformerForMaskedLM, tokenizer: MolformerTokenizer, folder: Path, *, half: bool
) -> None:
    """Writes config, tokenizer and weights in the published names.

    In half precision the fixed random features stay float32: they are few, and a rounded W is
    another attention kernel than the one that was trained.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = model.config.to_dict()
    config.pop("_name_or_path", None)
    config |= {"architectures": ["MolformerForMaskedLM"], "dtype": "float32"}
    write_json(folder / "config.json", config)
    tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
    weights = {
        name: (
            tensor.half() if half and not name.endswith("feature_map.weight") else tensor
        ).contiguous()
        for name, tensor in ((n, t.detach().cpu()) for n, t in model.state_dict().items())
    }
    partial = folder / "model.safetensors.partial"
    # save_file would leave a file that only its owner may read.
    partial.write_bytes(save(weights, metadata={"format": "pt"}))
    partial.replace(folder / "model.safetensors")
