"""The benchmark of retraining: its truth is a head's, and a method that knows it scores 1."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from tests.fixtures.bench import make_bench
from tests.fixtures.models import assembled_molecules, tiny_checkpoint, tiny_regressor

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import retraining
from retraining import Truth, chance_ranks, main, measure_truth, retrained_loss, scores
from valued import World

from lipo_cli.training.examples import Examples


def made_truth(weights: np.ndarray, *, noise: float = 0.0, n_subsets: int = 80) -> Truth:
    rng = np.random.default_rng(0)
    members = (rng.random((n_subsets, len(weights))) < 0.5).astype(float)
    gains = members @ weights + noise * rng.normal(size=n_subsets)
    return Truth(members, gains, gains[None], 1.0, 0.1)


def test_values_that_are_the_truth_score_one_and_their_opposite_minus_one() -> None:
    weights = np.random.default_rng(1).normal(size=30)
    truth = made_truth(weights)
    rank, low, high, pearson = scores(truth, weights)
    assert (rank, low, high, pearson) == pytest.approx((1.0, 1.0, 1.0, 1.0))
    assert scores(truth, -weights)[0] == pytest.approx(-1.0)


def test_the_interval_of_a_method_that_knows_nothing_holds_zero() -> None:
    weights, others = np.random.default_rng(2).normal(size=(2, 30))
    truth = made_truth(weights, n_subsets=200)
    centred = truth.members - truth.members.mean(axis=0)
    # Rid of what it has in common with the truth on these very subsets.
    share = (centred @ others) @ (centred @ weights) / np.sum((centred @ weights) ** 2)
    rank, low, high, pearson = scores(truth, others - share * weights)
    assert pearson == pytest.approx(0, abs=1e-12)
    assert abs(rank) < 0.1
    assert low < 0 < high


def test_random_values_rank_halves_as_widely_as_ranks_of_noise_do() -> None:
    truth = made_truth(np.random.default_rng(3).normal(size=300), n_subsets=50)
    found = chance_ranks(truth)
    assert len(found) == 10_000
    some = np.random.default_rng(1).normal(size=(300, 10_000))[:, 7]
    expected = spearmanr(truth.members @ some, truth.gains).statistic
    assert found[7] == pytest.approx(expected)
    assert abs(found.mean()) < 0.02
    # Of independent ranks 1/sqrt(49); the truth of these halves adds what 300 points leave.
    assert found.std() == pytest.approx(1 / 7, rel=0.15)


def test_a_head_retrained_for_long_is_the_least_squares_fit() -> None:
    rng = np.random.default_rng(0)
    x, weights = rng.normal(size=(200, 4)), rng.normal(size=4)
    y = x @ weights + 0.1 * rng.normal(size=200)
    fitted = np.linalg.lstsq(np.c_[x, np.ones(200)], y, rcond=None)[0]
    expected = float(np.mean((np.c_[x, np.ones(200)] @ fitted - y) ** 2))
    torch.manual_seed(0)
    found = retrained_loss(torch.nn.Linear(4, 1), x, y, x, y, steps=4000)
    assert found == pytest.approx(expected, rel=1e-3)
    start = retrained_loss(torch.nn.Linear(4, 1), x, y, x, y, steps=0)
    assert start > 10 * found


def test_the_ceiling_is_what_a_method_that_knows_the_truth_scores() -> None:
    rng = np.random.default_rng(0)
    weights = rng.normal(size=30)
    members = (rng.random((400, 30)) < 0.5).astype(float)
    gains = members @ weights
    assert made_truth(weights).ceiling() is None
    for noise, starts in ((0.5, 2), (1.0, 2), (1.0, 5)):
        by_start = gains + noise * gains.std() * rng.normal(size=(starts, 400))
        truth = Truth(members, by_start.mean(axis=0), by_start, 1.0, 0.1)
        assert truth.ceiling() == pytest.approx(scores(truth, weights)[0], abs=0.05)
    opposite = np.stack([gains, -gains])
    assert Truth(members, gains, opposite, 1.0, 0.1).ceiling() == 0


def test_halves_that_hold_wrong_labels_gain_less(tmp_path: Path) -> None:
    """The sign of the truth, and that a half trains on what it is said to hold."""
    smiles, labels = assembled_molecules()
    order = np.random.default_rng(0).permutation(len(smiles))
    parts = [
        Examples([smiles[i] for i in part], labels[part].copy())
        for part in np.split(order[:150], [30, 90])
    ]
    wrong = np.arange(len(parts[2])) % 2 == 0
    parts[2].labels[wrong] += 6 * labels.std()
    regressor = tiny_regressor(tiny_checkpoint(tmp_path / "tiny"))
    regressor.set_label_scale(parts[0].labels)
    truth = measure_truth(World.of(regressor, *parts), n_subsets=24, n_starts=1, steps=60)
    assert truth.members.sum(axis=1).tolist() == [30] * 24
    assert scores(truth, -wrong.astype(float))[0] > 0.8


def test_every_method_is_in_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_bench(tmp_path)
    page = tmp_path / "docs" / "page.md"
    asked = [
        *("--data", str(tmp_path / "primary.csv"), "--model", str(tmp_path / "model")),
        *("--secondary", str(tmp_path / "secondary.csv"), "--quick", "--page", str(page)),
    ]
    assert main(asked) == 0
    text = capsys.readouterr().out
    assert "| random values, 95 % of them |" in text
    assert "| chance |" not in text
    for method in ("error of the model", "tsds", "knn", "loo", "influence, all"):
        assert text.count(f"| {method} |") == 1
    assert "Retraining truth (secondary)" in text
    figure = page.parent / "figures" / "retraining_secondary.png"
    assert figure.stat().st_size > 10_000
    assert "retraining-secondary:begin" in page.read_text(encoding="utf-8")
    with pytest.raises(SystemExit):
        retraining.parse(["--subsets", "2"])
