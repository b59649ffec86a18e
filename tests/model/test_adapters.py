"""What each method trains: names, counts, starting point, and that the rest stays as it was."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from lipo_cli.model.adapters import (
    DEFAULT_LAYER_DECAY,
    DEFAULT_LEARNING_RATE,
    count_parameters,
    parameter_groups,
)
from lipo_cli.model.batches import collate
from lipo_cli.model.regressor import Regressor
from lipo_cli.settings import PEFT_METHODS, Peft
from tests.fixtures.models import LABELS, SMILES, disturb, tiny_regressor

D, F, LAYERS, VOCABULARY, RANK = 16, 24, 2, 40, 3
HEAD = 2 * (D * D + D) + D + 1
HEAD_NAMES = {f"{m}.{p}" for m in ("dense", "dense2", "out_proj") for p in ("weight", "bias")}
BIASES_PER_LAYER = {
    *(f"attention.self.{m}.bias" for m in ("query", "key", "value")),
    "attention.output.dense.bias",
    "attention.output.LayerNorm.bias",
    "intermediate.dense.bias",
    "output.dense.bias",
    "output.LayerNorm.bias",
}
LORA_SHAPES = {
    "attention.self.query": (D, D),
    "attention.self.key": (D, D),
    "attention.self.value": (D, D),
    "attention.output.dense": (D, D),
    "intermediate.dense": (D, F),
    "output.dense": (F, D),
}
"""Inputs and outputs of the linear maps that LoRA sits on (Hu et al. 2022 adapt attention only)."""
IA3_SIZES = {"attention.self.key": D, "attention.self.value": D, "output.dense": F}
"""What IA3 rescales: keys and values (outputs), and the input of the second feed-forward map."""


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """Returns trainable parameters, in names without PEFT's wrapping."""
    return {
        name.removeprefix("base_model.model.")
        .replace("modules_to_save.default.", "")
        .replace(".default", ""): parameter
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }


def layers(*parts: str) -> set[str]:
    return {f"molformer.encoder.layer.{i}.{part}" for i in range(LAYERS) for part in parts}


def head_names() -> set[str]:
    return {f"classifier.{name}" for name in HEAD_NAMES}


def one_step(regressor: Regressor, learning_rate: float = 0.05) -> None:
    """Makes three plain AdamW steps on all molecules."""
    regressor.set_label_scale(LABELS)
    groups = parameter_groups(regressor.model, learning_rate, 1.0, 0.01)
    optimizer = torch.optim.AdamW(groups)
    ids = regressor.encode(SMILES).ids
    batch = collate(ids, regressor.pad_id)
    regressor.model.train()
    for _ in range(3):
        loss = regressor.model(
            input_ids=batch.input_ids,
            attention_mask=batch.attention_mask,
            labels=torch.tensor(LABELS, dtype=torch.float32),
        ).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    regressor.model.eval()


def test_full_trains_every_parameter(tiny: Path) -> None:
    regressor = tiny_regressor(tiny, "full")
    every = {name for name, _ in regressor.model.named_parameters()}
    assert trainable(regressor.model).keys() == every
    per_layer = 4 * (D * D + D) + (D * F + F) + (F * D + D) + 4 * D
    count = VOCABULARY * D + LAYERS * per_layer + 2 * D + HEAD
    assert (regressor.parameters().trainable, regressor.parameters().total) == (count, count)


def test_bitfit_trains_biases_and_the_head_and_nothing_else(tiny: Path) -> None:
    regressor = tiny_regressor(tiny, "bitfit")
    wanted = layers(*BIASES_PER_LAYER) | {"molformer.LayerNorm.bias"} | head_names()
    assert trainable(regressor.model).keys() == wanted
    biases = {n for n, _ in regressor.model.named_parameters() if n.endswith(".bias")}
    assert biases <= wanted
    assert regressor.parameters().trainable == LAYERS * (7 * D + F) + D + HEAD


def test_lora_trains_low_rank_pairs_and_the_head(tiny: Path) -> None:
    regressor = tiny_regressor(tiny, "lora", lora_rank=RANK)
    wanted = layers(*(f"{m}.lora_{x}.weight" for m in LORA_SHAPES for x in "AB")) | head_names()
    found = trainable(regressor.model)
    assert found.keys() == wanted
    for name, parameter in found.items():
        if match := re.fullmatch(r".*layer\.\d\.(.*)\.lora_([AB])\.weight", name):
            width_in, width_out = LORA_SHAPES[match[1]]
            shape = (RANK, width_in) if match[2] == "A" else (width_out, RANK)
            assert parameter.shape == shape
    count = LAYERS * sum(RANK * (i + o) for i, o in LORA_SHAPES.values()) + HEAD
    assert regressor.parameters().trainable == count
    whole = tiny_regressor(tiny, "full").parameters().total
    assert regressor.parameters().total == whole + count - HEAD


def test_lora_on_self_attention_alone(tiny: Path) -> None:
    regressor = tiny_regressor(tiny, "lora", lora_rank=RANK, lora_targets="attention")
    places = [m for m in LORA_SHAPES if m.rpartition(".")[2] in ("query", "key", "value")]
    assert len(places) == 3
    wanted = layers(*(f"{m}.lora_{x}.weight" for m in places for x in "AB")) | head_names()
    assert trainable(regressor.model).keys() == wanted


def test_ia3_trains_rescalings_and_the_head(tiny: Path) -> None:
    regressor = tiny_regressor(tiny, "ia3")
    found = trainable(regressor.model)
    assert found.keys() == layers(*(f"{m}.ia3_l" for m in IA3_SIZES)) | head_names()
    count = LAYERS * sum(IA3_SIZES.values()) + HEAD
    assert regressor.parameters().trainable == count
    whole = tiny_regressor(tiny, "full").parameters().total
    assert regressor.parameters().total == whole + count - HEAD


@pytest.mark.parametrize("peft", ["lora", "ia3"])
def test_adapters_start_where_the_base_is(tiny: Path, peft: Peft) -> None:
    plain, adapted = tiny_regressor(tiny, "full", seed=3), tiny_regressor(tiny, peft, seed=3)
    assert np.array_equal(plain.predict(SMILES), adapted.predict(SMILES))
    assert np.array_equal(plain.embed(SMILES), adapted.embed(SMILES))
    for name, parameter in trainable(adapted.model).items():
        if "lora_B" in name:
            assert not bool(parameter.any()), name
        if "lora_A" in name:
            assert bool(parameter.any()), name
        if "ia3_l" in name:
            assert bool((parameter == 1).all()), name


def test_draws_belong_to_the_seed(tiny: Path) -> None:
    first, again, other = (tiny_regressor(tiny, "lora", seed=seed) for seed in (1, 1, 2))
    for name, parameter in trainable(first.model).items():
        assert torch.equal(parameter, trainable(again.model)[name])
        drawn = "lora_A" in name or (name.startswith("classifier") and name.endswith("weight"))
        assert torch.equal(parameter, trainable(other.model)[name]) is not drawn, name


def test_heads_start_alike_with_every_method(tiny: Path) -> None:
    heads = [tiny_regressor(tiny, peft, seed=1).head().state_dict() for peft in PEFT_METHODS]
    for head in heads[1:]:
        assert all(torch.equal(heads[0][name], value) for name, value in head.items())


@pytest.mark.parametrize("peft", PEFT_METHODS)
def test_steps_move_what_is_trained_and_not_one_bit_else(tiny: Path, peft: Peft) -> None:
    regressor = tiny_regressor(tiny, peft, dropout=0.0)
    before = {n: p.detach().clone() for n, p in regressor.model.named_parameters()}
    buffers = {n: b.clone() for n, b in regressor.model.named_buffers() if "feature_map" in n}
    assert len(buffers) == LAYERS
    one_step(regressor)
    for name, parameter in regressor.model.named_parameters():
        moved = not torch.equal(parameter, before[name])
        assert moved is parameter.requires_grad, name
    for name, buffer in regressor.model.named_buffers():
        assert "feature_map" not in name or torch.equal(buffer, buffers[name])
    used = regressor.network.classifier
    assert float(used.label_scale) == pytest.approx(float(np.std(LABELS)))


@pytest.mark.parametrize("peft", ["lora", "ia3"])
def test_trained_head_is_the_one_that_predicts(tiny: Path, peft: Peft) -> None:
    regressor = tiny_regressor(tiny, peft)
    embedded = regressor.embed(SMILES)
    pooled = torch.tensor(embedded, dtype=torch.float32)
    with torch.no_grad():
        regressor.head().out_proj.bias.add_(10.0)
        regressor.model.train()  # dropout is off in a prediction whatever the mode was
        np.testing.assert_allclose(
            regressor.predict_embedded(embedded), regressor.predict(SMILES), atol=1e-4
        )
        assert regressor.head().training
        regressor.model.eval()
        by_head = regressor.head()(pooled)[:, 0].numpy()
    np.testing.assert_allclose(regressor.predict(SMILES), by_head, atol=1e-4)
    assert by_head.min() > 5


@pytest.mark.parametrize("peft", PEFT_METHODS)
def test_loss_knows_the_label_scale_through_every_wrapper(tiny: Path, peft: Peft) -> None:
    regressor = tiny_regressor(tiny, peft)
    regressor.set_label_scale(LABELS)
    ids = regressor.encode(SMILES).ids
    batch = collate(ids, regressor.pad_id)
    regressor.model.eval()
    with torch.no_grad():
        loss = regressor.model(
            input_ids=batch.input_ids,
            attention_mask=batch.attention_mask,
            labels=torch.tensor(LABELS, dtype=torch.float32),
        ).loss
    error = (regressor.predict(SMILES) - LABELS) / LABELS.std()
    assert float(loss) == pytest.approx(float(np.mean(error**2)), rel=1e-4)


@pytest.mark.parametrize("peft", PEFT_METHODS)
def test_every_dropout_is_off_in_prediction_and_on_in_training(tiny: Path, peft: Peft) -> None:
    regressor = tiny_regressor(tiny, peft, dropout=0.4, lora_dropout=0.3)
    disturb(regressor)
    rates = {m.p for m in regressor.model.modules() if isinstance(m, nn.Dropout)}
    assert rates == {0.4, 0.1} | ({0.3} if peft == "lora" else set())  # 0.1: the embeddings'
    regressor.model.train()
    assert np.array_equal(regressor.predict(SMILES), regressor.predict(SMILES))
    ids = regressor.encode(SMILES).ids
    batch = collate(ids, regressor.pad_id)
    with torch.no_grad():
        noisy = [regressor.model(input_ids=batch.input_ids).logits for _ in range(2)]
    assert not torch.equal(*noisy)


@pytest.mark.parametrize("decay", [1.0, 0.5])
@pytest.mark.parametrize("peft", PEFT_METHODS)
def test_each_trainable_parameter_is_in_one_group_at_its_rate(
    tiny: Path, peft: Peft, decay: float
) -> None:
    regressor = tiny_regressor(tiny, peft)
    groups = parameter_groups(regressor.model, 0.1, decay, 0.01)
    rate, weight_decay = {}, {}
    for group in groups:
        for parameter in group["params"]:
            assert id(parameter) not in rate, "a parameter is in two groups"
            rate[id(parameter)], weight_decay[id(parameter)] = group["lr"], group["weight_decay"]
    found = trainable(regressor.model)
    assert rate.keys() == {id(parameter) for parameter in found.values()}
    depths = {"classifier": 0, "molformer.LayerNorm": 0, "layer.1.": 1, "layer.0.": 2}
    for name, parameter in found.items():
        (depth,) = [d for part, d in depths.items() if part in f"{name}."] or [
            3 for _ in range("word_embeddings" in name)
        ]
        assert rate[id(parameter)] == pytest.approx(0.1 * decay**depth), name
        vector = name.endswith(".bias") or "LayerNorm" in name or "ia3_l" in name
        assert weight_decay[id(parameter)] == (0.0 if vector else 0.01), name


def test_every_method_has_its_defaults() -> None:
    assert DEFAULT_LEARNING_RATE.keys() == DEFAULT_LAYER_DECAY.keys() == set(PEFT_METHODS)
    full = DEFAULT_LEARNING_RATE["full"]
    # Small methods want rates 5 to 100 times those of full fine-tuning; LoRA of rank 32, which
    # trains a fifth of all parameters, stands between.
    assert all(5 * full <= DEFAULT_LEARNING_RATE[p] <= 100 * full for p in ("bitfit", "ia3"))
    assert full < DEFAULT_LEARNING_RATE["lora"] < 5 * full


def test_count_leaves_out_the_spare_head_of_peft(tiny: Path) -> None:
    model = tiny_regressor(tiny, "lora").model
    spare = sum(p.numel() for n, p in model.named_parameters() if "original_module" in n)
    assert spare == HEAD
    assert count_parameters(model).total == sum(p.numel() for p in model.parameters()) - HEAD
