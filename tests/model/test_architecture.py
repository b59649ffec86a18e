"""Parameter counts, names, and transformers' Auto classes and round trips."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)

from lipo_cli.model import (
    MolformerConfig,
    MolformerForMaskedLM,
    MolformerForSequenceClassification,
    MolformerModel,
    MolformerTokenizer,
)
from lipo_cli.model.base import SHIPPED_ROOT
from tests.fixtures.models import tiny_config


def n_parameters(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def test_xl_has_the_published_parameter_counts() -> None:
    with torch.device("meta"):
        assert n_parameters(MolformerModel(MolformerConfig())) == 44_375_040
        assert n_parameters(MolformerForMaskedLM(MolformerConfig())) == 46_781_184


def test_counts_follow_from_the_shapes() -> None:
    config = tiny_config()
    d, f, layers, vocabulary = 16, 24, 2, 40
    per_layer = 4 * (d * d + d) + (d * f + f) + (f * d + d) + 2 * 2 * d
    base = vocabulary * d + layers * per_layer + 2 * d
    assert n_parameters(MolformerModel(config)) == base
    assert n_parameters(MolformerForMaskedLM(config)) == base + d * d + d + 2 * d + vocabulary * d
    head = 2 * (d * d + d) + d + 1
    assert n_parameters(MolformerForSequenceClassification(config)) == base + head


def test_state_dict_bears_the_published_names() -> None:
    names = set(MolformerForMaskedLM(tiny_config(num_hidden_layers=1)).state_dict())
    layer = "molformer.encoder.layer.0"
    wanted = {
        "molformer.embeddings.word_embeddings.weight",
        f"{layer}.attention.self.feature_map.weight",
        "molformer.LayerNorm.weight",
        "molformer.LayerNorm.bias",
        "lm_head.decoder.weight",
    }
    for module in (
        *(f"{layer}.attention.self.{part}" for part in ("query", "key", "value")),
        f"{layer}.attention.output.dense",
        f"{layer}.attention.output.LayerNorm",
        f"{layer}.intermediate.dense",
        f"{layer}.output.dense",
        f"{layer}.output.LayerNorm",
        "lm_head.transform.dense",
        "lm_head.transform.LayerNorm",
    ):
        wanted |= {f"{module}.weight", f"{module}.bias"}
    assert names == wanted
    head = set(MolformerForSequenceClassification(tiny_config()).classifier.state_dict())
    published = {f"{m}.{p}" for m in ("dense", "dense2", "out_proj") for p in ("weight", "bias")}
    assert head == published | {"label_mean", "label_scale"}


@pytest.mark.parametrize(
    ("auto", "cls"),
    [
        (AutoModel, MolformerModel),
        (AutoModelForMaskedLM, MolformerForMaskedLM),
        (AutoModelForSequenceClassification, MolformerForSequenceClassification),
    ],
)
def test_auto_classes_load_a_folder_without_remote_code(auto: type, cls: type, tiny: Path) -> None:
    model = auto.from_pretrained(tiny)
    assert type(model) is cls
    assert type(AutoConfig.from_pretrained(tiny)) is MolformerConfig
    assert type(AutoTokenizer.from_pretrained(tiny)) is MolformerTokenizer


def test_auto_classes_load_the_shipped_checkpoint() -> None:
    tokenizer = AutoTokenizer.from_pretrained(SHIPPED_ROOT / "small")
    model, info = AutoModelForMaskedLM.from_pretrained(
        SHIPPED_ROOT / "small", output_loading_info=True
    )
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert len(tokenizer) == model.config.vocab_size


@pytest.mark.parametrize(
    "cls", [MolformerModel, MolformerForMaskedLM, MolformerForSequenceClassification]
)
@torch.no_grad()
def test_save_and_load_keep_every_bit_of_the_weights(cls: type, tmp_path: Path) -> None:
    torch.manual_seed(5)
    model = cls(tiny_config()).eval()
    if cls is MolformerForSequenceClassification:
        model.classifier.label_mean.fill_(2.25)
        model.classifier.label_scale.fill_(1.5)
    model.save_pretrained(tmp_path)
    loaded, info = cls.from_pretrained(tmp_path, output_loading_info=True)
    loaded.eval()
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    own, back = model.state_dict(), loaded.state_dict()
    assert own.keys() == back.keys()
    assert all(torch.equal(own[name], back[name]) for name in own)
    ids = torch.randint(5, 30, (2, 11))
    # Not to the last bit: the loaded tensors lie elsewhere in memory, and the kernels care.
    torch.testing.assert_close(loaded(ids)[0], model(ids)[0], atol=1e-6, rtol=1e-6)
    assert not list(tmp_path.glob("*.bin"))


def test_new_head_on_an_encoder_starts_without_scale(
    tiny: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        model, info = MolformerForSequenceClassification.from_pretrained(
            tiny, output_loading_info=True
        )
    assert all(name.startswith("classifier.") for name in info["missing_keys"])
    assert not any("label_" in name for name in info["missing_keys"])
    assert float(model.classifier.label_mean) == 0.0
    assert float(model.classifier.label_scale) == 1.0


def test_masked_tokens_alone_make_the_language_loss() -> None:
    torch.manual_seed(0)
    model = MolformerForMaskedLM(tiny_config()).eval()
    ids = torch.randint(5, 30, (2, 6))
    labels = torch.full_like(ids, -100)
    labels[0, 1], labels[1, 4] = 7, 11
    with torch.no_grad():
        out = model(ids, labels=labels)
    logs = torch.log_softmax(out.logits.double(), dim=-1)
    by_hand = -(logs[0, 1, 7] + logs[1, 4, 11]) / 2
    assert float(out.loss) == pytest.approx(float(by_hand), rel=1e-5)


def test_input_embeddings_can_be_replaced() -> None:
    model = MolformerModel(tiny_config())
    other = torch.nn.Embedding(40, 16)
    model.set_input_embeddings(other)
    assert model.get_input_embeddings() is other
