"""A molecule is scored alike alone and in any company, in any order, on every call."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lipo_cli.model.batches import collate
from lipo_cli.model.modeling import (
    MolformerForMaskedLM,
    MolformerForSequenceClassification,
    MolformerModel,
)
from lipo_cli.model.regressor import Regressor
from tests.fixtures.models import SMILES, disturb, tiny_config, tiny_regressor

TOLERANCE = 1e-5
SEEDS = st.integers(0, 2**31 - 1)
ROWS = st.lists(st.lists(st.integers(4, 39), min_size=1, max_size=40), min_size=1, max_size=6)


@pytest.fixture(scope="module")
def models() -> tuple[MolformerForMaskedLM, MolformerForSequenceClassification]:
    torch.manual_seed(0)
    return (
        MolformerForMaskedLM(tiny_config()).eval(),
        MolformerForSequenceClassification(tiny_config()).eval(),
    )


@pytest.fixture(scope="module")
def regressor(tiny: Path) -> Regressor:
    made = tiny_regressor(tiny)
    disturb(made)
    return made


@settings(max_examples=60, deadline=None)
@given(rows=ROWS, extra=st.integers(0, 30))
@torch.no_grad()
def test_padding_changes_no_output(
    models: tuple[MolformerForMaskedLM, MolformerForSequenceClassification],
    rows: list[list[int]],
    extra: int,
) -> None:
    language, regression = models
    width = max(map(len, rows)) + extra
    ids = torch.full((len(rows), width), 2)
    mask = torch.zeros(len(rows), width, dtype=torch.long)
    for i, row in enumerate(rows):
        ids[i, : len(row)], mask[i, : len(row)] = torch.tensor(row), 1
    together = language.molformer(ids, mask)
    logits, predicted = language(ids, mask).logits, regression(ids, mask).logits
    for i, row in enumerate(rows):
        one, n = torch.tensor([row]), len(row)
        alone = language.molformer(one)
        for found, wanted in (
            (together.last_hidden_state[i, :n], alone.last_hidden_state[0]),
            (together.pooler_output[i], alone.pooler_output[0]),
            (logits[i, :n], language(one).logits[0]),
            (predicted[i], regression(one).logits[0]),
        ):
            torch.testing.assert_close(found, wanted, atol=TOLERANCE, rtol=0)


@torch.no_grad()
def test_what_stands_at_padding_does_not_matter() -> None:
    torch.manual_seed(1)
    model = MolformerModel(tiny_config()).eval()
    ids = torch.randint(4, 40, (2, 12))
    mask = torch.tensor([[1] * 12, [1] * 5 + [0] * 7])
    other = ids.clone()
    other[1, 5:] = torch.randint(4, 40, (7,))
    first, second = model(ids, mask), model(other, mask)
    torch.testing.assert_close(first.pooler_output, second.pooler_output, atol=1e-6, rtol=0)


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS, size=st.integers(1, 12), batch=st.integers(1, 12))
def test_predictions_do_not_depend_on_the_company(
    regressor: Regressor, seed: int, size: int, batch: int
) -> None:
    rng = np.random.default_rng(seed)
    chosen = [SMILES[i] for i in rng.integers(len(SMILES), size=size)]
    predicted = regressor.predict(chosen, batch_size=batch)
    embedded = regressor.embed(chosen, batch_size=batch)
    assert predicted.shape == (size,)
    assert embedded.shape == (size, 16)
    for i, smiles in enumerate(chosen):
        assert abs(regressor.predict([smiles])[0] - predicted[i]) < TOLERANCE
        assert np.abs(regressor.embed([smiles])[0] - embedded[i]).max() < TOLERANCE


def test_order_is_kept(regressor: Regressor) -> None:
    names = list(SMILES)
    forward, backward = regressor.predict(names), regressor.predict(names[::-1])
    assert len(np.unique(forward.round(6))) == len(names), "the molecules must differ to tell"
    np.testing.assert_allclose(forward, backward[::-1], atol=TOLERANCE, rtol=0)


def test_calls_repeat_to_the_last_bit_in_training_mode_too(regressor: Regressor) -> None:
    regressor.model.train()
    first, second = regressor.predict(SMILES), regressor.predict(SMILES)
    assert np.array_equal(first, second)
    assert regressor.model.training, "predicting must leave the mode as it was"
    assert np.array_equal(regressor.embed(SMILES), regressor.embed(SMILES))
    regressor.model.eval()


def test_nothing_to_predict_gives_empty_arrays(regressor: Regressor) -> None:
    assert regressor.predict([]).shape == (0,)
    assert regressor.embed([]).shape == (0, 16)


def test_predictions_are_in_raw_units(regressor: Regressor) -> None:
    raw = regressor.predict(SMILES)
    head = regressor.head()
    mean, scale = float(head.label_mean), float(head.label_scale)
    regressor.set_label_scale(np.array([-1.0, 1.0]))
    standardised = regressor.predict(SMILES)
    head.label_mean.fill_(mean)
    head.label_scale.fill_(scale)
    np.testing.assert_allclose(raw, mean + scale * standardised, atol=1e-5)


@torch.no_grad()
def test_embedding_is_the_mean_over_the_tokens(regressor: Regressor) -> None:
    (ids,) = regressor.encode([SMILES[2]]).ids
    batch = collate([ids], regressor.pad_id)
    network = regressor.network.eval()
    hidden = network.molformer(batch.input_ids, batch.attention_mask).last_hidden_state
    by_hand = hidden[0, : len(ids)].double().mean(dim=0).numpy()
    np.testing.assert_allclose(regressor.embed([SMILES[2]])[0], by_hand, atol=1e-6)
