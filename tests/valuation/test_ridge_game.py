"""The ridge game against refits by scikit-learn, enumeration, and the axioms of Shapley."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge

from lipo_cli.errors import ValuationError
from lipo_cli.valuation.ridge_game import RidgeGame
from lipo_cli.valuation.ridge_paths import DualPath, PrimalPath
from tests.fixtures.games import (
    RidgeProblem,
    ridge_problem,
    shapley_over_permutations,
    shapley_over_subsets,
)


def sklearn_utility(problem: RidgeProblem, subset: tuple[int, ...], *, base: bool) -> float:
    """Returns U(subset) by scikit-learn, from raw rows where there is a base."""
    chosen = list(subset)
    z, y = problem.players_z[chosen], problem.players_y[chosen]
    if base:
        fit = Ridge(alpha=problem.ridge, solver="svd")
        fit.fit(np.vstack([problem.train_z, z]), np.concatenate([problem.train_y, y]))
        return -float(np.mean((problem.val_y - fit.predict(problem.val_z)) ** 2))
    mean = problem.train_y.mean()
    errors = problem.val_y - mean
    if chosen:  # a prior on the level: a column of ones, penalised as the others are
        fit = Ridge(alpha=problem.ridge, fit_intercept=False, solver="svd")
        fit.fit(np.column_stack([z, np.ones(len(z))]), y - mean)
        rows = np.column_stack([problem.val_z, np.ones(len(problem.val_z))])
        errors = errors - fit.predict(rows)
    return -float(np.mean(errors**2))


@pytest.mark.parametrize("base", [True, False])
@pytest.mark.parametrize(("n_players", "d"), [(7, 12), (7, 3)])
def test_utilities_along_a_permutation_equal_sklearn_refits(n_players, d, base):
    problem = ridge_problem(n_players=n_players, d=d)
    game = problem.on_top() if base else problem.from_empty()
    order = np.random.default_rng(1).permutation(n_players)
    path = -game.squared_errors(order).mean(axis=1)
    for k in range(n_players + 1):
        subset = tuple(int(i) for i in order[:k])
        expected = sklearn_utility(problem, subset, base=base)
        assert path[k] == pytest.approx(expected, abs=1e-10)
        assert game.utility(subset) == pytest.approx(expected, abs=1e-10)


def test_no_player_scores_as_sklearn_ridge_with_intercept_on_train():
    problem = ridge_problem()
    fit = Ridge(alpha=problem.ridge, fit_intercept=True).fit(problem.train_z, problem.train_y)
    expected = -np.mean((problem.val_y - fit.predict(problem.val_z)) ** 2)
    assert problem.on_top().utility([]) == pytest.approx(expected, abs=1e-10)


def test_no_player_of_game_b_predicts_the_mean_of_train():
    problem = ridge_problem()
    expected = -np.mean((problem.val_y - problem.train_y.mean()) ** 2)
    assert problem.from_empty().utility([]) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("n_players", [6, 7])
@pytest.mark.parametrize("base", [True, False])
def test_average_over_all_permutations_equals_the_subset_formula_of_refits(n_players, base):
    problem = ridge_problem(n_players=n_players, d=3 if n_players == 7 else 9)
    game = problem.on_top() if base else problem.from_empty()
    expected = shapley_over_subsets(n_players, lambda s: sklearn_utility(problem, s, base=base))
    np.testing.assert_allclose(
        shapley_over_permutations(game).sum(axis=1), expected, rtol=0, atol=1e-10
    )


@pytest.mark.parametrize("d", [3, 12])
def test_brute_force_at_eight_players(d):
    problem = ridge_problem(n_players=8, d=d)
    game = problem.on_top()
    by_refits = shapley_over_subsets(8, game.utility)
    by_path = shapley_over_permutations(game).sum(axis=1)
    np.testing.assert_allclose(by_path, by_refits, rtol=0, atol=1e-10)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    n_players=st.integers(1, 130),
    d=st.integers(1, 20),
    base=st.booleans(),
)
def test_efficiency_on_every_permutation(seed, n_players, d, base):
    problem = ridge_problem(n_players=n_players, d=d, seed=seed, n_train=25)
    game = problem.on_top() if base else problem.from_empty()
    marginals = game.marginals(np.random.default_rng(seed).permutation(n_players))
    gain = game.utility(range(n_players)) - game.utility([])
    assert marginals.shape == (n_players, 3)
    assert marginals.sum() == pytest.approx(gain, abs=1e-10 * max(1, abs(game.utility([]))))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(2, 120), d=st.integers(1, 30))
def test_dual_and_primal_paths_agree(seed, n, d):
    rng = np.random.default_rng(seed)
    data = rng.normal(size=(n, d)), rng.normal(size=n), rng.normal(size=(9, d)), rng.normal(size=9)
    order = rng.permutation(n)[: int(rng.integers(0, n + 1))]
    dual, primal = DualPath(*data), PrimalPath(*data)
    np.testing.assert_allclose(dual.errors(order), primal.errors(order), rtol=0, atol=1e-9)
    # Buffers are used again: an earlier call must leave no trace.
    again = dual.errors(order[::-1]).copy(), primal.errors(order[::-1]).copy()
    np.testing.assert_array_equal(again[0], DualPath(*data).errors(order[::-1]))
    np.testing.assert_array_equal(again[1], PrimalPath(*data).errors(order[::-1]))


@pytest.mark.parametrize("d", [3, 40])
def test_a_leading_subset_has_the_marginals_of_the_whole_permutation(d):
    game = ridge_problem(n_players=60, d=d).on_top()
    order = np.random.default_rng(0).permutation(60)
    np.testing.assert_allclose(game.marginals(order[:25]), game.marginals(order)[:25], atol=1e-12)
    assert game.marginals(order[:0]).shape == (0, 3)


def test_folds_add_up_to_the_utility_over_all_rows():
    problem = ridge_problem(n_players=10, n_val=23)
    order = np.arange(10)
    one, five = problem.on_top(n_folds=1), problem.on_top(n_folds=5)
    np.testing.assert_allclose(
        five.marginals(order).sum(axis=1), one.marginals(order)[:, 0], atol=1e-12
    )
    sizes = np.bincount(five.fold_of)
    assert sizes.sum() == 23
    assert sizes.max() - sizes.min() <= 1
    squares = five.squared_errors(order)
    some = np.arange(squares.shape[1]) % 3 == 0
    np.testing.assert_array_equal(five.squared_errors(order, some), squares[:, some])
    for fold in range(5):
        scores = -squares[:, five.fold_of == fold].sum(axis=1) / 23
        np.testing.assert_allclose(five.marginals(order)[:, fold], np.diff(scores), atol=1e-12)


def test_duplicate_points_have_equal_values():
    problem = ridge_problem(n_players=6)
    problem.players_z[1], problem.players_y[1] = problem.players_z[0], problem.players_y[0]
    values = shapley_over_permutations(problem.on_top())
    np.testing.assert_allclose(values[0], values[1], atol=1e-12)
    assert not np.allclose(values[0], values[2])


def test_points_at_the_centre_of_train_move_the_intercept_alone_by_their_share():
    """With slopes untouched the error of every row falls by the shift k/(N + k) of the level."""
    problem = ridge_problem(n_players=4)
    problem.players_z[:] = problem.train_z.mean(axis=0)
    problem.players_y[:] = problem.train_y.mean() + 3
    errors = np.sqrt(problem.on_top().squared_errors(np.arange(4)))
    fit = Ridge(alpha=problem.ridge).fit(problem.train_z, problem.train_y)
    first = problem.val_y - fit.predict(problem.val_z)
    n_train = len(problem.train_y)
    for k in range(5):
        np.testing.assert_allclose(errors[k], np.abs(first - 3 * k / (n_train + k)), atol=1e-12)


@pytest.mark.parametrize("base", [True, False])
def test_labels_with_a_common_offset_have_a_negative_sum_of_values(base):
    """Players drawn like train help; the same with another assay's offset do harm, all together."""
    right = ridge_problem(n_players=40, noise=0.1, n_val=300)
    wrong = RidgeProblem(
        right.train_z, right.train_y, right.players_z, right.players_y + 6,
        right.val_z, right.val_y, right.corrupted,
    )  # fmt: skip
    gains = []
    for problem in (right, wrong):
        game = problem.on_top() if base else problem.from_empty()
        gains.append(game.utility(range(40)) - game.utility([]))
    assert gains[1] < 0 < gains[0]


def test_a_point_that_the_fit_already_meets_has_no_first_marginal():
    problem = ridge_problem(n_players=3)
    fit = Ridge(alpha=problem.ridge).fit(problem.train_z, problem.train_y)
    problem.players_y[1] = fit.predict(problem.players_z[1:2])[0]
    np.testing.assert_allclose(problem.on_top().marginals([1, 0, 2])[0], 0, atol=1e-13)


def test_values_follow_the_players_when_these_are_reordered():
    problem = ridge_problem(n_players=6)
    order = np.array([3, 0, 5, 1, 4, 2])
    moved = RidgeProblem(
        problem.train_z, problem.train_y, problem.players_z[order], problem.players_y[order],
        problem.val_z, problem.val_y, problem.corrupted,
    )  # fmt: skip
    np.testing.assert_allclose(
        shapley_over_permutations(moved.on_top()),
        shapley_over_permutations(problem.on_top())[order],
        atol=1e-12,
    )


@pytest.mark.parametrize("seed", range(5))
def test_a_wrong_label_has_a_negative_value_and_its_removal_lowers_the_error(seed):
    problem = ridge_problem(n_players=6 + 1, noise=0.1, n_val=300, seed=seed)
    problem.players_y[6] += 15
    game = problem.on_top()
    values = shapley_over_permutations(game).sum(axis=1)
    assert values[6] < 0
    assert values.argmin() == 6
    assert sklearn_utility(problem, tuple(range(6)), base=True) > sklearn_utility(
        problem, tuple(range(7)), base=True
    )


def test_shifting_all_labels_changes_nothing():
    problem = ridge_problem(n_players=9)
    shifted = RidgeProblem(
        problem.train_z + 5, problem.train_y - 3, problem.players_z + 5, problem.players_y - 3,
        problem.val_z + 5, problem.val_y - 3, problem.corrupted,
    )  # fmt: skip
    order = np.arange(9)
    np.testing.assert_allclose(
        shifted.on_top().marginals(order), problem.on_top().marginals(order), atol=1e-11
    )


@pytest.mark.parametrize("name", ["train_z", "train_y", "players_z", "players_y", "val_z", "val_y"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_non_finite_number_is_refused_by_name(name, bad):
    problem = ridge_problem()
    getattr(problem, name)[1] = bad
    with pytest.raises(ValuationError, match="non-finite") as caught:
        problem.on_top()
    part = {"train": "train", "players": "points", "val": "validation"}[name[:-2]]
    assert part in str(caught.value)


@pytest.mark.filterwarnings("ignore:overflow encountered")
@pytest.mark.parametrize(
    "extreme", [pytest.param(1e170, id="overflows"), pytest.param(1e20, id="swamps the penalty")]
)
def test_features_too_extreme_for_the_ridge_system_are_refused(extreme):
    problem = ridge_problem()
    problem.train_z[:, 1] = problem.train_z[:, 0] = extreme * np.arange(len(problem.train_z))
    with pytest.raises(ValuationError, match=r"not positive definite.*extreme numbers"):
        problem.on_top()


@pytest.mark.parametrize("order", [[0, 0], [0, 99], [-1]])
def test_a_wrong_permutation_is_refused(order):
    with pytest.raises(ValuationError):
        ridge_problem().on_top().marginals(order)


@pytest.mark.parametrize("ridge", [0.0, -1.0, float("nan")])
def test_a_penalty_must_be_positive(ridge):
    p = ridge_problem()
    with pytest.raises(ValuationError, match="penalty"):
        RidgeGame.from_empty(p.players_z, p.players_y, p.val_z, p.val_y, ridge, 0.0)


def test_shapes_that_disagree_are_refused():
    p = ridge_problem()
    with pytest.raises(ValuationError, match="width"):
        RidgeGame.from_empty(p.players_z[:, :2], p.players_y, p.val_z, p.val_y, 1.0, 0.0)
    with pytest.raises(ValuationError, match="must have 8 rows"):
        RidgeGame.from_empty(p.players_z, p.players_y[:-1], p.val_z, p.val_y, 1.0, 0.0)
    with pytest.raises(ValuationError, match="no point"):
        RidgeGame.from_empty(p.players_z[:0], p.players_y[:0], p.val_z, p.val_y, 1.0, 0.0)
    with pytest.raises(ValuationError, match="folds"):
        p.on_top(n_folds=21)


@pytest.mark.parametrize("base", [True, False])
@pytest.mark.parametrize("d", [3, 12])
def test_leave_one_out_in_closed_form_equals_refits(d, base):
    problem = ridge_problem(n_players=7, d=d)
    game = problem.on_top() if base else problem.from_empty()
    by_row = game.leave_one_out()
    everyone = tuple(range(7))
    for i in range(7):
        without = tuple(j for j in everyone if j != i)
        expected = game.utility(everyone) - game.utility(without)
        assert by_row[:, i].mean() == pytest.approx(expected, abs=1e-10)
