"""The benchmark of curves: an order by true quality beats random ones, a random one does not."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from tests.fixtures.bench import N_SECONDARY, make_bench

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import curves
from curves import Judged, curve, judge, level, main, random_curves, standing

from lipo_cli.valuation.ridge_game import RidgeGame

N = 120


def made_game() -> tuple[RidgeGame, np.ndarray]:
    """Returns a game, a third of whose players have bad labels, and the quality of each."""
    rng = np.random.default_rng(0)
    weights = rng.normal(size=5)
    train, players, rows = (rng.normal(size=(n, 5)) for n in (60, N, 80))
    # Wrong by one offset: its harm grows evenly, so that random orders are even about their mean.
    error = np.where(np.arange(N) % 3 == 0, 2.0, 0.0) + 0.2 * rng.normal(size=N)
    labels = train @ weights + rng.normal(size=60)
    game = RidgeGame.on_top_of(
        train, labels, players, players @ weights + error, rows, rows @ weights, ridge=1.0
    )
    return game, -np.abs(error)


def test_true_quality_is_below_random_and_its_reverse_above() -> None:
    game, quality = made_game()
    random = random_curves(game, 100, seed=0)
    found = Judged("made", "secondary", random, judge(game, {"quality": quality}))
    best, worst = (found.standings(d)["quality"] for d in curves.DIRECTIONS)
    assert best.gap < 0 < worst.gap
    assert best.p == best.corrected == pytest.approx(2 / 101)
    assert worst.p == pytest.approx(2 / 101)


def test_an_order_drawn_at_random_is_unremarkable() -> None:
    """Over many orders, p is as small as 0.05 in one of twenty."""
    game, _ = made_game()
    random = random_curves(game, 200, seed=0)
    others = random_curves(game, 200, seed=1)
    assert not np.array_equal(random, others)
    p = np.array([standing(each, random).p for each in others])
    assert p.min() >= 2 / 201
    assert np.mean(p < 0.05) == pytest.approx(0.05, abs=0.04)
    assert np.median(p) == pytest.approx(0.5, abs=0.12)


def test_a_curve_is_the_error_of_refits_and_all_share_their_ends() -> None:
    game, quality = made_game()
    order = np.argsort(-quality)
    found = curve(game, order)
    assert found.shape == (N + 1,)
    for k in (0, 1, 7, N):
        assert found[k] == pytest.approx(-game.utility(order[:k]))
    random = random_curves(game, 3, seed=0)
    assert random[:, 0] == pytest.approx(found[0])
    assert random[:, -1] == pytest.approx(found[-1])
    assert level(found) == pytest.approx(np.mean([found[k] for k in range(1, N)]))


def test_worst_first_adds_the_lowest_value_first() -> None:
    game, quality = made_game()
    found = judge(game, {"quality": quality})
    lowest, highest = int(np.argmin(quality)), int(np.argmax(quality))
    assert found["worst first"]["quality"][1] == pytest.approx(-game.utility([lowest]))
    assert found["best first"]["quality"][1] == pytest.approx(-game.utility([highest]))


def test_chance_is_not_counted_among_the_methods() -> None:
    game, quality = made_game()
    values = {"chance": np.random.default_rng(0).normal(size=N), "a": quality, "b": quality}
    found = Judged("made", "secondary", random_curves(game, 100, seed=0), judge(game, values))
    standings = found.standings("best first")
    assert standings["chance"].corrected is None
    assert standings["a"].corrected == pytest.approx(4 / 101)


def test_every_method_is_in_the_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_bench(tmp_path)
    page = tmp_path / "docs" / "page.md"
    asked = [
        *("--data", str(tmp_path / "primary.csv"), "--model", str(tmp_path / "model")),
        *("--secondary", str(tmp_path / "secondary.csv"), "--quick", "--page", str(page)),
    ]
    assert main([*asked, "--parameters", "head"]) == 0
    text = capsys.readouterr().out
    for method in ("chance", "error of the model", "tsds", "knn", "loo", "influence, head"):
        assert text.count(f"| {method} |") == 4  # two pools in two games
    assert text.count("| random orders, 95 % of them |") == 4
    assert text.count("of 2 draws") == 4
    assert "40 points beside" in text
    assert f"{N_SECONDARY} points beside" in text
    assert (page.parent / "figures" / curves.FIGURE).stat().st_size > 10_000
    assert "curves:begin" in page.read_text(encoding="utf-8")
