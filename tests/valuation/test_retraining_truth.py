"""The linear datamodelling score (Park et al. 2023): do values foresee what random halves do?"""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.linear_model import Ridge

from lipo_cli.settings import InfluenceSettings, TsdsSettings
from lipo_cli.valuation.influence import Molecules, influence
from lipo_cli.valuation.proxy import leave_one_out_values, make_proxy
from lipo_cli.valuation.tsds import ts_dshapley
from tests.fixtures.influence import LastLayer
from tests.fixtures.models import (
    assembled_molecules,
    disturb,
    tiny_checkpoint,
    tiny_regressor,
)

N_TRAIN, N_TARGET, N_POOL, N_HALVES = 60, 80, 80, 60


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Returns the regressor, train, target and a pool of which half the labels are shuffled."""
    regressor = tiny_regressor(tiny_checkpoint(tmp_path_factory.mktemp("tiny")), "ia3")
    disturb(regressor)
    regressor.model.double().eval()
    smiles, labels = assembled_molecules()
    rng = np.random.default_rng(0)
    parts = np.split(rng.permutation(len(smiles)), np.cumsum([N_TRAIN, N_TARGET, N_POOL]))
    train, target, pool = (Molecules([smiles[i] for i in p], labels[p]) for p in parts[:3])
    wrong = rng.permutation(N_POOL)[: N_POOL // 2]
    noisy = pool.labels.copy()
    noisy[wrong] = rng.permutation(noisy[wrong])
    return regressor, train, target, Molecules(pool.smiles, noisy)


@pytest.fixture(scope="module")
def layer(world):
    regressor, train, _, _ = world
    return LastLayer(regressor, train, share=0.01)


@pytest.fixture(scope="module")
def halves():
    rng = np.random.default_rng(1)
    return [np.sort(rng.permutation(N_POOL)[: N_POOL // 2]) for _ in range(N_HALVES)]


@pytest.fixture(scope="module")
def gains_of_layer(world, layer, halves):
    """Returns [k] how far each half lowers the target loss of the network, its last layer refit."""
    _, _, target, pool = world
    without = layer.loss_with(pool.take(np.arange(0)), target)
    return np.array([without - layer.loss_with(pool.take(half), target) for half in halves])


@pytest.fixture(scope="module")
def features(world):
    """Returns embeddings of train, pool and target, and the proxy on them."""
    regressor, train, target, pool = world
    z = [regressor.embed(part.smiles) for part in (train, pool, target)]
    settings = TsdsSettings(components=8, folds=5)
    return z, make_proxy(z[0], train.labels, z[1], pool.labels, z[2], target.labels, settings)


@pytest.fixture(scope="module")
def gains_of_ridge(world, features, halves):
    """Returns [k] the same of scikit-learn's ridge fit on the embeddings, refit to each half."""
    _, train, target, pool = world
    z, proxy = features
    x, of_pool, of_target = map(proxy.projection.transform, z)

    def loss_with(rows):
        labels = np.concatenate([train.labels, pool.labels[rows]])
        fit = Ridge(alpha=proxy.ridge).fit(np.vstack([x, of_pool[rows]]), labels)
        return np.mean((fit.predict(of_target) - target.labels) ** 2)

    without = loss_with(np.arange(0))
    return np.array([without - loss_with(half) for half in halves])


def foreseen(values, halves, gains):
    """Returns the rank correlation over halves and its bootstrapped 95 % interval."""
    sums, rng = np.array([values[half].sum() for half in halves]), np.random.default_rng(2)
    drawn = [
        spearmanr(sums[some], gains[some]).statistic
        for some in rng.integers(N_HALVES, size=(300, N_HALVES))
    ]
    return spearmanr(sums, gains).statistic, *np.quantile(drawn, [0.025, 0.975])


def test_influence_foresees_what_random_halves_do_to_the_last_layer(
    world, layer, halves, gains_of_layer
):
    _, train, target, pool = world
    settings, folds = InfluenceSettings(damping=0.01), np.arange(N_TARGET) % 5
    with layer.trained() as gradients:
        found = influence(gradients, train, target, pool, settings, fold_of=folds)
    score, low, high = foreseen(found.values, halves, gains_of_layer)
    assert 0 < low < score < high


@pytest.mark.parametrize("method", ["tsds", "loo"])
def test_proxy_values_foresee_what_random_halves_do_to_a_refitted_ridge(
    features, halves, gains_of_ridge, method
):
    _, proxy = features
    if method == "loo":
        values = leave_one_out_values(proxy).values
    else:
        values = ts_dshapley(proxy.game, TsdsSettings()).values
    score, low, high = foreseen(values, halves, gains_of_ridge)
    assert 0 < low < score < high


def test_values_without_content_foresee_nothing(halves, gains_of_ridge):
    found = 0
    for seed in range(20):
        values = np.random.default_rng(seed).normal(size=N_POOL)
        _, low, high = foreseen(values, halves, gains_of_ridge)
        found += not low <= 0 <= high
    assert found <= 4
