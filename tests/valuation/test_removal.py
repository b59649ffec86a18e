"""The removal curve against refits, and the choice of the number to keep."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import pytest

from lipo_cli.errors import ValuationError
from lipo_cli.settings import TsdsSettings
from lipo_cli.valuation.arrays import BoolArray, FloatArray, IntArray
from lipo_cli.valuation.removal import (
    CURVE_COLUMNS,
    cross_fitted_curve,
    curve_of,
    nested_gains,
    optimal_subset,
    peak_of,
    removal_curve,
)
from lipo_cli.valuation.tsds import ts_dshapley
from tests.fixtures.games import ridge_problem


@dataclass(frozen=True)
class HarmGame:
    """Each player adds a harm of its own [n, m] to the squared error of every validation row."""

    harms: FloatArray
    n_folds: int

    @property
    def n_players(self) -> int:
        return len(self.harms)

    @property
    def fold_of(self) -> IntArray:
        return np.arange(self.harms.shape[1]) % self.n_folds

    def squared_errors(self, permutation: IntArray, rows: BoolArray | None = None) -> FloatArray:
        start = np.full((1, self.harms.shape[1]), 50.0)
        squares = np.cumsum(np.vstack([start, self.harms[permutation]]), axis=0)
        return squares if rows is None else squares[:, rows]

    def marginals(self, permutation: IntArray) -> FloatArray:
        in_fold = np.eye(self.n_folds)[self.fold_of] / self.harms.shape[1]
        return -self.harms[permutation] @ in_fold

    def fold_values(self) -> FloatArray:
        return self.marginals(np.arange(self.n_players))


def noise_game(seed: int, n_folds: int = 5) -> HarmGame:
    """No point does harm or good but by chance: the true gain of any choice is zero."""
    return HarmGame(np.random.default_rng(seed).normal(size=(20, 60)), n_folds)


@pytest.mark.parametrize("d", [3, 20])
def test_the_curve_equals_refits_after_each_removal(d):
    game = ridge_problem(n_players=12, d=d, corrupted=3).on_top()
    values = np.random.default_rng(0).normal(size=12)
    curve = removal_curve(game, values)
    assert tuple(curve.columns) == CURVE_COLUMNS
    worst_first = np.argsort(values)
    for row in curve.itertuples():
        kept = worst_first[row.n_removed :]
        assert row.n_kept == len(kept)
        utility = game.utility(kept)
        assert row.utility == pytest.approx(utility, abs=1e-10)
        assert row.gain_over_all == pytest.approx(utility - game.utility(range(12)), abs=1e-10)
        assert row.gain_over_none == pytest.approx(utility - game.utility([]), abs=1e-10)


def test_errors_are_those_of_paired_differences_over_rows():
    squares = np.random.default_rng(0).exponential(size=(4, 50))
    curve = curve_of(squares)
    assert curve["gain_over_all_error"].iloc[0] == 0
    assert curve["gain_over_none_error"].iloc[-1] == 0
    difference = squares[3] - squares[2]
    expected = difference.std(ddof=1) / np.sqrt(50)
    assert curve["gain_over_all_error"].iloc[1] == pytest.approx(expected)
    assert curve["gain_over_all"].iloc[1] == pytest.approx(difference.mean())
    assert curve["utility_error"].iloc[1] == pytest.approx(squares[2].std(ddof=1) / np.sqrt(50))


def test_the_cross_fitted_curve_reads_each_fold_in_the_order_of_the_others():
    problem = ridge_problem(n_players=9, n_val=22, corrupted=2)
    game = problem.on_top(n_folds=4)
    fold_values = np.random.default_rng(1).normal(size=(9, 4))
    curve = cross_fitted_curve(game, fold_values)
    expected = np.zeros(10)
    for fold in range(4):
        order = np.argsort(-(fold_values.sum(axis=1) - fold_values[:, fold]))
        rows = game.fold_of == fold
        expected += game.squared_errors(order)[:, rows].sum(axis=1)
    np.testing.assert_allclose(-curve["utility"].to_numpy()[::-1], expected / 22, atol=1e-12)


def test_a_folds_own_values_do_not_set_its_order():
    game = ridge_problem(n_players=9).on_top(n_folds=2)
    fold_values = np.random.default_rng(1).normal(size=(9, 2))
    changed = fold_values.copy()
    changed[:, 0] *= -1
    rows = game.fold_of == 1
    by_fold = [
        game.squared_errors(np.argsort(-values[:, 1]))[:, ~rows]
        for values in (fold_values, changed)
    ]
    np.testing.assert_array_equal(*by_fold)
    first, second = (cross_fitted_curve(game, v)["utility"] for v in (fold_values, changed))
    # Only fold 1, which fold 0 orders, can differ between the two curves.
    own = -game.squared_errors(np.argsort(-changed[:, 0]))[:, rows].sum(axis=1)
    before = -game.squared_errors(np.argsort(-fold_values[:, 0]))[:, rows].sum(axis=1)
    m = len(game.fold_of)
    np.testing.assert_allclose((second - first)[::-1], (own - before) / m, atol=1e-12)


def test_the_gain_on_pure_noise_is_zero_on_average_and_the_peak_is_not():
    pairs = [nested_gains(g, g.fold_values()) for g in map(noise_game, range(300))]
    nested = np.array([[gains.mean() for gains in pair or ()] for pair in pairs])
    error = nested.std(axis=0, ddof=1) / np.sqrt(len(nested))
    assert (np.abs(nested.mean(axis=0)) < 3 * error).all()
    assert ((nested < 0).mean(axis=0) > 0.3).all()
    at_peak = []
    for seed in range(300):
        game = noise_game(seed)
        curve = cross_fitted_curve(game, game.fold_values())
        at_peak.append(curve["gain_over_all"].iloc[20 - peak_of(curve)])
    # What the reviewer of a chosen number must not be shown.
    assert min(at_peak) >= 0
    assert np.mean(at_peak) > 5 * np.std(at_peak) / np.sqrt(300)


def test_the_gain_says_what_fresh_rows_will_say():
    """Ridge games with points of no use: 40 seeds, judged on 400 rows that nobody has seen."""
    nested, peaks, fresh = [], [], []
    for seed in range(40):
        problem = ridge_problem(n_players=15, n_train=40, n_val=60 + 400, d=5, noise=1, seed=seed)
        problem.players_y[:] = np.random.default_rng(seed).permutation(problem.players_y)
        seen = replace(problem, val_z=problem.val_z[:60], val_y=problem.val_y[:60])
        unseen = replace(problem, val_z=problem.val_z[60:], val_y=problem.val_y[60:])
        game, judge = seen.on_top(n_folds=5), unseen.on_top()
        optimal = optimal_subset(
            game, ts_dshapley(game, TsdsSettings(min_permutations=4, max_permutations=40))
        )
        nested.append(optimal.honest_gain_over_none)
        peaks.append(optimal.curve["gain_over_none"].iloc[15 - optimal.n_kept])
        fresh.append(judge.utility(optimal.positions) - judge.utility([]))
    surplus = np.subtract(nested, fresh)
    assert abs(surplus.mean()) < 3 * surplus.std(ddof=1) / np.sqrt(len(surplus))
    assert np.mean(peaks) > np.mean(nested)


def test_the_nested_gain_equals_the_choice_made_again_without_each_fold():
    game = ridge_problem(n_players=9, n_val=22, corrupted=2).on_top(n_folds=4)
    fold_values = np.random.default_rng(1).normal(size=(9, 4))
    over_all, over_none = nested_gains(game, fold_values)
    for fold in range(4):
        rest = [other for other in range(4) if other != fold]
        scores = np.zeros(10)
        for inner in rest:
            setters = [other for other in rest if other != inner]
            order = np.argsort(-fold_values[:, setters].sum(axis=1))
            scores += game.squared_errors(order)[:, game.fold_of == inner].sum(axis=1)
        n_kept = int(scores.argmin())
        rows = game.fold_of == fold
        squares = game.squared_errors(np.argsort(-fold_values[:, rest].sum(axis=1)))[:, rows]
        np.testing.assert_allclose(over_all[rows], squares[9] - squares[n_kept], atol=1e-12)
        np.testing.assert_allclose(over_none[rows], squares[0] - squares[n_kept], atol=1e-12)


@pytest.mark.parametrize("fold", range(4))
def test_a_folds_rows_have_no_part_in_the_choice_that_they_judge(fold):
    game = noise_game(seed=3, n_folds=4)
    rows = game.fold_of == fold
    harms = game.harms.copy()
    harms[:, rows] = 7 * harms[:, rows] + 1
    changed = HarmGame(harms, 4)
    before, _ = nested_gains(game, game.fold_values())
    after, _ = nested_gains(changed, changed.fold_values())
    # The same points are left out for these rows: their harms sum to the gain before and after.
    order = np.argsort(-np.delete(game.fold_values(), fold, axis=1).sum(axis=1))
    left_out = np.cumsum(game.harms[order[::-1]], axis=0)[:, rows]
    matches = np.flatnonzero(np.isclose(left_out, before[rows]).all(axis=1))
    n_removed = int(matches[0]) + 1 if matches.size else 0
    np.testing.assert_allclose(after[rows], 7 * before[rows] + n_removed)


def test_two_folds_leave_none_to_choose_on_and_the_sentence_says_so():
    game = ridge_problem().on_top(n_folds=2)
    assert nested_gains(game, np.zeros((8, 2))) is None
    optimal = optimal_subset(
        game, ts_dshapley(game, TsdsSettings(min_permutations=4, max_permutations=20))
    )
    assert optimal.honest_gain_over_all is None
    assert optimal.honest_gain_over_none_error is None
    assert optimal.sentence() == (
        f"keeping {optimal.n_kept} of 8 points; "
        "no honest estimate of the gain, which takes three or more folds"
    )


def test_the_sentence_says_lower_or_higher():
    game = noise_game(0)
    optimal = optimal_subset(
        game, ts_dshapley(game, TsdsSettings(min_permutations=4, max_permutations=20))
    )
    known = replace(
        optimal,
        n_kept=12,
        honest_gain_over_all=0.0794,
        honest_gain_over_all_error=0.0341,
        honest_gain_over_none=-0.017,
        honest_gain_over_none_error=0.0166,
    )
    assert known.sentence() == (
        "keeping 12 of 20 points; nested estimate of what choosing so does to the held-out "
        "mean squared error: "
        "lower by 0.079 +- 0.034 than with all, higher by 0.017 +- 0.017 than with none "
        "(+- over rows alone, somewhat too small)"
    )
    assert "higher by 0.017 +- 0.017 than by a mean (" in known.sentence("by a mean")


def test_ties_keep_more():
    curve = pd.DataFrame({"n_kept": [3, 2, 1, 0], "utility": [-2.0, -1.0, -1.0 + 1e-15, -3.0]})
    assert peak_of(curve) == 2


def test_a_curve_that_is_not_finite_has_no_peak():
    with pytest.raises(ValuationError, match="removal curve"):
        peak_of(pd.DataFrame({"n_kept": [1, 0], "utility": [np.nan, -3.0]}))


def test_points_that_change_nothing_are_all_kept():
    problem = ridge_problem(n_players=5)
    problem.players_z[:] = problem.train_z.mean(axis=0)
    problem.players_y[:] = problem.train_y.mean()
    game = problem.on_top()
    optimal = optimal_subset(
        game, ts_dshapley(game, TsdsSettings(min_permutations=4, max_permutations=20))
    )
    assert optimal.n_kept == 5


def test_corrupted_points_are_dropped_and_the_refit_gains():
    problem = ridge_problem(
        n_players=60, n_train=150, n_val=200, d=60, noise=0.3, corrupted=8, seed=2
    )
    game = problem.on_top(n_folds=5)
    result = ts_dshapley(game, TsdsSettings())
    optimal = optimal_subset(game, result)
    kept = set(optimal.positions.tolist())
    assert list(optimal.positions) == sorted(kept)
    assert len(kept & set(problem.corrupted.tolist())) <= 1
    best = set(np.argsort(-result.values)[: optimal.n_kept].tolist())
    assert kept == best
    assert game.utility(optimal.positions) > game.utility(range(60))
    peak = optimal.curve.loc[optimal.curve["n_kept"] == optimal.n_kept].iloc[0]
    assert peak["gain_over_all"] > 2 * peak["gain_over_all_error"] > 0
    assert optimal.honest_gain_over_all > 2 * optimal.honest_gain_over_all_error > 0
    assert optimal.honest_gain_over_none_error > 0
    assert optimal.sentence().startswith(f"keeping {optimal.n_kept} of 60 points; nested")
    at_kept = optimal.pooled_curve["n_kept"] == optimal.n_kept
    pooled = float(optimal.pooled_curve.loc[at_kept, "utility"].iloc[0])
    assert pooled == pytest.approx(game.utility(optimal.positions), abs=1e-10)


def test_one_fold_cannot_be_cross_fitted():
    game = ridge_problem().on_top(n_folds=1)
    with pytest.raises(ValuationError, match="two or more folds"):
        cross_fitted_curve(game, np.zeros((8, 1)))


def test_values_of_another_length_or_nan_are_refused():
    game = ridge_problem().on_top()
    with pytest.raises(ValuationError, match="values"):
        removal_curve(game, np.zeros(5))
    with pytest.raises(ValuationError, match="non-finite"):
        removal_curve(game, np.full(8, np.nan))
