"""Several SMILES of a molecule at prediction."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lipo_cli.chem.molecules import canonical_smiles
from lipo_cli.model.ensemble import Ensemble
from lipo_cli.model.enumeration import enumerated, view_weights
from tests.fixtures.models import SMILES, tiny_checkpoint, tiny_regressor

ASPIRIN = "CC(=O)Oc1ccccc1C(=O)O"


def test_views_are_the_molecule_itself_and_the_given_one_comes_first() -> None:
    texts = enumerated(ASPIRIN, 12)
    assert len(texts) == 12
    assert texts[0] == ASPIRIN
    assert len(set(texts)) > 6
    assert {canonical_smiles(text) for text in texts} == {canonical_smiles(ASPIRIN)}
    assert enumerated(ASPIRIN, 1) == [ASPIRIN]


def test_views_depend_on_the_molecule_alone() -> None:
    first = enumerated(ASPIRIN, 5)
    enumerated("CCO", 3)
    assert enumerated(ASPIRIN, 5) == first
    assert enumerated(ASPIRIN, 3) == first[:3]


def test_a_view_that_cannot_be_read_gives_way_to_the_given_one() -> None:
    texts = enumerated(ASPIRIN, 8, lambda text: text.startswith("C"))
    assert all(text.startswith("C") for text in texts)
    assert ASPIRIN in texts[1:]


def test_prediction_is_the_mean_over_views_in_any_order(tiny: Path) -> None:
    regressor = tiny_regressor(tiny, tta=4, precision="float32", randomise=1.0)
    views = regressor.predict_views(SMILES)
    assert views.shape == (len(SMILES), 4)
    np.testing.assert_allclose(regressor.predict(SMILES), views.mean(axis=1), atol=1e-12)
    np.testing.assert_allclose(views[:, 0], regressor.predict(SMILES, views=1), atol=1e-5)
    by_hand = [
        np.mean([regressor.predict([text], views=1)[0] for text in enumerated(each, 4)])
        for each in SMILES[:3]
    ]
    np.testing.assert_allclose(regressor.predict(SMILES[:3]), by_hand, atol=1e-5)
    np.testing.assert_allclose(
        regressor.predict(SMILES[::-1])[::-1], regressor.predict(SMILES), atol=1e-5
    )


@pytest.mark.parametrize("count", [1, 2, 8])
@pytest.mark.parametrize("randomise", [0.0, 0.5, 0.9, 1.0])
def test_the_given_smiles_weighs_what_it_weighed_in_training(count: int, randomise: float) -> None:
    weights = view_weights(count, randomise)
    assert len(weights) == count
    assert weights.sum() == pytest.approx(1)
    least = 1 / count
    assert weights[0] == pytest.approx(max(1 - randomise, least) if randomise else least)
    assert np.ptp(weights[1:]) == 0 if count > 1 else True


def test_a_regressor_and_an_ensemble_average_by_these_weights(tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint(tmp_path)
    members = [tiny_regressor(checkpoint, seed=s, randomise=r) for s, r in ((0, 0.5), (1, 1.0))]
    smiles = list(SMILES)
    expected = []
    for member, weights in zip(members, ([0.5, 0.25, 0.25], [1 / 3] * 3), strict=True):
        by_hand = member.predict_views(smiles, views=3) @ np.array(weights)
        np.testing.assert_allclose(member.predict(smiles, views=3), by_hand, atol=1e-12)
        expected.append(by_hand)
    together = Ensemble(members).predict(smiles, views=3)
    np.testing.assert_allclose(together, np.mean(expected, axis=0), atol=1e-12)
