"""Predictions with the adapter inside the weights are the adapter's, and leave no trace."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from lipo_cli.errors import TrainingError
from lipo_cli.model import merging
from lipo_cli.model import regressor as regressor_module
from lipo_cli.model.batches import collate
from lipo_cli.model.merging import reading
from lipo_cli.model.regressor import Regressor
from lipo_cli.settings import PEFT_METHODS, Peft
from tests.fixtures.models import LABELS, SMILES, disturb, tiny_regressor


@pytest.fixture(autouse=True)
def _few_molecules_are_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merging, "WORTH_MERGING", 2)


def bits(regressor: Regressor) -> dict[str, bytes]:
    """Returns everything that the network is, by name."""
    return {n: t.numpy().tobytes() for n, t in regressor.model.state_dict().items()}


def unmerged(regressor: Regressor, smiles: str) -> float:
    """Returns a prediction through the adapter's own layers."""
    regressor.model.eval()
    batch = collate(regressor.encode([smiles]).ids, regressor.pad_id)
    with torch.inference_mode():
        found = regressor.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask)
    return float(found.logits[0, 0])


@pytest.mark.parametrize("peft", PEFT_METHODS)
def test_predictions_are_those_of_the_adapters_own_layers(tiny: Path, peft: Peft) -> None:
    regressor = tiny_regressor(tiny, peft)
    disturb(regressor)
    before, predicted = bits(regressor), regressor.predict(SMILES)
    np.testing.assert_allclose(predicted, [unmerged(regressor, s) for s in SMILES], atol=2e-5)
    assert bits(regressor) == before
    assert np.ptp(predicted) > 0.1


@pytest.mark.parametrize("peft", ["lora", "ia3"])
def test_the_adapter_really_is_in_the_weights(tiny: Path, peft: Peft) -> None:
    regressor = tiny_regressor(tiny, peft)
    disturb(regressor)
    key = regressor.network.molformer.encoder.layer[0].attention.self.key
    own = key.base_layer.weight.detach().clone()
    with reading(regressor.model, 2):
        assert key.merged
        assert (key.base_layer.weight - own).abs().max() > 1e-3
    assert not key.merged
    assert torch.equal(key.base_layer.weight, own)


@pytest.mark.parametrize("peft", ["lora", "ia3"])
def test_a_failure_while_predicting_leaves_the_weights_as_they_were(
    tiny: Path, peft: Peft, monkeypatch: pytest.MonkeyPatch
) -> None:
    regressor = tiny_regressor(tiny, peft)
    disturb(regressor)
    before, predicted = bits(regressor), regressor.predict(SMILES)

    def interrupted(*_: object) -> object:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(regressor_module, "collate", interrupted)
        with pytest.raises(KeyboardInterrupt):
            regressor.predict(SMILES)
    assert bits(regressor) == before
    np.testing.assert_array_equal(regressor.predict(SMILES), predicted)


@pytest.mark.parametrize("peft", ["lora", "ia3"])
def test_several_threads_read_one_model(tiny: Path, peft: Peft) -> None:
    """As a server's do: each begins and ends while others read, whatever the order."""
    regressor = tiny_regressor(tiny, peft)
    disturb(regressor)
    regressor.model.eval()  # as one that was loaded is
    before, predicted = bits(regressor), regressor.predict(SMILES)
    for _ in range(5):
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(regressor.predict, [SMILES] * 24))
        for each in found:
            np.testing.assert_allclose(each, predicted, atol=1e-6)
    assert bits(regressor) == before
    # The one that came first may leave first.
    one, other = reading(regressor.model, 2), reading(regressor.model, 2)
    one.__enter__()
    other.__enter__()
    one.__exit__(None, None, None)
    np.testing.assert_allclose(regressor.predict(SMILES), predicted, atol=1e-6)
    other.__exit__(None, None, None)
    assert bits(regressor) == before


@pytest.mark.parametrize("peft", ["lora", "ia3"])
def test_few_sequences_beside_many_are_predicted_right(
    tiny: Path, peft: Peft, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who has begun without a merge reads on while others come that a merge would pay for."""
    monkeypatch.setattr(merging, "WORTH_MERGING", len(SMILES))
    regressor = tiny_regressor(tiny, peft)
    disturb(regressor)
    regressor.model.eval()
    before, predicted = bits(regressor), regressor.predict(SMILES)
    key = regressor.network.molformer.encoder.layer[0].attention.self.key
    few = reading(regressor.model, 1)
    few.__enter__()
    with reading(regressor.model, len(SMILES)):
        assert not key.merged
    few.__exit__(None, None, None)
    many = reading(regressor.model, len(SMILES))
    many.__enter__()
    with reading(regressor.model, 1):  # what the weights hold already is not added again
        assert key.merged
        np.testing.assert_allclose(regressor.predict(SMILES[:1]), predicted[:1], atol=2e-5)
    many.__exit__(None, None, None)

    def alternately(i: int) -> bool:
        some = SMILES if i % 2 else SMILES[:1]
        return np.allclose(regressor.predict(some), predicted[: len(some)], atol=2e-5)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(alternately, range(300)))
    assert bits(regressor) == before


def test_a_few_sequences_are_not_worth_a_merge(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    regressor = tiny_regressor(tiny, "lora")
    key = regressor.network.molformer.encoder.layer[0].attention.self.key
    asked: list[int] = []
    monkeypatch.setattr(key, "merge", lambda: asked.append(1))
    monkeypatch.setattr(merging, "WORTH_MERGING", len(SMILES) + 1)
    regressor.predict(SMILES)
    assert not asked
    monkeypatch.setattr(merging, "WORTH_MERGING", len(SMILES))
    regressor.predict(SMILES)
    assert asked


def test_adapters_that_share_weights_are_not_merged(tiny: Path) -> None:
    regressor = tiny_regressor(tiny, "lora")
    disturb(regressor)
    attention = regressor.network.molformer.encoder.layer[0].attention.self
    attention.key.base_layer.weight = attention.query.base_layer.weight
    before = bits(regressor)
    with reading(regressor.model, 2):
        assert not attention.key.merged
        assert not attention.query.merged
    np.testing.assert_allclose(
        regressor.predict(SMILES), [unmerged(regressor, s) for s in SMILES], atol=2e-5
    )
    assert bits(regressor) == before


@pytest.mark.parametrize("peft", ["lora", "ia3"])
def test_a_merge_that_fails_half_way_leaves_the_weights_as_they_were(
    tiny: Path, peft: Peft, monkeypatch: pytest.MonkeyPatch
) -> None:
    regressor = tiny_regressor(tiny, peft)
    disturb(regressor)
    before = bits(regressor)
    last = regressor.network.molformer.encoder.layer[1].attention.self.value

    def broken() -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(last, "merge", broken)
        with pytest.raises(TrainingError, match="memory ran out"):
            regressor.predict(SMILES)
    assert bits(regressor) == before
    np.testing.assert_allclose(
        regressor.predict(SMILES), [unmerged(regressor, s) for s in SMILES], atol=2e-5
    )


@pytest.mark.parametrize("peft", ["lora", "ia3"])
def test_a_step_after_a_prediction_is_the_step_without_it(tiny: Path, peft: Peft) -> None:
    stepped = []
    for predict_first in (False, True):
        regressor = tiny_regressor(tiny, peft)
        disturb(regressor)
        if predict_first:
            regressor.predict(SMILES)
        batch = collate(regressor.encode(SMILES).ids, regressor.pad_id)
        optimizer = torch.optim.AdamW(
            [p for p in regressor.model.parameters() if p.requires_grad], lr=0.1
        )
        labels = torch.from_numpy(LABELS).float()[:, None]
        regressor.model.eval()
        regressor.model(
            input_ids=batch.input_ids, attention_mask=batch.attention_mask, labels=labels
        ).loss.backward()
        optimizer.step()
        stepped.append(bits(regressor))
    assert stepped[0] == stepped[1]
