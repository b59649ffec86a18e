"""The removal curve against refits, and the choice of the number to keep."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from lipo_cli.errors import ValuationError
from lipo_cli.settings import TsdsSettings
from lipo_cli.valuation.removal import (
    CURVE_COLUMNS,
    cross_fitted_curve,
    curve_of,
    optimal_subset,
    peak_of,
    removal_curve,
)
from lipo_cli.valuation.tsds import ts_dshapley
from tests.fixtures.games import ridge_problem


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


def test_ties_keep_more():
    curve = pd.DataFrame({"n_kept": [3, 2, 1, 0], "utility": [-2.0, -1.0, -1.0 + 1e-15, -3.0]})
    assert peak_of(curve) == 2


def test_a_curve_that_is_not_finite_has_no_peak():
    with pytest.raises(ValuationError, match="removal curve"):
        peak_of(pd.DataFrame({"n_kept": [1, 0], "utility": [np.nan, -3.0]}))


def test_points_that_change_nothing_are_all_kept():
    problem = ridge_problem(n_players=5)
    problem.players_z[:] = problem.train_z.mean(axis=0)
    game = problem.on_top()
    optimal = optimal_subset(game, ts_dshapley(game, TsdsSettings(max_permutations=20)))
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
    assert optimal.sentence().startswith(f"keeping {optimal.n_kept} of 60 points")
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
