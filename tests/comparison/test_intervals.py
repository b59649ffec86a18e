"""Variances, intervals, p values and Holm's correction against textbooks, scipy and simulation."""

from itertools import combinations

import numpy as np
import pytest
from scipy.stats import f_oneway, nct, norm, ttest_1samp, ttest_rel
from scipy.stats import t as student_t

from lipo_cli.comparison.intervals import (
    Component,
    between_splits,
    detectable,
    half_width,
    holm,
    molecule_component,
    p_value,
    residual_variance,
    rmse_terms,
)


def rng(seed=0):
    return np.random.default_rng(seed)


def test_the_mean_of_the_terms_is_the_rmse():
    predicted, measured = rng().normal(size=(2, 60))
    expected = np.sqrt(np.mean((predicted - measured) ** 2))
    assert rmse_terms(predicted, measured).mean() == pytest.approx(expected, rel=1e-12)
    assert rmse_terms(measured, measured).tolist() == [0.0] * 60


def test_the_spread_of_the_terms_is_the_bootstraps():
    generator = rng(1)
    measured = generator.normal(size=400)
    predicted = measured + generator.standard_t(5, size=400)
    terms = rmse_terms(predicted, measured)
    rows = generator.integers(0, 400, (4000, 400))
    resampled = np.sqrt(np.mean((predicted - measured)[rows] ** 2, axis=1))
    expected = resampled.std()
    assert np.sqrt(molecule_component(terms).variance) == pytest.approx(expected, rel=0.06)


def test_molecules_alone_give_the_paired_t_test():
    first, second = rng(2).normal(size=(2, 30))
    component = [molecule_component(first - second)]
    expected = ttest_rel(first, second)
    interval = expected.confidence_interval(0.95)
    delta = float(np.mean(first - second))
    assert p_value(delta, component) == pytest.approx(expected.pvalue, rel=1e-6)
    assert delta + half_width(component) == pytest.approx(interval.high)


def test_two_treatments_leave_the_variance_of_the_paired_t_test():
    first, second = rng(3).normal(size=(2, 5))
    blocks = [*range(5)] * 2
    one = residual_variance(blocks, ["a"] * 5 + ["b"] * 5, [*first, *second])
    assert one is not None
    assert one.df == 4
    components = [Component(2 * one.variance / 5, one.df)]
    expected = ttest_1samp(first - second, 0).pvalue
    assert p_value(float(np.mean(first - second)), components) == pytest.approx(expected, rel=1e-6)


def test_one_block_leaves_the_within_variance_of_a_one_way_analysis():
    groups = rng(4).normal(size=(3, 6))
    one = residual_variance([0] * 18, np.repeat([0, 1, 2], 6).tolist(), groups.ravel().tolist())
    assert one is not None
    between = 6 * groups.mean(axis=1).var(ddof=1)
    assert one.df == 15
    assert between / one.variance == pytest.approx(f_oneway(*groups).statistic)


def test_an_unbalanced_design_is_that_of_its_normal_equations():
    blocks, treatments = [0, 0, 1, 1, 2, 2, 2], ["a", "b", "a", "c", "a", "b", "c"]
    values = rng(5).normal(size=7)
    design = np.array(
        [[1, b == 1, b == 2, t == "b", t == "c"] for b, t in zip(blocks, treatments, strict=True)],
        float,
    )
    fitted = design @ np.linalg.solve(design.T @ design, design.T @ values)
    one = residual_variance(blocks, treatments, values.tolist())
    assert one is not None
    assert (one.df, one.variance) == (2, pytest.approx(np.sum((values - fitted) ** 2) / 2))


def test_no_degrees_of_freedom_is_no_variance():
    assert residual_variance([0, 0], ["a", "b"], [0.1, 0.2]) is None


def test_the_interval_and_the_p_value_say_the_same():
    components = [Component(1e-4, 3), Component(2e-4, 800)]
    for level in (0.5, 0.9, 0.95, 0.999):
        assert p_value(half_width(components, level), components) == pytest.approx(1 - level)
    assert p_value(0.0, components) == 1.0
    assert p_value(-0.05, components) == p_value(0.05, components)
    assert p_value(5.0, [Component(1e-8, 900)]) <= 1e-12
    assert p_value(0.1, [Component(0.0, 3)]) <= 1e-12


def test_the_detectable_difference_has_the_power_it_claims():
    component = [Component(0.01**2, 10_000)]
    smallest = detectable(component)
    estimates = rng(6).normal(smallest, 0.01, 20_000)
    assert np.mean(estimates > norm.ppf(0.975) * 0.01) == pytest.approx(0.8, abs=0.01)


@pytest.mark.parametrize("df", [1, 2, 4, 10])
@pytest.mark.parametrize("level", [0.95, 1 - 0.05 / 8])
def test_the_power_of_one_component_is_the_noncentral_ts(df, level):
    smallest = detectable([Component(0.02**2, df)], level)
    needed = student_t.ppf(1 - (1 - level) / 2, df)
    seen = nct.sf(needed, df, smallest / 0.02)
    assert seen == pytest.approx(0.8, abs=0.005)


@pytest.mark.parametrize("df", [(1, 839), (4, 839), (2, 3)])
@pytest.mark.parametrize("variances", [(1e-4, 1e-4), (1e-6, 1e-4), (1e-4, 1e-6)])
def test_the_power_of_two_components_is_that_of_simulated_runs(df, variances):
    components = [Component(v, d) for v, d in zip(variances, df, strict=True)]
    n, generator = 40_000, rng(8)
    estimated = [c.variance * generator.chisquare(c.df, n) / c.df for c in components]
    needed = sum(
        student_t.ppf(0.975, c.df) ** 2 * e for c, e in zip(components, estimated, strict=True)
    )
    deltas = generator.normal(detectable(components), np.sqrt(sum(variances)), n)
    assert np.mean(np.square(deltas) > needed) == pytest.approx(0.8, abs=0.01)


def test_what_has_no_noise_is_seen_and_what_has_no_end_is_not():
    assert detectable([Component(0.0, 3)]) == 0
    assert detectable([Component(np.inf, 1), Component(0.1, 3)]) == np.inf


def test_holm_is_the_closed_test_of_bonferronis():
    """A hypothesis falls iff every intersection that holds it falls by Bonferroni."""
    for seed in range(20):
        p = rng(seed).uniform(0, 0.08, 5)
        sets = [s for size in range(1, 6) for s in combinations(range(5), size)]
        closed = [max(min(1, len(s) * min(p[list(s)])) for s in sets if i in s) for i in range(5)]
        assert holm(p.tolist()) == pytest.approx(closed)
    assert holm([]) == []
    assert holm([0.9, 0.8]) == [1.0, 1.0]


def test_splits_are_not_taken_for_independent():
    means = [0.1, 0.3, 0.2, 0.5]
    found = between_splits(means, 0.125)
    assert found.df == 3
    assert found.variance == pytest.approx((0.25 + 0.125) * np.var(means, ddof=1))


@pytest.mark.parametrize("n_seeds", [2, 3])
@pytest.mark.parametrize("sd", [(0.02, 0.02, 0.2), (0.0, 0.3, 0.1), (0.02, 0.3, 0.1)])
def test_the_interval_covers_what_it_says(n_seeds, sd):
    """Five arms, seeds crossed with molecules: at least 95 % (less two standard errors)."""
    of_seed, of_molecule, rest = sd
    generator = rng(7)
    n_arms, n, n_trials = 5, 80, 400
    covered = 0
    for _ in range(n_trials):
        terms = (
            generator.normal(0, of_seed, (n_arms, n_seeds, 1))
            + generator.normal(0, of_seed, (1, n_seeds, 1))
            + generator.normal(0, of_molecule, (n_arms, 1, n))
            + generator.normal(0, rest, (n_arms, n_seeds, n))
        )
        means = terms.mean(axis=2)
        seeds = np.tile(np.arange(n_seeds), n_arms).tolist()
        arms = np.repeat(np.arange(n_arms), n_seeds).tolist()
        one = residual_variance(seeds, arms, means.ravel().tolist())
        assert one is not None
        difference = (terms[1] - terms[0]).mean(axis=0)
        components = [
            Component(2 * one.variance / n_seeds, one.df),
            molecule_component(difference),
        ]
        covered += abs(difference.mean()) <= half_width(components)
    assert covered / n_trials >= 0.95 - 2 * np.sqrt(0.95 * 0.05 / n_trials)
