"""Several SMILES of a molecule at prediction."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lipo_cli.chem.molecules import canonical_smiles
from lipo_cli.model.enumeration import enumerated
from tests.fixtures.models import SMILES, tiny_regressor

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
    regressor = tiny_regressor(tiny, tta=4, precision="float32")
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
