"""The benchmark of planted noise: wrong labels are the ones said, and every method is scored."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from tests.fixtures.bench import make_bench

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import detection
from detection import corrupted, main, scores_of


@pytest.mark.parametrize("kind", detection.KINDS)
@pytest.mark.parametrize("share", detection.SHARES)
def test_just_the_labels_that_are_said_to_be_wrong_differ(kind: str, share: float) -> None:
    labels = np.random.default_rng(0).normal(size=200)
    changed, wrong = corrupted(labels, kind, share, seed=1)
    assert wrong.sum() == round(share * 200)
    np.testing.assert_array_equal(changed != labels, wrong)
    if kind == "shuffled":
        np.testing.assert_array_equal(np.sort(changed), np.sort(labels))
    again, _ = corrupted(labels, kind, share, seed=1)
    np.testing.assert_array_equal(again, changed)
    other, _ = corrupted(labels, kind, share, seed=2)
    assert not np.array_equal(other, changed)


def test_perfect_values_and_reversed_ones() -> None:
    wrong = np.array([True, False, False, True, False])
    values = np.where(wrong, -1.0, 1.0)
    assert scores_of(values, wrong) == (1.0, 1.0, 1.0)
    assert scores_of(-values, wrong) == (0.0, 0.0, 0.0)


def test_f1_of_clusters_is_not_told_how_many_labels_are_wrong() -> None:
    wrong = np.arange(100) < 20
    values = np.where(wrong, -1.0, 1.0)
    values[20:40] = -0.9  # right labels that lie with the wrong ones
    auroc, f1, clusters = scores_of(values, wrong)
    assert f1 == 1.0
    assert clusters == pytest.approx(2 * 0.5 / 1.5)
    assert auroc == 1.0


def test_every_method_is_in_the_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_bench(tmp_path)
    page = tmp_path / "docs" / "page.md"
    asked = ["--data", str(tmp_path / "primary.csv"), "--model", str(tmp_path / "model")]
    more = ["--quick", "--share", "0.2", "--parameters", "head", "--page", str(page)]
    assert main([*asked, *more]) == 0
    text = capsys.readouterr().out
    for method in ("chance", "error of the model", "tsds", "knn", "loo", "influence, head"):
        assert text.count(f"| {method} |") == len(detection.KINDS)
    assert (page.parent / "figures" / detection.FIGURE).stat().st_size > 10_000
    assert "planted-noise:begin" in page.read_text(encoding="utf-8")
