"""Influence against closed forms, refits, and itself by other solvers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from lipo_cli.errors import ValuationError
from lipo_cli.settings import InfluenceSettings
from lipo_cli.valuation import influence as influence_module
from lipo_cli.valuation import influence_span
from lipo_cli.valuation.curvature import RowCurvature
from lipo_cli.valuation.gradient_span import table_size
from lipo_cli.valuation.gradients import OutputGradients
from lipo_cli.valuation.influence import InfluenceResult, Molecules, influence
from lipo_cli.valuation.solvers import exact
from tests.fixtures.influence import FOLDS, POOL, LastLayer, M, N, molecules, rows_and_errors
from tests.fixtures.models import (
    disturb,
    tiny_checkpoint,
    tiny_regressor,
)


@pytest.fixture(scope="module")
def regressor(tmp_path_factory):
    # Few parameters: the truth inverts a dense matrix of them.
    found = tiny_regressor(tiny_checkpoint(tmp_path_factory.mktemp("tiny")), "ia3")
    disturb(found)
    found.model.double().eval()
    return found


def by_definition(gradients: OutputGradients, share: float) -> np.ndarray:
    """Returns the values by the formula, with a dense inverse in float64."""
    train, target, points = molecules()
    (x, _), (t, t_error), (z, z_error) = (
        rows_and_errors(gradients, part) for part in (train, target, points)
    )
    h = 2 / N * x.T @ x
    damped = h + share * np.linalg.eigvalsh(h)[-1] * np.eye(len(h))
    of_target = (2 * t_error[:, None] * t).mean(axis=0)
    return (2 * z_error[:, None] * z) @ np.linalg.inv(damped) @ of_target / N


def valued(gradients: OutputGradients, **settings):
    return influence(gradients, *molecules(), InfluenceSettings(**settings), fold_of=FOLDS)


@pytest.mark.parametrize("part", ["all", "head", "output"])
@pytest.mark.parametrize("solver", ["auto", "exact", "cg", "lissa"])
def test_values_follow_the_definition(regressor, part, solver):
    gradients = OutputGradients(regressor, part)
    found = valued(gradients, solver=solver, damping=0.05, tolerance=1e-6)
    truth = by_definition(gradients, 0.05)
    assert np.abs(found.values - truth).max() < 1e-3 * np.abs(truth).max()
    assert found.agreement == pytest.approx(1, abs=0.01)
    np.testing.assert_allclose(found.fold_values.sum(axis=1), truth, rtol=1e-3, atol=1e-4)
    assert found.solver == ("exact" if solver == "auto" else solver)
    assert "products" in found.sentence()


@pytest.mark.parametrize("solver", ["cg", "lissa"])
@pytest.mark.parametrize("curvature", ["gauss-newton", "hessian"])
def test_without_a_table_the_same_values_come_from_products(regressor, solver, curvature):
    gradients = OutputGradients(regressor, "output")  # linear: the Hessian is Gauss-Newton's
    found = valued(
        gradients,
        solver=solver,
        curvature=curvature,
        damping=0.2,
        tolerance=1e-3,
        table_gib=1e-9,
        molecules_per_product=20,
    )
    truth = by_definition(gradients, 0.2)
    assert found.agreement is None
    if solver == "cg":
        assert np.abs(found.values - truth).max() < 0.03 * np.abs(truth).max()
    assert spearmanr(found.values, truth).statistic > 0.95
    assert (found.standard_error > 0).all()


def test_all_parameters_without_a_table(regressor):
    gradients = OutputGradients(regressor)
    found = valued(gradients, solver="cg", damping=0.3, tolerance=1e-3, table_gib=1e-9)
    truth = by_definition(gradients, 0.3)
    assert np.abs(found.values - truth).max() < 0.1 * np.abs(truth).max()


@pytest.mark.parametrize("table_gib", [6.0, 1e-9])
def test_each_target_row_has_its_own_values(regressor, table_gib):
    gradients = OutputGradients(regressor, "output")
    settings = InfluenceSettings(solver="cg", damping=0.2, tolerance=1e-4, table_gib=table_gib)
    train, target, points = molecules()
    found = influence(gradients, train, target, points, settings, fold_of=FOLDS, by_row=True)
    assert found.by_row.shape == (POOL, M)
    np.testing.assert_allclose(found.by_row.mean(axis=1), found.values, rtol=1e-3, atol=1e-7)
    np.testing.assert_allclose(found.fold_values.sum(axis=1), found.values, rtol=1e-3, atol=1e-7)
    expected = found.by_row.std(axis=1, ddof=1) / np.sqrt(M)
    np.testing.assert_allclose(found.standard_error, expected, rtol=1e-6)
    alone = Molecules([target.smiles[3]] * 2, np.repeat(target.labels[3], 2))
    of_one = influence(gradients, train, alone, points, settings, fold_of=np.array([0, 1]))
    np.testing.assert_allclose(found.by_row[:, 3], of_one.values, rtol=1e-2, atol=1e-6)
    of_all = influence(gradients, train, target, points, settings, fold_of=FOLDS)
    assert of_all.by_row is None
    assert np.abs(of_all.values - found.values).max() < 0.02 * np.abs(found.values).max()


@pytest.mark.parametrize("solver", ["exact", "cg", "lissa"])
def test_a_pool_without_room_is_read_once(regressor, solver, monkeypatch):
    gradients = OutputGradients(regressor)
    room = 48 * (N + M + 3) ** 2 / 2**30  # for the algebra of train and target alone
    whole = valued(gradients, solver=solver, damping=0.1, tolerance=1e-6)
    monkeypatch.setattr(influence_module, "in_their_span", None)
    monkeypatch.setattr(influence_module, "over_batches", None)
    found = valued(gradients, solver=solver, damping=0.1, tolerance=1e-6, table_gib=room)
    truth = by_definition(gradients, 0.1)
    assert np.abs(found.values - truth).max() < 1e-3 * np.abs(truth).max()
    np.testing.assert_allclose(found.fold_values, whole.fold_values, rtol=1e-3, atol=1e-6)
    assert (found.freedom, found.solver, found.converged) == (3, solver, True)
    per_fold = found.fold_values * 4
    expected = per_fold.std(axis=1, ddof=1) / 2
    np.testing.assert_allclose(found.standard_error, expected, rtol=1e-9)


def test_a_pool_without_room_is_read_for_every_target_row(regressor, monkeypatch):
    gradients = OutputGradients(regressor)
    settings = InfluenceSettings(damping=0.1)
    asked = {"fold_of": FOLDS, "by_row": True}
    whole = influence(gradients, *molecules(), settings, **asked)
    monkeypatch.setattr(influence_module, "in_their_span", None)
    monkeypatch.setattr(influence_module, "over_batches", None)
    monkeypatch.setattr(influence_span, "_DIRECTIONS", 7 * gradients.n_parameters)  # 20 rows by 7
    room = 48 * (N + M + 3) ** 2 / 2**30
    scarce = settings.model_copy(update={"table_gib": room})
    found = influence(gradients, *molecules(), scarce, **asked)
    for name in ("values", "by_row", "fold_values", "standard_error"):
        expected = getattr(whole, name)
        apart = np.abs(getattr(found, name) - expected).max()
        assert apart < 1e-3 * np.abs(expected).max(), name
    assert found.freedom == whole.freedom == M - 1


def test_one_fold_has_no_standard_error(regressor):
    settings = InfluenceSettings(solver="cg", damping=0.2, table_gib=1e-9)
    gradients = OutputGradients(regressor, "output")
    with pytest.raises(ValuationError, match="two folds"):
        influence(gradients, *molecules(), settings, fold_of=np.zeros(M, dtype=int))


def test_the_exact_solver_without_room_says_what_to_do(regressor):
    with pytest.raises(ValuationError, match="GiB of gradients") as caught:
        valued(OutputGradients(regressor), solver="exact", table_gib=1e-9)
    assert "--solver lissa" in str(caught.value)


def test_fewer_curvature_rows_are_drawn_by_the_seed(regressor):
    gradients = OutputGradients(regressor, "output")
    first, again, other = (
        valued(gradients, curvature_rows=20, seed=seed).values for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_where_the_gradients_of_train_need_several_tables_some_rows_stand_for_all(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(influence_module, "CURVATURE_ROWS", 20)
    regressor = tiny_regressor(tiny_checkpoint(tmp_path), "full")
    disturb(regressor)
    gradients = OutputGradients(regressor)
    enough = 1.01 * table_size(gradients, N + M)
    whole, part, wanted, asked = (
        valued(gradients, **settings)
        for settings in (
            {"table_gib": enough},
            {"table_gib": 0.9 * enough},
            {"table_gib": 0.9 * enough, "curvature_rows": 20},
            {"table_gib": 0.9 * enough, "curvature_rows": N},
        )
    )
    assert [each.n_curvature for each in (whole, part, wanted, asked)] == [N, 20, 20, N]
    np.testing.assert_array_equal(part.values, wanted.values)
    # Half of the molecules: larger values (fewer directions are measured), much the same order.
    assert spearmanr(part.values, whole.values).statistic > 0.85
    assert 1 < np.std(part.values) / np.std(whole.values) < 1.6
    assert part.halves_agree == pytest.approx(0.9, abs=0.1)
    assert (whole.halves_agree, asked.halves_agree) == (None, None)
    np.testing.assert_allclose(asked.values, whole.values, rtol=1e-3, atol=1e-7)
    assert f"curvature of 20 of {N} train molecules" in part.sentence()
    assert f"curvature of all {N} train molecules" in whole.sentence()
    # Who asks for the exact solver by name gets all of them.
    exact = valued(gradients, table_gib=0.9 * enough, solver="exact")
    np.testing.assert_allclose(exact.values, whole.values, rtol=1e-3, atol=1e-7)
    # A series over batches costs the same for any number of molecules: it takes all.
    head = OutputGradients(regressor, "output")
    assert valued(head, solver="cg", damping=0.3, table_gib=1e-9).n_curvature == N


def test_the_standard_error_is_that_of_a_mean_over_target_rows(regressor):
    gradients = OutputGradients(regressor, "output")
    train, target, points = molecules()
    by_row = []
    for i in range(M):
        one = Molecules([target.smiles[i]] * 2, np.repeat(target.labels[i], 2))
        settings = InfluenceSettings(damping=0.05)
        by_row.append(
            influence(gradients, train, one, points, settings, fold_of=np.array([0, 1])).values
        )
    rows = np.array(by_row)
    found = valued(gradients, damping=0.05)
    np.testing.assert_allclose(found.values, rows.mean(axis=0), rtol=1e-6, atol=1e-9)
    expected = rows.std(axis=0, ddof=1) / np.sqrt(M)
    np.testing.assert_allclose(found.standard_error, expected, rtol=1e-6, atol=1e-9)


def test_on_a_ridge_fit_influence_over_one_plus_leverage_is_the_exact_change():
    rng = np.random.default_rng(0)
    x, z = rng.normal(size=(50, 6)), rng.normal(size=(8, 6))
    y, label = rng.normal(size=50), rng.normal(size=8)
    damping = 0.03
    penalty = 50 * damping / 2
    system = x.T @ x + penalty * np.eye(6)
    w = np.linalg.solve(system, x.T @ y)
    curvature = RowCurvature(torch.from_numpy(x))
    for i in range(8):
        gradient = 2 * (z[i] @ w - label[i]) * z[i]
        step = -exact(curvature, torch.from_numpy(gradient)[:, None], damping).x[:, 0] / 50
        leverage = z[i] @ np.linalg.solve(system, z[i])
        joined = np.linalg.solve(system + np.outer(z[i], z[i]), x.T @ y + label[i] * z[i])
        np.testing.assert_allclose(step.numpy() / (1 + leverage), joined - w, rtol=0, atol=1e-10)
    for i in range(5):  # and taking a train row away: over one minus its leverage
        gradient = 2 * (x[i] @ w - y[i]) * x[i]
        step = exact(curvature, torch.from_numpy(gradient)[:, None], damping).x[:, 0] / 50
        leverage = x[i] @ np.linalg.solve(system, x[i])
        left = np.linalg.solve(system - np.outer(x[i], x[i]), x.T @ y - y[i] * x[i])
        np.testing.assert_allclose(step.numpy() / (1 - leverage), left - w, rtol=0, atol=1e-10)


def test_values_rank_points_as_refits_of_the_last_layer_do(regressor):
    """Sign and order against the truth: the target loss after refitting with each point."""
    train, target, points = molecules()
    layer = LastLayer(regressor, train, share=0.05)
    without = layer.loss_with(points.take(np.arange(0)), target)
    truth = [without - layer.loss_with(points.take(np.array([i])), target) for i in range(POOL)]
    with layer.trained() as gradients:
        found = valued(gradients, damping=0.05)
    assert spearmanr(found.values, truth).statistic > 0.95
    assert np.mean(np.sign(found.values) == np.sign(truth)) > 0.9


@pytest.mark.parametrize(
    ("peft", "size", "damping"),
    [
        ("ia3", 1.0, 0.05),
        ("bitfit", 0.3, 0.01),
        ("bitfit", 1.0, 3e-3),
        ("ia3", 0.1, 1e-3),
        ("ia3", 3.0, 3e-4),
    ],
)
def test_on_networks_of_any_conditioning_all_solvers_meet_the_dense_inverse(
    tmp_path, peft, size, damping
):
    """Nobody gives scale, depth or repeats."""
    network = tiny_regressor(tiny_checkpoint(tmp_path / "model"), peft)
    disturb(network)
    with torch.no_grad():
        for parameter in network.model.parameters():
            if parameter.requires_grad:
                parameter.mul_(size)
    network.model.double().eval()
    gradients = OutputGradients(network, "all")
    truth = by_definition(gradients, damping)
    for solver in ("lissa", "cg"):
        found = valued(gradients, solver=solver, damping=damping, tolerance=1e-5)
        assert found.converged
        assert np.linalg.norm(found.values - truth) < 1e-3 * np.linalg.norm(truth)


@pytest.mark.parametrize("n_folds", [2, 3, 5, 300])
def test_values_of_pure_noise_are_said_not_to_differ_from_zero(n_folds):
    """Whatever the degrees of freedom, 5 % seem to differ, and one holds in 5 % of scorings."""
    rng = np.random.default_rng(0)
    warned, told = 0, []
    for _ in range(40):
        folds = rng.normal(size=(300, n_folds))
        found = InfluenceResult(
            values=folds.mean(axis=1),
            standard_error=folds.std(axis=1, ddof=1) / np.sqrt(n_folds),
            fold_values=folds / n_folds,
            solver="lissa",
            damping=1.0,
            largest=1.0,
            iterations=1,
            residuals=(1.0, 0.01),
            agreement=None,
            converged=True,
            freedom=n_folds - 1,
            n_parameters=1,
            n_curvature=1,
            n_train=1,
        )
        sentence = found.sentence()
        told.append(int(sentence.split(" of 300 values")[0].rsplit(" ", 1)[1]))
        warned += "no single value can be told from zero" in sentence
    assert np.mean(told) / 300 == pytest.approx(0.05, abs=0.01)
    assert warned >= 35


def test_the_check_by_another_solver_cannot_undo_an_exact_answer(regressor, monkeypatch):
    def fails(*_, **__):
        raise ValuationError("not today")

    monkeypatch.setattr("lipo_cli.valuation.influence_span.conjugate_gradient", fails)
    found = valued(OutputGradients(regressor, "output"), damping=0.05)
    assert found.agreement is None
    assert np.isfinite(found.values).all()


def test_a_damping_below_rounding_is_one_line(regressor):
    with pytest.raises(ValuationError, match="damp") as caught:
        valued(OutputGradients(regressor, "head"), solver="exact", damping=1e-22)
    assert "raise --damping" in str(caught.value)
