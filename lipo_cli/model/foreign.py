"""Encoders that transformers itself knows (RoBERTa, BERT, ModernBERT, ...) as regressors.

No code but transformers' own is run. What adapters and learning rates ask of an architecture is
read off its modules: the layers are the members of its outermost module lists.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import torch
import transformers
from torch import Tensor, nn
from transformers import CONFIG_MAPPING, MODEL_MAPPING
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES
from transformers.utils import logging

from lipo_cli.errors import ModelError
from lipo_cli.model.base import Base, config_content, read_weights
from lipo_cli.model.config import MolformerConfig
from lipo_cli.model.heads import RegressionHead, mean_pool, regress

_BACKBONE, _HEAD = "backbone", "classifier."
_NOT_ARCHITECTURE = ("auto_map", "fusion_config", "transformers_weights", "dtype", "torch_dtype")
_DROPOUT = ("hidden_dropout_prob", "hidden_dropout", "dropout", "mlp_dropout")
"""What the rate within a layer is called (BERT's embeddings share it); attention keeps its own."""
_NO_SENSE = "config.json makes no sense"
_KEYS_AND_VALUES = re.compile(r"(k|v|key|value)(_.*)?|.*qkv.*|query_key_value|in_proj")
"""Where a map gives queries too, IA3 rescales them with the keys, as PEFT does."""
_QUERIES = re.compile(r"(q|query)(_.*)?")


class EncoderForRegression(nn.Module):
    """An encoder with the regression head on the mean over its tokens.

    Attributes:
        backbone: The encoder, without a pooler of its own.
        classifier: The head.
    """

    head_name: ClassVar[str] = "classifier"
    base_model_prefix: ClassVar[str] = _BACKBONE
    """Asked for by PEFT where transformers reads a checkpoint's older names."""

    def __init__(self, encoder: Any, dropout: float) -> None:
        super().__init__()
        if getattr(encoder, "pooler", None) is not None:
            encoder.pooler = nn.Identity()  # it would be trained and saved, and read by nobody
        encoder.config.dtype = torch.float32  # as built, so that a copy writes the same config
        self.backbone = encoder
        head = MolformerConfig(
            hidden_size=encoder.config.hidden_size, hidden_dropout_prob=dropout, num_labels=1
        )
        self.classifier = RegressionHead(head)
        for module in self.classifier.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=head.initializer_range)
                nn.init.zeros_(module.bias)
        lists = [n for n, m in encoder.named_modules() if isinstance(m, nn.ModuleList)]
        outermost = [n for n in lists if not any(n.startswith(f"{other}.") for other in lists)]
        self.n_layers = max((len(encoder.get_submodule(name)) for name in outermost), default=0)
        names = "|".join(map(re.escape, outermost))
        self.layer_pattern = re.compile(rf"\b{_BACKBONE}\.(?:{names})\.(\d+)\.")

    @property
    def config(self) -> Any:
        """The encoder's config."""
        return self.backbone.config

    @property
    def max_tokens(self) -> int:
        """The longest sequence that there are positions for."""
        limit = getattr(self.config, "max_position_embeddings", None) or sys.maxsize
        for name, table in self.backbone.named_modules():
            if name.endswith("position_embeddings") and hasattr(table, "padding_idx"):
                # RoBERTa and its kin count positions from the one after padding's.
                first = 0 if table.padding_idx is None else table.padding_idx + 1
                limit = min(limit, len(table.weight) - first)
        return int(limit)

    @property
    def adapter_targets(self) -> dict[str, str]:
        """Where an adapter sits, as `MolformerPreTrainedModel` says it; "" where it has no place.

        LoRA: every linear map of the layers, or queries, keys and values. IA3: keys, values, and
        the input of the last map outside attention, which ends the feed-forward block.
        """
        linear, last = [], {}
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear) and (layer := self.layer_pattern.match(name)):
                linear.append(name)
                if "att" not in name:
                    last[layer[0]] = name
        scaled = [n for n in linear if _KEYS_AND_VALUES.fullmatch(n.rpartition(".")[2])]
        asked = [n for n in linear if _QUERIES.fullmatch(n.rpartition(".")[2])]
        return {
            "lora": _any_of(linear),
            "lora_attention": _any_of([*asked, *scaled]),
            "ia3": _any_of([*scaled, *last.values()]) if scaled else "",
            "ia3_feedforward": _any_of(last.values()),
        }

    def encode(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Returns the mean over tokens [batch, hidden] that the head reads."""
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        return mean_pool(self.backbone(input_ids=input_ids, attention_mask=mask)[0], mask)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        **_: Any,
    ) -> SequenceClassifierOutput:
        """Predicts [batch, 1] in raw units; the loss is the mean of squared z errors."""
        return regress(self.classifier, self.encode(input_ids, attention_mask), labels)


def _any_of(names: Any) -> str:
    """Returns a pattern of these module names, whatever the layer's number."""
    return "|".join(sorted({re.sub(r"\\\.\d+(?=\\\.)", r"\\.\\d+", re.escape(n)) for n in names}))


def build_encoder(folder: Path, dropout: float) -> EncoderForRegression:
    """Builds a network of random weights from a folder's `config.json`.

    Raises:
        ModelError: the config is not that of an encoder, or makes no sense.
    """
    config = _read_config(folder, dropout)
    with _one_line(folder, _NO_SENSE):
        return EncoderForRegression(_class_of(config)(config), dropout)


def load_encoder(base: Base, dropout: float, *, seed: int = 0) -> EncoderForRegression:
    """Builds a network on a checkpoint's encoder; its head starts from `seed`.

    Poolers of the checkpoint are left out, and heads but that of a regressor saved by this package.

    Raises:
        ModelError: an encoder weight is missing or has another shape, or this encoder is none
            whose values depend on tokens alone.
    """
    config = _read_config(base.folder, dropout)
    state = {k.removeprefix(f"{_BACKBONE}."): v for k, v in read_weights(base.weights).items()}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        with _one_line(base.folder, _NO_SENSE), _quiet():
            encoder, found = _class_of(config).from_pretrained(
                None,
                config=config,
                state_dict=state,
                dtype=torch.float32,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
            torch.manual_seed(seed)  # what the encoder drew before it was filled is no concern
            network = EncoderForRegression(encoder, dropout)
    _refuse_misfits(found, base.weights)
    _check_padding(network, base.folder)
    head = {k.removeprefix(_HEAD): v for k, v in state.items() if k.startswith(_HEAD)}
    if head.keys() == network.classifier.state_dict().keys():  # not those of transformers
        network.classifier.load_state_dict(head)
    return network


def _refuse_misfits(found: dict[str, Any], weights: Path) -> None:
    if missing := sorted(k for k in found["missing_keys"] if not k.startswith("pooler.")):
        raise ModelError(
            f"{len(missing)} encoder weights are missing, the first is {missing[0]}",
            where=weights,
            hint="does config.json belong to these weights, and are they in transformers' names?",
        )
    if misfits := sorted(found["mismatched_keys"]):
        name, theirs, ours = misfits[0]
        raise ModelError(
            f"{name} has shape {tuple(theirs)}, config.json says {tuple(ours)}", where=weights
        )


def _read_config(folder: Path, dropout: float) -> Any:
    content, file = config_content(folder), folder / "config.json"
    kind = content["model_type"]
    if kind not in CONFIG_MAPPING:
        raise ModelError(
            f"model_type is {kind!r}, which transformers {transformers.__version__} does not know",
            where=file,
            hint="code from a hub is never run",
        )
    if content.get("quantization_config"):
        raise ModelError("quantised weights are not read", where=file)
    plain = {
        key: value
        for key, value in content.items()
        if key not in _NOT_ARCHITECTURE and not key.startswith("_")
    }
    with _one_line(folder, _NO_SENSE):
        config = CONFIG_MAPPING[kind].from_dict(plain)
        config._attn_implementation = None  # else a config could have a kernel fetched from a hub
    decoder = getattr(config, "is_decoder", False) or getattr(config, "is_encoder_decoder", False)
    if kind not in MODEL_FOR_MASKED_LM_MAPPING_NAMES or decoder:
        raise ModelError(
            f"model_type is {kind!r}, no encoder trained on masked tokens",
            where=file,
            hint="give a MoLFormer, RoBERTa, BERT, DeBERTa, ModernBERT or the like",
        )
    for name in _DROPOUT:
        if hasattr(config, name):
            setattr(config, name, dropout)
    return config


def _class_of(config: Any) -> Any:
    found = MODEL_MAPPING[type(config)]
    return found[0] if isinstance(found, tuple) else found


@torch.no_grad()
def _check_padding(network: EncoderForRegression, folder: Path) -> None:
    """Refuses an encoder that reads padding.

    Some do by design: FNet mixes all positions, ConvBERT's convolutions reach beyond the end.
    """
    pad = getattr(network.config, "pad_token_id", None) or 0
    ids = torch.tensor([[i for i in range(6) if i != pad]])
    padded = nn.functional.pad(ids, (0, 11), value=pad)
    network.eval()
    kind = network.config.model_type
    with _one_line(folder, f"{kind} takes more than tokens and their mask"):
        alone = network.encode(ids)
        beside = network.encode(padded, (torch.arange(16) < ids.shape[1]).long()[None])
    off = (alone - beside).abs().max()
    if off > 1e-4 * alone.abs().max():  # not so where a weight is NaN: training will say that
        raise ModelError(
            f"{kind} reads padding: a molecule would have another value in each batch",
            where=folder,
            hint="take another encoder",
        )


@contextmanager
def _one_line(folder: Path, what: str) -> Iterator[None]:
    """Turns what transformers raises, of many kinds, into one line for the user."""
    try:
        yield
    except Exception as error:
        hint = f"{type(error).__name__}: {error}"
        raise ModelError(what, where=folder / "config.json", hint=hint) from None


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps transformers' report on heads that nobody asked for from the terminal."""
    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()
