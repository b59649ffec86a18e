"""Ensembles: the mean of their members, saved and loaded, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from lipo_cli.errors import ModelError
from lipo_cli.model.ensemble import Ensemble, load_predictor, spread
from lipo_cli.model.regressor import Regressor
from tests.fixtures.models import LABELS, SMILES, tiny_regressor


def members(tiny: Path) -> list[Regressor]:
    made = [tiny_regressor(tiny, precision="float32", tta=2) for _ in range(3)]
    for i, member in enumerate(made):
        member.set_label_scale(LABELS)
        with torch.no_grad():
            for parameter in member.head().parameters():
                parameter.add_(0.01 * (i + 1))
    return made


def test_prediction_is_the_mean_of_the_members(tiny: Path) -> None:
    each = members(tiny)
    ensemble = Ensemble(each)
    by_hand = np.mean([member.predict(SMILES) for member in each], axis=0)
    np.testing.assert_allclose(ensemble.predict(SMILES), by_hand, atol=1e-12)
    views = ensemble.predict_views(SMILES)
    assert views.shape == (len(SMILES), 6)
    np.testing.assert_allclose(spread(views), views.std(axis=1, ddof=1))
    assert (spread(ensemble.predict_views(SMILES, views=1)) > 0).all()


def test_one_prediction_has_no_spread() -> None:
    assert (spread(np.ones((4, 1))) == 0).all()


def test_saved_ensemble_predicts_the_same(tiny: Path, tmp_path: Path) -> None:
    ensemble = Ensemble(members(tiny), {"dataset": "demo"})
    ensemble.save(tmp_path / "out")
    loaded = load_predictor(tmp_path / "out")
    assert isinstance(loaded, Ensemble)
    assert np.array_equal(loaded.predict(SMILES), ensemble.predict(SMILES))
    assert loaded.manifest["dataset"] == "demo"
    assert isinstance(load_predictor(tmp_path / "out" / "members" / "0"), Regressor)


def test_damaged_ensemble_is_refused(tiny: Path, tmp_path: Path) -> None:
    Ensemble(members(tiny)[:2]).save(tmp_path / "out")
    manifest = tmp_path / "out" / "manifest.json"
    first, second = (tmp_path / "out" / "members" / str(i) / "manifest.json" for i in (0, 1))
    kept = first.read_text()
    first.write_text(second.read_text() + " ")
    with pytest.raises(ModelError, match="member 0"):
        load_predictor(tmp_path / "out")
    first.write_text(kept)
    manifest.write_text(json.dumps({"kind": "ensemble", "format": 1}))
    with pytest.raises(ModelError, match="no members"):
        load_predictor(tmp_path / "out")
    manifest.write_text("{")
    with pytest.raises(ModelError, match="cannot be read"):
        load_predictor(tmp_path / "out")
