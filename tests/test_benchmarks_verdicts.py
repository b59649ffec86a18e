"""The benchmark of the verdicts: its worlds are as they are said to be, its intervals known."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_rel

from lipo_cli.settings import DataSettings

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import verdicts
from verdicts import half_widths, simulated, write_world

from lipo_cli.comparison.prepare import prepare


def test_with_nothing_to_find_the_pool_is_a_copy_of_train_rows(tmp_path: Path) -> None:
    prepared = prepare(DataSettings(**write_world(tmp_path / "null", 3, "null")))
    sizes = [len(prepared.split.part(part)) for part in ("train", "val", "test")]
    assert sizes == [verdicts.N_TRAIN, verdicts.N_VAL, verdicts.N_TEST]
    pool = prepared.require_pool().examples
    assert len(pool) == verdicts.N_COPIES
    train = set(zip(prepared.train.smiles, prepared.train.labels, strict=True))
    assert set(zip(pool.smiles, pool.labels, strict=True)) <= train


@pytest.mark.parametrize("kind", verdicts.PLANTED)
def test_half_of_a_planted_pool_is_wrong_and_none_of_it_is_known(
    tmp_path: Path, kind: verdicts.World
) -> None:
    settings = DataSettings(**write_world(tmp_path / kind, 3, kind))
    prepared = prepare(settings)
    pool = prepared.require_pool().examples
    source = pd.read_csv(Path(verdicts.demo.__path__[0]) / "primary.csv")
    truth = dict(zip(source["smiles"], source["logd"], strict=True))
    table = pd.read_csv(str(settings.secondary))
    off = np.array([y - truth[s] for s, y in zip(table["smiles"], table["logd"], strict=True)])
    np.testing.assert_array_equal(verdicts.wrong_labels(pool), off != 0)
    wrong = np.count_nonzero(np.abs(off) > 1e-9)
    # A shuffled label may meet its equal.
    assert verdicts.N_POOL // 2 - 5 <= wrong <= verdicts.N_POOL // 2
    if kind == "shifted":
        assert off.min() == pytest.approx(0)
        shift = 2 * np.std([truth[s] for s in table["smiles"]])
        assert off[np.abs(off) > 1e-9] == pytest.approx(np.full(wrong, shift))
    assert not set(pool.smiles) & set(prepared.train.smiles)


def test_the_interval_over_seeds_is_that_of_the_paired_t_test() -> None:
    terms = simulated(np.random.default_rng(0), 4, (0.02, 0.3, 0.1))
    expected = ttest_rel(*terms.mean(axis=2)[[1, 0]]).confidence_interval(0.95)
    off, half = half_widths(terms, np.random.default_rng(0))["t over seeds"]
    assert half == pytest.approx((expected.high - expected.low) / 2)
    assert off == pytest.approx(abs(expected.high + expected.low) / 2)
