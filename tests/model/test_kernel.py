"""The kernel readout: scikit-learn's numbers, saved without pickle, and its part in ensembles."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from rdkit import Chem, DataStructs
from rdkit.Chem import rdFingerprintGenerator
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVR

from lipo_cli.errors import ModelError, TrainingError
from lipo_cli.model import folder as folders
from lipo_cli.model import kernel
from lipo_cli.model.ensemble import KERNEL_SHARE, Ensemble, kernel_share, load_predictor
from lipo_cli.model.kernel import EPSILON, PENALTY, STRUCTURE, KernelReadout
from tests.fixtures.models import (
    LABELS,
    SMILES,
    assembled_molecules,
    tiny_checkpoint,
    tiny_regressor,
    tiny_settings,
)

MOLECULES = list(SMILES)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return tiny_checkpoint(tmp_path / "tiny")


@pytest.fixture
def readout(checkpoint: Path) -> KernelReadout:
    return KernelReadout.fit(tiny_settings(checkpoint), MOLECULES, 10 * LABELS)


def test_predictions_are_those_of_scikit_learn(readout: KernelReadout) -> None:
    x, y = readout.encoder.embed(MOLECULES), 10 * LABELS
    matrix = rbf_kernel(StandardScaler().fit_transform(x), gamma=1 / x.shape[1])
    matrix += STRUCTURE * _similarities(MOLECULES)
    machine = SVR(kernel="precomputed", C=PENALTY, epsilon=EPSILON)
    expected = y.mean() + y.std() * machine.fit(matrix, (y - y.mean()) / y.std()).predict(matrix)
    np.testing.assert_allclose(readout.predict(MOLECULES), expected, rtol=0, atol=1e-8)


def _similarities(smiles: list[str]) -> np.ndarray:
    make = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=2048).GetFingerprint
    prints = [make(Chem.MolFromSmiles(text)) for text in smiles]
    return np.array([DataStructs.BulkTanimotoSimilarity(one, prints) for one in prints])


def test_of_many_molecules_some_are_drawn(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel, "MOST_ROWS", 5)
    settings = tiny_settings(checkpoint)
    readout = KernelReadout.fit(settings, MOLECULES, LABELS)
    assert readout.manifest["n_train"] == 5
    assert len(readout.machine.dual) <= 5
    again = KernelReadout.fit(settings, MOLECULES, LABELS)
    np.testing.assert_array_equal(readout.predict(MOLECULES), again.predict(MOLECULES))


def test_it_learns_what_the_frozen_encoder_shows(checkpoint: Path) -> None:
    smiles, labels = assembled_molecules()
    order = np.random.default_rng(0).permutation(len(smiles))
    train, test = order[:170], order[170:]
    settings = tiny_settings(checkpoint)
    fitted = KernelReadout.fit(settings, [smiles[i] for i in train], labels[train])
    error = fitted.predict([smiles[i] for i in test]) - labels[test]
    assert np.sqrt(np.mean(error**2)) < 0.6 * labels[test].std()


def test_it_reads_the_smiles_as_given_alone(readout: KernelReadout) -> None:
    views = readout.predict_views(MOLECULES, views=3)
    assert views.shape == (len(MOLECULES), 3)
    np.testing.assert_array_equal(views, views[:, [0, 0, 0]])
    np.testing.assert_allclose(readout.predict(MOLECULES, views=3), views[:, 0], atol=1e-12)
    assert readout.predict([]).shape == (0,)
    assert readout.predict_views([], views=4).shape == (0, 4)


def test_a_folder_of_its_own_is_a_model(readout: KernelReadout, tmp_path: Path) -> None:
    readout.save(tmp_path / "alone")
    loaded = load_predictor(tmp_path / "alone", device="cpu")
    np.testing.assert_allclose(loaded.predict(MOLECULES), readout.predict(MOLECULES), atol=1e-9)


def test_a_large_encoder_goes_along_all_the_same(
    readout: KernelReadout, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = readout.predict(MOLECULES)
    lora = tiny_regressor(checkpoint, "lora")
    monkeypatch.setattr(folders, "MAX_BASE_BYTES", 1)
    Ensemble([readout]).save(tmp_path / "saved")
    Ensemble([lora, readout]).save(tmp_path / "named")
    for file in checkpoint.iterdir():
        file.unlink()
    loaded = load_predictor(tmp_path / "saved", device="cpu")
    np.testing.assert_allclose(loaded.predict(MOLECULES), expected, rtol=0, atol=1e-9)
    whole, named = (
        json.loads((tmp_path / name / "manifest.json").read_text()) for name in ("saved", "named")
    )
    assert whole["self_contained"] is True
    assert named["self_contained"] is False
    assert named["base"]["name"] == str(checkpoint)  # `lipo model export` says that it is needed


def test_labels_and_memory_that_do_not_do_are_one_line(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = tiny_settings(checkpoint)
    with pytest.raises(ModelError, match="no finite number"):
        KernelReadout.fit(settings, MOLECULES, np.full(len(MOLECULES), np.nan))

    def full(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(kernel, "gaussian", full)
    with pytest.raises(TrainingError, match="memory ran out") as caught:
        KernelReadout.fit(settings, MOLECULES, LABELS)
    assert "--no-kernel" in str(caught.value)


def test_a_saved_ensemble_predicts_the_same_without_its_base(
    readout: KernelReadout, checkpoint: Path, tmp_path: Path
) -> None:
    networks = [tiny_regressor(checkpoint, seed=seed) for seed in (0, 1)]
    ensemble = Ensemble([*networks, readout])
    other = (1 - KERNEL_SHARE) / 2
    assert ensemble.shares == pytest.approx([other, other, KERNEL_SHARE])
    parts = [member.predict(MOLECULES) for member in ensemble.members]
    expected = np.average(parts, axis=0, weights=ensemble.shares)
    np.testing.assert_allclose(ensemble.predict(MOLECULES), expected, atol=1e-12)
    ensemble.save(tmp_path / "saved")
    for file in checkpoint.iterdir():
        file.unlink()
    loaded = load_predictor(tmp_path / "saved", device="cpu")
    np.testing.assert_allclose(loaded.predict(MOLECULES), expected, rtol=0, atol=1e-9)
    assert not list((tmp_path / "saved").rglob("*.pkl"))
    text = "".join(f.read_text() for f in (tmp_path / "saved").rglob("manifest.json"))
    assert str(tmp_path) not in text


def test_validation_chooses_the_share() -> None:
    truth = np.random.default_rng(0).normal(size=50)
    for own, other, expected in (
        (1.0, -1.0, 0.5),
        (0.2, -1.0, 0.25),
        (0.0, 1.0, 0.0),
        (3, -1, 0.75),
    ):
        assert kernel_share(truth + own, truth + other, truth) == expected
    few = slice(0, 10)  # too few rows to ask
    assert kernel_share(truth[few], truth[few] + 1, truth[few]) == KERNEL_SHARE


def test_a_saved_share_is_kept(readout: KernelReadout, checkpoint: Path, tmp_path: Path) -> None:
    ensemble = Ensemble([tiny_regressor(checkpoint), readout], kernel_share=0.25)
    assert ensemble.shares == (0.75, 0.25)
    ensemble.save(tmp_path / "saved")
    loaded = load_predictor(tmp_path / "saved", device="cpu")
    assert isinstance(loaded, Ensemble)
    assert loaded.shares == (0.75, 0.25)
    np.testing.assert_allclose(loaded.predict(MOLECULES), ensemble.predict(MOLECULES), atol=1e-9)


def test_shares_sum_to_one_whatever_the_members(readout: KernelReadout, checkpoint: Path) -> None:
    network = tiny_regressor(checkpoint)
    for members in ([readout], [network], [network, readout], [readout, network, readout]):
        assert sum(Ensemble(members).shares) == pytest.approx(1)
    assert Ensemble([network, readout]).shares == pytest.approx([1 - KERNEL_SHARE, KERNEL_SHARE])


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda folder: (folder / "kernel.safetensors").write_bytes(b"no"), "not the file"),
        (lambda folder: (folder / "kernel.safetensors").unlink(), "not the file"),
        (lambda folder: (folder / "base" / "config.json").write_text("{}"), "another"),
        (lambda folder: (folder / "base" / "tokenizer.json").write_text("{}"), "not the file"),
        (lambda folder: _without(folder, "base"), "lacks base"),
    ],
)
def test_a_damaged_folder_is_refused(readout: KernelReadout, tmp_path: Path, damage, said) -> None:
    folder = tmp_path / "saved"
    readout.save(folder)
    damage(folder)
    with pytest.raises(ModelError, match=said):
        KernelReadout.load(folder)


def _without(folder: Path, name: str) -> None:
    file = folder / "manifest.json"
    content = json.loads(file.read_text())
    del content[name]
    file.write_text(json.dumps(content))
