"""TS-DShapley: known games, error bars that mean what they say, reproducibility, failures."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from lipo_cli.errors import SettingsError, ValuationError
from lipo_cli.settings import TsdsSettings
from lipo_cli.valuation.proxy import make_proxy
from lipo_cli.valuation.removal import optimal_subset
from lipo_cli.valuation.sampling import AntitheticPairs, SubsetChains, make_sampler
from lipo_cli.valuation.stopping import MaxPermutations, RelativeStandardError
from lipo_cli.valuation.tsds import CHECK_EVERY, row_errors, ts_dshapley
from tests.fixtures.games import (
    AdditiveGame,
    FunctionGame,
    RidgeProblem,
    airport_game,
    glove_game,
    ridge_problem,
    shapley_over_permutations,
)

WHOLE = TsdsSettings(game="empty", subset_fraction=(1.0, 1.0), max_permutations=3000)


class Listener:
    """Records what a computation reports."""

    def __init__(self):
        self.total, self.done, self.fields, self.finished = None, 0, [], False

    def start(self, name, total, unit):
        self.total = total

    def advance(self, n=1, **fields):
        self.done += n
        self.fields.append(fields)

    def finish(self):
        self.finished = True


@pytest.mark.parametrize("game", ["secondary", "empty"])
def test_an_additive_game_is_solved_without_error(game):
    worths = np.random.default_rng(0).normal(size=(12, 3))
    result = ts_dshapley(AdditiveGame(worths), TsdsSettings(game=game, min_permutations=100))
    np.testing.assert_allclose(result.fold_values, worths, atol=1e-12)
    np.testing.assert_allclose(result.values, worths.sum(axis=1), atol=1e-12)
    np.testing.assert_allclose(result.standard_error, 0, atol=1e-12)
    assert result.converged
    assert result.n_permutations == 100


@pytest.mark.parametrize("settings", [WHOLE, TsdsSettings(max_permutations=3000)])
@pytest.mark.parametrize("known", [glove_game(), airport_game([8.0, 1.0, 5.0, 5.0, 2.0])])
def test_known_games_are_met_within_their_error(settings, known):
    game, expected = known
    result = ts_dshapley(game, settings, stop=MaxPermutations(3000))
    assert (np.abs(result.values - expected) <= 4 * result.standard_error + 1e-12).all()
    assert result.standard_error.max() < 0.05 * np.ptp(expected) + 0.01


def test_known_values_of_the_fixtures_equal_enumeration():
    for game, expected in (glove_game(), airport_game([8.0, 1.0, 5.0, 5.0, 2.0])):
        np.testing.assert_allclose(shapley_over_permutations(game)[:, 0], expected, atol=1e-14)


@pytest.mark.parametrize("base", [True, False])
def test_sampled_values_equal_brute_force_within_their_error(base):
    problem = ridge_problem(n_players=6, corrupted=1)
    game = problem.on_top() if base else problem.from_empty()
    settings = TsdsSettings(max_permutations=8000) if base else WHOLE
    result = ts_dshapley(game, settings, stop=MaxPermutations(8000))
    expected = shapley_over_permutations(game)
    assert (np.abs(result.values - expected.sum(axis=1)) <= 4 * result.standard_error).all()
    scale = np.abs(expected).max()
    np.testing.assert_allclose(result.fold_values, expected, atol=0.05 * scale)


@pytest.mark.parametrize(
    "settings", [WHOLE, TsdsSettings(min_permutations=4, max_permutations=100)]
)
def test_values_sum_to_the_whole_gain_after_any_number_of_permutations(settings):
    game = ridge_problem(n_players=40, d=10).on_top(n_folds=5)
    result = ts_dshapley(game, settings, stop=MaxPermutations(60))
    gain = game.utility(range(40)) - game.utility([])
    assert result.values.sum() == pytest.approx(gain, abs=1e-10)
    np.testing.assert_allclose(result.fold_values.sum(axis=1), result.values, atol=1e-12)


@pytest.mark.parametrize("game_name", ["secondary", "empty"])
def test_row_errors_are_those_of_a_mean_over_validation_rows(game_name):
    """Against the values of games of a single validation row each, by the same permutations."""
    problem = ridge_problem(n_players=12, d=5, n_val=9, corrupted=2)
    settings = TsdsSettings(game=game_name, max_permutations=60, min_permutations=60)
    make = RidgeProblem.on_top if game_name == "secondary" else RidgeProblem.from_empty
    found = ts_dshapley(make(problem), settings, stop=MaxPermutations(60))
    of_rows = np.array(
        [
            ts_dshapley(
                make(replace(problem, val_z=problem.val_z[[v]], val_y=problem.val_y[[v]]), 1),
                settings,
                stop=MaxPermutations(60),
            ).values
            for v in range(9)
        ]
    )
    np.testing.assert_allclose(of_rows.mean(axis=0), found.values, atol=1e-10)
    errors = row_errors(make(problem), settings, found.n_permutations)
    np.testing.assert_allclose(errors, of_rows.std(axis=0, ddof=1) / 3, rtol=1e-9)


def test_row_errors_are_what_other_validation_rows_do():
    """The spread of values over many draws of the validation rows, in a world without change."""
    problem = ridge_problem(n_players=20, d=6, n_val=2000, corrupted=3)
    settings = TsdsSettings(min_permutations=40, max_permutations=40)
    values, claimed = [], []
    for rows in np.split(np.arange(2000), 40):
        part = replace(problem, val_z=problem.val_z[rows], val_y=problem.val_y[rows])
        values.append(ts_dshapley(part.on_top(), settings).values)
        claimed.append(row_errors(part.on_top(), settings, 40))
    spread = np.std(values, axis=0, ddof=1)
    ratio = spread / np.sqrt(np.mean(np.square(claimed), axis=0))
    # 40 repeats know a standard deviation to about 11 %.
    assert 0.85 < np.sqrt(np.mean(ratio**2)) < 1.15


@pytest.mark.slow
@pytest.mark.parametrize("game_name", ["secondary", "empty"])
def test_standard_errors_match_the_spread_over_seeds(game_name):
    problem = ridge_problem(n_players=20, d=6, corrupted=3)
    game = problem.on_top() if game_name == "secondary" else problem.from_empty()
    settings = TsdsSettings(game=game_name, max_permutations=200, subset_fraction=(0.3, 0.6))
    results = [
        ts_dshapley(game, settings.model_copy(update={"seed": seed}), stop=MaxPermutations(200))
        for seed in range(60)
    ]
    spread = np.std([r.values for r in results], axis=0, ddof=1)
    claimed = np.sqrt(np.mean([r.standard_error**2 for r in results], axis=0))
    ratio = spread / claimed
    # 60 repeats know a standard deviation to about 9 %.
    assert 0.9 < np.sqrt(np.mean(ratio**2)) < 1.1
    assert ratio.min() > 0.65
    assert ratio.max() < 1.4


@pytest.mark.parametrize("seed", range(3))
def test_antithetic_pairs_lower_the_variance(seed):
    game = ridge_problem(n_players=30, d=5, corrupted=4, seed=seed).on_top()
    stop = MaxPermutations(600)
    pairs = ts_dshapley(game, TsdsSettings(), stop=stop)
    single = ts_dshapley(game, WHOLE, stop=stop)
    assert np.mean(pairs.standard_error**2) < np.mean(single.standard_error**2)


@pytest.mark.parametrize("game_name", ["secondary", "empty"])
def test_the_same_seed_gives_the_same_bits_and_another_seed_does_not(game_name):
    settings = TsdsSettings(game=game_name, min_permutations=4, max_permutations=60, seed=3)
    problem = ridge_problem(n_players=12)
    first, second = (ts_dshapley(problem.on_top(), settings) for _ in range(2))
    np.testing.assert_array_equal(first.fold_values, second.fold_values)
    np.testing.assert_array_equal(first.standard_error, second.standard_error)
    other = ts_dshapley(problem.on_top(), settings.model_copy(update={"seed": 4}))
    assert not np.array_equal(first.values, other.values)


def test_samples_do_not_depend_on_those_before_them():
    for sampler in (AntitheticPairs(9, seed=5), SubsetChains(9, 3, 6, seed=5)):
        late = [p.tolist() for p in sampler.draw(7)]
        for index in range(7):
            sampler.draw(index)
        assert [p.tolist() for p in sampler.draw(7)] == late


def test_a_shorter_run_is_the_beginning_of_a_longer_one():
    game = ridge_problem(n_players=12).on_top()
    short = ts_dshapley(game, TsdsSettings(), stop=MaxPermutations(CHECK_EVERY))
    long = ts_dshapley(game, TsdsSettings(), stop=MaxPermutations(10 * CHECK_EVERY))
    assert short.history == long.history[:1]


def test_pairs_are_reversed_and_subsets_have_the_sizes_asked_for():
    forward, backward = AntitheticPairs(10, seed=0).draw(0)
    assert sorted(forward) == list(range(10))
    assert backward.tolist() == forward[::-1].tolist()
    sampler = make_sampler(20, TsdsSettings(game="empty", subset_fraction=(0.25, 0.5)))
    sizes = {len(sampler.draw(i)[0]) for i in range(200)}
    assert sizes == set(range(5, 11))


def test_a_value_of_game_b_is_the_mean_over_the_chains_that_hold_the_point():
    problem = ridge_problem(n_players=10)
    game = problem.from_empty()
    settings = TsdsSettings(game="empty", min_permutations=4, max_permutations=50)
    result = ts_dshapley(game, settings)
    sampler = make_sampler(10, settings)
    seen: list[list[float]] = [[] for _ in range(10)]
    for index in range(50):
        (chain,) = sampler.draw(index)
        scores = [game.utility(chain[:k]) for k in range(len(chain) + 1)]
        for player, marginal in zip(chain, np.diff(scores), strict=True):
            seen[player].append(marginal)
    np.testing.assert_allclose(result.values, [np.mean(s) for s in seen], atol=1e-10)
    errors = [np.std(s, ddof=1) / np.sqrt(len(s)) for s in seen]
    np.testing.assert_allclose(result.standard_error, errors, atol=1e-10)
    np.testing.assert_array_equal(result.n_draws, [len(s) for s in seen])


def test_sampling_stops_when_the_error_is_small_enough_and_says_so():
    game = ridge_problem(n_players=10, corrupted=2).on_top()
    result = ts_dshapley(game, TsdsSettings(relative_error=0.05, min_permutations=40))
    assert result.converged
    assert result.history[-1].relative_error <= 0.05
    assert 40 <= result.n_permutations < 20_000
    assert "0.05" in result.reason


def test_sampling_that_did_not_converge_says_how_far_it_got():
    game = ridge_problem(n_players=10).on_top()
    result = ts_dshapley(
        game, TsdsSettings(relative_error=1e-9, min_permutations=4, max_permutations=51)
    )
    assert not result.converged
    assert result.n_permutations == 50
    assert "50 of at most 50 permutations" in result.reason
    assert "spread" in result.reason
    assert result.history[-1].n_permutations == 50


def test_a_maximum_below_the_minimum_still_converges_at_the_maximum():
    result = ts_dshapley(
        AdditiveGame(np.ones((3, 1))), TsdsSettings(min_permutations=4, max_permutations=10)
    )
    assert result.converged
    assert result.n_permutations == 10


def test_progress_hears_of_every_permutation():
    listener = Listener()
    game = ridge_problem(n_players=10).on_top()
    result = ts_dshapley(
        game, TsdsSettings(min_permutations=4, max_permutations=70, relative_error=1e-9), listener
    )
    assert (listener.total, listener.done) == (70, result.n_permutations) == (70, 70)
    assert listener.finished
    assert all("relative_error" in fields for fields in listener.fields)


def test_a_marginal_that_is_not_finite_is_an_error_not_a_ranking():
    listener = Listener()
    game = FunctionGame(3, lambda s: float("nan") if len(s) == 2 else 0.0)
    with pytest.raises(ValuationError, match="not finite"):
        ts_dshapley(game, TsdsSettings(), listener)
    assert listener.finished


def test_a_point_that_was_hardly_drawn_is_an_error_not_a_value():
    game = AdditiveGame(np.ones((50, 1)))
    settings = TsdsSettings(
        game="empty", subset_fraction=(0.02, 0.02), min_permutations=4, max_permutations=20
    )
    with pytest.raises(ValuationError, match="fewer than twice"):
        ts_dshapley(game, settings)


def test_no_convergence_is_claimed_while_a_point_has_no_error():
    game = AdditiveGame(np.arange(50.0)[:, None])
    settings = TsdsSettings(game="empty", subset_fraction=(0.02, 0.02))
    result = ts_dshapley(game, settings, stop=RelativeStandardError(10.0))
    assert result.n_draws.min() >= 2


@pytest.mark.parametrize("fraction", [(0.0, 0.5), (0.6, 0.5), (0.5, 1.1), (-0.1, 0.3)])
def test_subset_fractions_that_make_no_sense_are_refused(fraction):
    # A copy is not validated, so the sampler looks for itself.
    settings = TsdsSettings(game="empty").model_copy(update={"subset_fraction": fraction})
    with pytest.raises(SettingsError, match="subset_fraction"):
        make_sampler(10, settings)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("game", "ridge", "signal"), [("secondary", None, 1.0), ("empty", 10.0, 0.1)]
)
def test_planted_label_noise_is_found(game, ridge, signal, seed):
    p = ridge_problem(
        n_players=100, n_train=150, n_val=200, d=60, noise=0.3, signal=signal, corrupted=10,
        seed=seed,
    )  # fmt: skip
    settings = TsdsSettings(game=game, ridge=ridge, seed=seed)
    proxy = make_proxy(
        p.train_z, p.train_y, p.players_z, p.players_y, p.val_z, p.val_y, settings
    )  # fmt: skip
    result = ts_dshapley(proxy.game, settings)
    optimal = optimal_subset(proxy.game, result)
    wrong = np.isin(np.arange(100), p.corrupted)
    assert roc_auc_score(wrong, -result.values) > 0.9
    assert result.converged
    assert wrong[optimal.positions].sum() <= 1
    assert optimal.n_kept == len(optimal.positions) > 0
    if game == "secondary":
        of_all, of_none = optimal.pooled_curve["utility"].iloc[[0, -1]]
        assert of_all < of_none
