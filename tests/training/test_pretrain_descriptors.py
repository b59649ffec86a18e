"""Descriptor pretraining: targets, losses, the head's start, and exact resumption."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from lipo_cli.chem.descriptors import DESCRIPTORS, descriptor_matrix
from lipo_cli.errors import Interrupted
from lipo_cli.model import MolformerForMaskedLM
from lipo_cli.model.base import load_model, resolve_base
from lipo_cli.model.tokenizer import load_tokenizer
from lipo_cli.training.descriptor_targets import CLIP, DescriptorTargets, descriptor_targets
from lipo_cli.training.masking import MaskedBatch, held_out_batches
from lipo_cli.training.objectives import Objective
from lipo_cli.training.pretrain import pretrain
from tests.fixtures.corpora import regular_molecules, write_lines
from tests.fixtures.pretraining import StopAt, assert_same_bits, settings_of, without_seconds
from tests.training.test_pretrain_masking import corpus_of, spec_of

CPU = torch.device("cpu")


@pytest.fixture
def corpus_file(tmp_path: Path) -> Path:
    return write_lines(tmp_path / "corpus.smi", regular_molecules(200))


def targets_of(smiles: list[str], folder: Path, n_train: int) -> DescriptorTargets:
    return descriptor_targets(corpus_of(smiles), np.arange(n_train, dtype=np.int64), folder)


def batches_of(tiny: Path, smiles: list[str], clean: float) -> list[MaskedBatch]:
    spec = spec_of(smiles, vocabulary=load_tokenizer(tiny).get_vocab(), clean=clean)
    return held_out_batches(smiles, np.arange(len(smiles), dtype=np.int64), spec)


def objective_of(model: MolformerForMaskedLM, targets: DescriptorTargets) -> Objective:
    return Objective(
        model, tokens=True, targets=targets, weight=2.0, device=CPU, precision="float32"
    )


# Targets


def test_targets_are_standardised_by_training_molecules_and_clipped(tmp_path: Path) -> None:
    smiles = [*regular_molecules(100), "C" * 60]
    targets = targets_of(smiles, tmp_path, 100)
    raw = descriptor_matrix(smiles).astype(np.float64)
    varies = raw[:100].std(axis=0) > 1e-3
    assert varies.sum() > 40
    z = targets.of(np.arange(101))
    expected = (raw - raw[:100].mean(axis=0)) / np.where(varies, raw[:100].std(axis=0), 1)
    np.testing.assert_allclose(
        z[:, varies], np.clip(expected[:, varies], -CLIP, CLIP), rtol=1e-2, atol=1e-3
    )
    assert np.abs(z[100]).max() == CLIP
    assert (z[:100][:, ~varies] == 0).all()


def test_targets_are_computed_once_and_half_a_file_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    smiles = regular_molecules(20)
    (tmp_path / "descriptors.npy").write_bytes(b"cut short")
    first = targets_of(smiles, tmp_path, 20).of(np.arange(20))
    monkeypatch.setattr(
        "lipo_cli.training.descriptor_targets.descriptor_matrix",
        lambda _: pytest.fail("computed again"),
    )
    np.testing.assert_array_equal(targets_of(smiles, tmp_path, 20).of(np.arange(20)), first)


# Losses


def test_descriptor_loss_is_smooth_l1_of_the_pooled_output(tiny: Path, tmp_path: Path) -> None:
    smiles = regular_molecules(8)
    targets = targets_of(smiles, tmp_path, 8)
    model = load_model(MolformerForMaskedLM, resolve_base(str(tiny))).eval()
    objective = objective_of(model, targets)
    batch = batches_of(tiny, smiles, clean=0.5)[0]
    sums = objective.sums(model, batch)
    ids = torch.from_numpy(batch.input_ids)
    pooled = model.molformer(ids, (ids != 2).long()).pooler_output
    assert objective.head is not None
    aim = torch.from_numpy(targets.of(batch.rows))
    expected = nn.functional.smooth_l1_loss(objective.head(pooled), aim, reduction="sum")
    assert sums.descriptors.item() == pytest.approx(expected.item(), rel=1e-5)
    assert sums.n_descriptors == objective.n_descriptors(batch) == aim.numel()
    whole = objective.loss(sums, batch.n_asked, sums.n_descriptors)
    by_hand = sums.tokens / batch.n_asked + 2.0 * expected / aim.numel()
    assert whole.item() == pytest.approx(by_hand.item(), rel=1e-5)


def test_descriptors_that_are_unknown_weigh_nothing(tiny: Path, tmp_path: Path) -> None:
    smiles = regular_molecules(8)
    known = targets_of(smiles, tmp_path, 8)
    values = np.array(known.values)
    values[3, 5:] = np.nan
    targets = DescriptorTargets(values, known.mean, known.scale)
    model = load_model(MolformerForMaskedLM, resolve_base(str(tiny))).eval()
    batch = batches_of(tiny, smiles, clean=1.0)[0]
    part, whole = objective_of(model, targets), objective_of(model, known)
    sums = part.sums(model, batch)
    assert sums.n_descriptors == 8 * len(DESCRIPTORS) - (len(DESCRIPTORS) - 5)
    assert 0 < sums.descriptors.item() < whole.sums(model, batch).descriptors.item()
    assert np.isfinite(part.descriptor_scores(model, [batch])[0])


def test_a_descriptor_that_no_held_out_molecule_shows_has_no_r2(tiny: Path, tmp_path: Path) -> None:
    smiles = regular_molecules(60)
    known = targets_of(smiles, tmp_path, 60)
    values = np.array(known.values)
    # Standardised, a count that is zero throughout is a number whose float32 mean is another.
    values[:, 5] = known.mean[5] - 0.7123 * known.scale[5]
    targets = DescriptorTargets(values, known.mean, known.scale)
    model = load_model(MolformerForMaskedLM, resolve_base(str(tiny))).eval()
    objective = objective_of(model, targets)
    _, r2 = objective.descriptor_scores(model, batches_of(tiny, smiles, clean=1.0) * 50)
    assert np.isnan(r2[5])
    assert np.isfinite(r2).any()
    assert np.nanmin(r2) > -1e6


def test_head_starts_at_the_least_squares_solution(tiny: Path, tmp_path: Path) -> None:
    smiles = regular_molecules(200)
    targets = targets_of(smiles, tmp_path, 200)
    model = load_model(MolformerForMaskedLM, resolve_base(str(tiny))).eval()
    objective = objective_of(model, targets)
    batches = batches_of(tiny, smiles, clean=1.0)
    before, _ = objective.descriptor_scores(model, batches)
    objective.start_head(model, batches)
    after, r2 = objective.descriptor_scores(model, batches)
    assert after < 0.8 * before
    # Residuals of a least-squares fit with an intercept have mean zero, descriptor by descriptor.
    features, aimed = objective._pooled(model, batches)
    assert objective.head is not None
    residual = objective.head(features).detach().numpy() - aimed
    assert np.abs(residual.mean(axis=0)).max() < 1e-3
    assert np.nanmin(r2) > -1e-3


# Whole runs


def test_both_objectives_are_learned_and_reported(corpus_file: Path, tmp_path: Path) -> None:
    settings = settings_of(
        corpus_file, objective="both", steps=200, evaluate_every=50, learning_rate=1e-3, dropout=0.0
    )
    result = pretrain(settings, tmp_path / "out")
    first, early, *_, last = result.history
    # From the second row: the head starts at an optimum that the first steps leave.
    assert last["val_descriptor_loss"] < 0.6 * early["val_descriptor_loss"]
    assert last["val_descriptor_r2"] > 0.6
    assert last["val_loss"] < 0.8 * first["val_loss"]
    assert result.val_descriptor_r2 == last["val_descriptor_r2"]
    report = json.loads((tmp_path / "out" / "pretrain.json").read_text())
    assert report["objective"] == "both"
    assert set(report["descriptor_r2"]) == set(DESCRIPTORS)
    assert report["descriptor_r2"]["tpsa"] > 0.3
    names = set(load_file(tmp_path / "out" / "model.safetensors"))
    assert names == set(
        load_model(MolformerForMaskedLM, resolve_base(str(tmp_path / "out"))).state_dict()
    )


def test_descriptors_alone_leave_the_lm_head_as_it_was(
    corpus_file: Path, tiny: Path, tmp_path: Path
) -> None:
    settings = settings_of(
        corpus_file, objective="descriptors", model=str(tiny), steps=5, learning_rate=1e-2
    )
    result = pretrain(settings, tmp_path / "out")
    assert result.val_loss is None
    assert result.unigram_loss is None
    assert "val_loss" not in result.history[-1]
    before, after = (
        load_file(tiny / "model.safetensors"),
        load_file(tmp_path / "out" / "model.safetensors"),
    )
    for name, value in before.items():
        if name.startswith("lm_head."):
            assert torch.equal(after[name], value)
    assert not torch.equal(
        after["molformer.embeddings.word_embeddings.weight"],
        before["molformer.embeddings.word_embeddings.weight"],
    )


def test_stopped_run_of_both_objectives_goes_on_to_the_same_bits(
    corpus_file: Path, tmp_path: Path
) -> None:
    settings = settings_of(corpus_file, objective="both", accumulate=2)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    straight = pretrain(settings, whole)
    for step in (7, 4):
        with pytest.raises(Interrupted):
            pretrain(settings, parts, stop=StopAt(step))
    resumed = pretrain(settings, parts)
    assert_same_bits(whole, parts)
    assert without_seconds(resumed.history) == without_seconds(straight.history)


def test_limit_reads_the_first_lines_only(corpus_file: Path, tmp_path: Path) -> None:
    result = pretrain(settings_of(corpus_file, limit=50, steps=1), tmp_path / "out")
    assert result.corpus.n_read == 50
