import numpy as np
import pytest

from lipo_cli.chem.row_order import row_order_test
from lipo_cli.chem.shift import mmd_test, standardised


def test_mmd_is_that_of_its_definition() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(9, 3)), rng.normal(1, 1, size=(7, 3))
    both = np.concatenate([a, b])
    distances = [float(((x - y) ** 2).sum()) for i, x in enumerate(both) for y in both[i + 1 :]]
    width = np.median(distances)

    def mean_kernel(left: np.ndarray, right: np.ndarray) -> float:
        values = [np.exp(-((x - y) ** 2).sum() / width) for x in left for y in right]
        return float(np.mean(values))

    squared = mean_kernel(a, a) - 2 * mean_kernel(a, b) + mean_kernel(b, b)
    assert mmd_test(a, b, seed=0).mmd == pytest.approx(np.sqrt(squared), rel=1e-9)


def test_samples_of_one_distribution_are_not_told_apart() -> None:
    p_values = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        p_values.append(mmd_test(rng.normal(size=(60, 4)), rng.normal(size=(80, 4)), seed).p_value)
    assert min(p_values) > 0.003
    assert 0.2 < np.mean(p_values) < 0.8


def test_shifted_sample_is_told_apart() -> None:
    rng = np.random.default_rng(0)
    test = mmd_test(rng.normal(size=(100, 4)), rng.normal(0.8, 1, size=(100, 4)), 0)
    assert test.p_value < 0.01
    assert test.ratio > 2


def test_standardised_by_the_reference_and_clipped() -> None:
    reference = np.array([[0.0, 5.0], [2.0, 5.0]])
    values = standardised(np.array([[3.0, 6.0], [1e9, 5.0]]), reference)
    assert values.tolist() == [[2.0, 1.0], [10.0, 0.0]]


def test_blocks_of_rows_are_found_though_they_neither_rise_nor_fall() -> None:
    values = np.concatenate([np.full(50, level) for level in (1.0, 0.5, 0.8, 0.5)])
    values += np.random.default_rng(0).normal(0, 0.05, 200)
    test = row_order_test(values, seed=0)
    assert test is not None
    assert test.explained > 0.7
    assert test.p_value < 0.01


def test_shuffled_rows_have_no_order() -> None:
    p_values = []
    for seed in range(20):
        test = row_order_test(np.random.default_rng(seed).normal(size=200), seed)
        assert test is not None
        p_values.append(test.p_value)
    assert min(p_values) > 0.004
    assert 0.2 < np.mean(p_values) < 0.8


def test_few_or_equal_values_cannot_be_judged() -> None:
    assert row_order_test(np.arange(39.0), 0) is None
    assert row_order_test(np.ones(100), 0) is None
