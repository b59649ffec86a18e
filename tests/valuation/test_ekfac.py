"""EK-FAC against the dense curvature where it is exact, and against its definition by hand."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from lipo_cli.errors import SettingsError, ValuationError
from lipo_cli.settings import InfluenceSettings, build
from lipo_cli.valuation import ekfac
from lipo_cli.valuation.ekfac import linear_maps
from lipo_cli.valuation.gradients import OutputGradients
from lipo_cli.valuation.influence import influence
from tests.fixtures.influence import FOLDS, POOL, M, N, molecules
from tests.fixtures.models import disturb, tiny_checkpoint, tiny_regressor


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_checkpoint(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def regressor(folder):
    """Returns a LoRA model in float64."""
    pytest.importorskip("kronfluence", reason="kronfluence is not installed (lipo[ekfac])")
    return disturbed(folder, "lora")


def disturbed(folder, peft):
    found = tiny_regressor(folder, peft)
    disturb(found)
    found.model.double().eval()
    return found


def valued(regressor, part="all", *, by_row=False, fold_of=FOLDS, **settings):
    given = InfluenceSettings(**{"solver": "ekfac", "damping": 0.05, **settings})
    gradients = OutputGradients(regressor, part)
    return influence(gradients, *molecules(), given, fold_of=fold_of, by_row=by_row)


def test_of_one_linear_map_the_values_are_the_exact_ones(regressor):
    found, truth = valued(regressor, "output"), valued(regressor, "output", solver="exact")
    np.testing.assert_allclose(found.values, truth.values, rtol=1e-3)
    np.testing.assert_allclose(found.fold_values, truth.fold_values, rtol=1e-3)
    assert found.damping == pytest.approx(truth.damping, rel=1e-2)
    assert (np.sign(found.values) == np.sign(truth.values)).all()
    assert found.left_out == ()


def by_hand(regressor, share: float) -> np.ndarray:
    """Returns the head's values by EK-FAC's definition, in NumPy, from each map's own numbers.

    For a map with inputs a_i (and a one for the bias) and slopes s_i = d f_i / d output, the
    gradient of molecule i is s_i a_i^T. The block of the curvature is diagonal in the product of
    the eigenbases of sum a a^T and sum s s^T, with the second moments along it on the diagonal.
    """
    head = regressor.head()
    parts = molecules()
    seen: dict[str, list[torch.Tensor]] = {}

    def keep(name):
        def hook(_, inputs, output):
            output.retain_grad()
            seen[name] = [inputs[0].detach(), output]

        return hook

    names = ("dense", "dense2", "out_proj")
    handles = [getattr(head, name).register_forward_hook(keep(name)) for name in names]
    gradients: dict[str, list[np.ndarray]] = {name: [] for name in names}
    bases, errors = {}, []
    for part in parts:
        output = head(torch.from_numpy(regressor.embed(part.smiles)))[:, 0]
        output.sum().backward()
        errors.append(output.detach().numpy() - part.labels)
        for name in names:
            a = np.c_[seen[name][0].numpy(), np.ones(len(part))]
            s = seen[name][1].grad.numpy()
            if len(gradients[name]) == 0:
                bases[name] = np.linalg.eigh(s.T @ s)[1], np.linalg.eigh(a.T @ a)[1]
            gradients[name].append(np.einsum("no,ni->noi", s, a))
    for handle in handles:
        handle.remove()
    regressor.model.zero_grad()
    turned = {
        name: [np.einsum("po,npi,ij->noj", bases[name][0], g, bases[name][1]) for g in found]
        for name, found in gradients.items()
    }
    moments = {name: 2 * (found[0] ** 2).mean(axis=0) for name, found in turned.items()}
    damping = share * max(moment.max() for moment in moments.values())
    values = np.zeros(POOL)
    for name, (_, target, points) in turned.items():
        of_target = np.einsum("n,noi->oi", 2 * errors[1] / M, target)
        of_points = 2 * errors[2][:, None, None] * points
        values += (of_points * of_target / (moments[name] + damping)).sum(axis=(1, 2)) / N
    return values


def test_of_several_maps_the_values_follow_the_definition(regressor):
    found, truth = valued(regressor, "head"), by_hand(regressor, 0.05)
    assert np.abs(found.values - truth).max() < 1e-3 * np.abs(truth).max()
    assert found.n_maps == 3


def test_of_a_whole_lora_model_the_values_rank_as_the_exact_ones(regressor):
    found, truth = valued(regressor), valued(regressor, solver="exact")
    rank = spearmanr(found.values, truth.values).statistic
    assert rank > 0.9  # 0.96
    assert found.n_parameters == truth.n_parameters
    sentence = found.sentence()
    assert "EK-FAC on" in sentence
    assert "not counted" not in sentence


def test_parts_by_fold_and_by_row_sum_to_the_values(regressor):
    by_fold, by_row = valued(regressor, "head"), valued(regressor, "head", by_row=True)
    np.testing.assert_allclose(by_fold.fold_values.sum(axis=1), by_fold.values, rtol=1e-9)
    np.testing.assert_allclose(by_row.fold_values, by_fold.fold_values, rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(by_row.by_row.mean(axis=1), by_fold.values, rtol=1e-6)
    means = by_fold.fold_values * 4  # folds of equal size
    expected = means.std(axis=1, ddof=1) / 2
    np.testing.assert_allclose(by_fold.standard_error, expected, rtol=1e-9)
    assert (by_fold.freedom, by_row.freedom) == (3, M - 1)
    # Little room: rows are held in turns, and the points read again for each.
    scarce = valued(regressor, "head", by_row=True, table_gib=1e-9)
    np.testing.assert_allclose(scarce.by_row, by_row.by_row, rtol=1e-9)
    absent = valued(regressor, "head", fold_of=np.where(FOLDS == 1, 2, FOLDS))
    assert (absent.fold_values[:, 1] == 0).all()
    np.testing.assert_allclose(absent.values, by_fold.values, rtol=1e-9)


def test_the_model_is_left_as_it_was_and_nothing_lies_about(regressor, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    level = logging.getLogger("kronfluence").level
    before = {name: (type(m), m.training) for name, m in regressor.model.named_modules()}
    trained = [name for name, p in regressor.model.named_parameters() if p.requires_grad]
    valued(regressor, curvature_rows=10)
    assert {name: (type(m), m.training) for name, m in regressor.model.named_modules()} == before
    assert [n for n, p in regressor.model.named_parameters() if p.requires_grad] == trained
    assert list(tmp_path.iterdir()) == []
    assert logging.getLogger("kronfluence").level == level


def test_fewer_curvature_rows_are_drawn_by_the_seed(regressor):
    first, again, other = (
        valued(regressor, "output", curvature_rows=20, seed=seed) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first.values, again.values)
    assert not np.array_equal(first.values, other.values)
    assert first.n_curvature == 20


def test_what_has_no_block_is_counted_and_named(folder):
    full = tiny_regressor(folder, "full")
    seen = linear_maps(OutputGradients(full))
    assert set(seen.left_out) == {"Embedding", "LayerNorm"}
    total = sum(p.numel() for p in full.model.parameters() if p.requires_grad)
    assert seen.n_parameters + sum(seen.left_out.values()) == total


@pytest.mark.parametrize("peft", ["bitfit", "ia3"])
def test_a_method_without_linear_maps_is_refused_but_its_head_is_not(folder, peft):
    found = tiny_regressor(folder, peft)
    with pytest.raises(ValuationError, match="none below its head") as caught:
        linear_maps(OutputGradients(found))
    assert "take --parameters head" in str(caught.value)
    assert len(linear_maps(OutputGradients(found, "head")).maps) == 3


def test_a_map_that_a_molecule_goes_through_twice_is_refused(folder):
    pytest.importorskip("kronfluence", reason="kronfluence is not installed (lipo[ekfac])")
    twice = disturbed(folder, "full")
    twice.head().dense2 = twice.head().dense
    with pytest.raises(ValuationError, match="used several times"):
        valued(twice, "head")


def test_gradients_that_vanish_are_one_line(folder):
    pytest.importorskip("kronfluence", reason="kronfluence is not installed (lipo[ekfac])")
    still = disturbed(folder, "lora")
    still.head().label_scale.zero_()
    with pytest.raises(ValuationError, match="largest eigenvalue of EK-FAC's curvature is 0"):
        valued(still, "head")
    still.head().label_scale.fill_(torch.nan)
    with pytest.raises(ValuationError, match="largest eigenvalue of EK-FAC's curvature is nan"):
        valued(still, "head")


def test_without_the_library_one_line_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(ekfac, "find_spec", lambda _: None)
    with pytest.raises(SettingsError) as caught:
        ekfac.require_kronfluence()
    assert "pip install 'lipo[ekfac]'" in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("peft", ["bitfit", "ia3"])
def test_methods_without_maps_are_refused_before_anything_is_trained(peft, monkeypatch):
    monkeypatch.setattr(ekfac, "find_spec", lambda _: object())
    with pytest.raises(ValuationError, match="none below its head"):
        ekfac.check_ekfac(InfluenceSettings(solver="ekfac"), peft)
    ekfac.check_ekfac(InfluenceSettings(solver="ekfac", part="head"), peft)
    ekfac.check_ekfac(InfluenceSettings(solver="ekfac"), "lora")
    ekfac.check_ekfac(InfluenceSettings(), peft)


def test_the_hessian_is_not_what_it_approximates():
    with pytest.raises(SettingsError, match="Gauss-Newton"):
        build(InfluenceSettings, {"solver": "ekfac", "curvature": "hessian"})


def test_only_its_own_modules_need_the_library():
    for path in Path(ekfac.__file__).parent.glob("*.py"):
        imports = "from kronfluence" in path.read_text(encoding="utf-8")
        assert imports == (path.name in ("ekfac_factors.py", "ekfac_task.py")), path.name
