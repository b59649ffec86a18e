"""Projection and penalty: fitted on primary train, equal to scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge
from sklearn.model_selection import KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from lipo_cli.errors import ValuationError
from lipo_cli.valuation.projection import PENALTIES, choose_ridge, fit_projection

RNG = np.random.default_rng(0)
X = RNG.normal(size=(80, 12)) @ RNG.normal(size=(12, 12)) + 3
Y = X @ RNG.normal(size=12) * 0.1 + RNG.normal(size=80)


def test_features_equal_the_sklearn_pipeline():
    expected = make_pipeline(StandardScaler(), PCA(5, svd_solver="full")).fit(X)
    projection = fit_projection(X, 5)
    new = RNG.normal(size=(7, 12))
    np.testing.assert_allclose(
        np.abs(projection.transform(new)), np.abs(expected.transform(new)), atol=1e-9
    )
    np.testing.assert_allclose(projection.transform(X).mean(axis=0), 0, atol=1e-12)
    assert projection.explained == pytest.approx(expected[1].explained_variance_ratio_.sum())


@pytest.mark.parametrize(("rows", "wanted", "kept"), [(80, 100, 12), (6, 100, 5), (80, 3, 3)])
def test_components_are_capped(rows, wanted, kept):
    assert fit_projection(X[:rows], wanted).transform(X).shape == (80, kept)


def test_all_components_keep_distances():
    z = fit_projection(X, 12).transform(X)
    scaled = (X - X.mean(axis=0)) / X.std(axis=0)
    np.testing.assert_allclose(z @ z.T, scaled @ scaled.T, atol=1e-9)


def test_a_constant_column_does_no_harm():
    x = np.column_stack([X, np.full(80, 7.0)])
    assert np.isfinite(fit_projection(x, 13).transform(x)).all()


def test_the_penalty_is_the_best_of_sklearn_cross_validation():
    z = fit_projection(X, 12).transform(X)
    candidates = PENALTIES * np.linalg.norm(z - z.mean(axis=0), ord=2) ** 2
    losses = [
        sum(
            ((Ridge(alpha=a).fit(z[i], Y[i]).predict(z[j]) - Y[j]) ** 2).sum()
            for i, j in KFold(5, shuffle=True, random_state=3).split(z)
        )
        for a in candidates
    ]
    best = candidates[int(np.argmin(losses))]
    assert choose_ridge(z, Y, folds=5, seed=3) == pytest.approx(best)
    assert candidates[0] < best < candidates[-1]


def test_pure_noise_wants_a_large_penalty_and_no_noise_a_small_one():
    z = RNG.normal(size=(300, 30))
    noisy = choose_ridge(z, RNG.normal(size=300))
    clean = choose_ridge(z, z @ RNG.normal(size=30))
    assert clean < 1e-3 < 30 < noisy


def test_unusable_input_is_refused():
    with pytest.raises(ValuationError, match="constant"):
        choose_ridge(np.ones((20, 2)), np.arange(20))
    with pytest.raises(ValuationError, match="folds"):
        choose_ridge(X[:6], Y[:6])
    with pytest.raises(ValuationError, match="two or more"):
        fit_projection(X[:1], 3)
    with pytest.raises(ValuationError, match="non-finite"):
        fit_projection(np.full((5, 2), np.nan), 2)
    with pytest.raises(ValuationError, match="12 columns"):
        fit_projection(X, 3).transform(X[:, :5])
