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
from retraining import (
    Model,
    Score,
    Truth,
    main,
    measure_truth,
    permuted_ranks,
    rank_correlations,
    retrained_squares,
)
from valued import Valued, World

from lipo_cli.training.examples import Examples

FOLDS = np.repeat(np.arange(5), 4)


def made_truth(
    weights: np.ndarray, *, n_subsets: int = 80, starts: np.ndarray | None = None
) -> Truth:
    """Makes a truth whose falls are sums of weights [n], or of weights by target row [n, m]."""
    rng = np.random.default_rng(0)
    members = (rng.random((n_subsets, len(weights))) < 0.5).astype(float)
    by_row = weights if weights.ndim == 2 else np.repeat(weights[:, None], len(FOLDS), axis=1)
    squares = 100.0 - np.concatenate([np.zeros((1, by_row.shape[1])), members @ by_row])
    if starts is None:
        return Truth(members, squares[None], 0.1)
    noise = np.concatenate([np.zeros((len(starts), 1)), starts], axis=1)
    return Truth(members, squares[None] - noise[:, :, None], 0.1)


def scored(truth: Truth, values: np.ndarray, folds: np.ndarray | None = None) -> Model:
    return Model({"method": Valued(values, folds)}, truth, FOLDS)


def test_ranks_are_those_of_scipy() -> None:
    a, b = np.random.default_rng(0).normal(size=(2, 7, 20))
    a[:, 3] = a[:, 4]  # a tie
    expected = [spearmanr(x, y).statistic for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(rank_correlations(a, b), expected)


def test_values_that_are_the_truth_score_one_and_their_opposite_minus_one() -> None:
    weights = np.random.default_rng(1).normal(size=30)
    truth = made_truth(weights)
    models = [scored(truth, weights), scored(truth, -weights)]
    score = Score.of([model.same_rows("method") for model in models[:1]])
    assert (score.mean, score.low, score.high) == pytest.approx((1.0, 1.0, 1.0))
    both = Score.of([model.same_rows("method") for model in models])
    assert both.each == pytest.approx((1.0, -1.0))
    assert both.mean == pytest.approx(0.0)


def test_values_of_other_rows_are_judged_on_the_rest() -> None:
    """Each row has weights of its own: values that know the rows which set them know no others."""
    weights = np.random.default_rng(2).normal(size=(30, len(FOLDS)))
    parts = np.stack([weights[:, f == FOLDS].sum(axis=1) / len(FOLDS) for f in range(5)], axis=1)
    model = scored(made_truth(weights, n_subsets=400), parts.sum(axis=1), parts)
    assert Score.of([model.same_rows("method")]).mean == pytest.approx(1.0)
    others = Score.of([model.other_rows("method")])
    assert len(model.other_rows("method")) == 20
    assert abs(others.mean) < 0.25
    assert others.mean == pytest.approx(model.agreement_of_rows())
    # What all rows have in common is found on the others, too.
    common = weights[:, :1] * np.ones(len(FOLDS))
    shared = np.stack([common[:, f == FOLDS].sum(axis=1) / len(FOLDS) for f in range(5)], axis=1)
    model = scored(made_truth(common), shared.sum(axis=1), shared)
    assert Score.of([model.other_rows("method")]).mean == pytest.approx(1.0)


def test_no_row_both_sets_and_judges() -> None:
    model = scored(made_truth(np.ones(6)), np.ones(6))
    for some, rows in model.splits():
        assert set(FOLDS[rows]) == set(range(5)) - set(some)
        assert 0 < rows.sum() < len(rows)


def test_the_interval_of_a_method_that_knows_nothing_holds_zero() -> None:
    weights, others = np.random.default_rng(2).normal(size=(2, 30))
    truth = made_truth(weights, n_subsets=200)
    centred = truth.members - truth.members.mean(axis=0)
    # Rid of what it has in common with the truth on these very subsets.
    share = (centred @ others) @ (centred @ weights) / np.sum((centred @ weights) ** 2)
    score = Score.of([scored(truth, others - share * weights).same_rows("method")])
    assert abs(score.mean) < 0.1
    assert score.low < 0 < score.high


@pytest.mark.parametrize("others", [False, True])
def test_values_without_content_seldom_have_a_small_p(
    others: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where they are the same for all folds and beside all models, whose truths agree."""
    monkeypatch.setattr(retraining, "N_CHANCE", 200)
    rng = np.random.default_rng(3)
    small = 0
    for _ in range(60):
        common = rng.normal(size=(40, 1))
        truths = [
            made_truth(common + 0.5 * rng.normal(size=(40, len(FOLDS))), n_subsets=40)
            for _ in range(3)
        ]
        values = rng.normal(size=40)
        models = [scored(truth, values) for truth in truths]
        pairs = Model.other_rows if others else Model.same_rows
        score = Score.of([pairs(model, "method") for model in models]).mean
        small += np.mean(abs(permuted_ranks(models, "method", others=others)) >= abs(score)) < 0.05
    assert small <= 8  # 5 % of 60 are 3, three standard deviations above are 8


def test_one_deal_holds_for_all_folds_and_models() -> None:
    truth = made_truth(np.random.default_rng(3).normal(size=300), n_subsets=50)
    values = np.random.default_rng(4).normal(size=300)
    model = scored(truth, values, np.repeat(values[:, None] / 5, 5, axis=1))
    found = permuted_ranks([model], "method", others=False)
    assert len(found) == 2_000
    # Of independent ranks 1/sqrt(49); the truth of these halves adds what 300 points leave.
    assert found.std() == pytest.approx(1 / 7, rel=0.15)
    np.testing.assert_allclose(permuted_ranks([model] * 4, "method", others=False), found)
    # The rows of this truth agree, and so do the parts of the values.
    np.testing.assert_allclose(permuted_ranks([model], "method", others=True), found)


def test_values_that_are_all_alike_foresee_nothing() -> None:
    model = scored(made_truth(np.random.default_rng(3).normal(size=30)), np.zeros(30))
    assert Score.of([model.same_rows("method")]).mean == 0.0
    assert np.mean(abs(permuted_ranks([model], "method", others=False)) >= 0.0) == 1.0


def test_a_head_retrained_for_long_is_the_least_squares_fit() -> None:
    rng = np.random.default_rng(0)
    x, weights = rng.normal(size=(200, 4)), rng.normal(size=4)
    y = x @ weights + 0.1 * rng.normal(size=200)
    fitted = np.linalg.lstsq(np.c_[x, np.ones(200)], y, rcond=None)[0]
    expected = float(np.mean((np.c_[x, np.ones(200)] @ fitted - y) ** 2))
    torch.manual_seed(0)
    found = retrained_squares(torch.nn.Linear(4, 1), x, y, x, y, steps=4000)
    assert found.shape == (200,)
    assert found.mean() == pytest.approx(expected, rel=1e-3)
    start = retrained_squares(torch.nn.Linear(4, 1), x, y, x, y, steps=0)
    assert start.mean() > 10 * found.mean()


def test_the_ceiling_is_what_a_method_that_knows_the_truth_scores() -> None:
    rng = np.random.default_rng(0)
    weights = rng.normal(size=30)
    assert made_truth(weights).ceiling() is None
    gains = made_truth(weights, n_subsets=400).gains()
    for noise, n_starts in ((0.5, 2), (1.0, 2), (1.0, 5)):
        starts = noise * gains.std() * rng.normal(size=(n_starts, 400))
        truth = made_truth(weights, n_subsets=400, starts=starts)
        score = Score.of([scored(truth, weights).same_rows("method")])
        assert truth.ceiling() == pytest.approx(score.mean, abs=0.05)
    opposite = made_truth(weights, n_subsets=400, starts=np.stack([0 * gains, -2 * gains]))
    assert opposite.ceiling() == 0


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
    foreseen = truth.members @ -wrong.astype(float)
    assert rank_correlations(foreseen, truth.gains()) > 0.8


def test_every_method_is_in_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_bench(tmp_path)
    page = tmp_path / "docs" / "page.md"
    asked = [
        *("--data", str(tmp_path / "primary.csv"), "--model", str(tmp_path / "model")),
        *("--secondary", str(tmp_path / "secondary.csv"), "--quick", "--page", str(page)),
    ]
    assert main(asked) == 0
    text = capsys.readouterr().out
    assert "| values dealt at random, 95 % of deals |" in text
    assert "| chance |" not in text
    for method in ("error of the model", "tsds", "knn", "loo", "influence, all"):
        assert text.count(f"| {method} |") == 1
    assert "Retraining truth (secondary)" in text
    figure = page.parent / "figures" / "retraining_secondary.png"
    assert figure.stat().st_size > 10_000
    assert "retraining-secondary:begin" in page.read_text(encoding="utf-8")
    with pytest.raises(SystemExit):
        retraining.parse(["--subsets", "2"])
