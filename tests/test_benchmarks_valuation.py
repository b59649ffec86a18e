"""The benchmark against pyDVL: the same game goes over, and times are compared at equal error."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from tests.fixtures.bench import make_bench

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import valuation
from valuation import Problem, Side, main, run_ours, run_pydvl

STUB = """
import itertools, sys, types
import importlib.metadata
import numpy as np

class Dataset:
    def __init__(self, x, y):
        self.x, self.y = x, y

class SupervisedScorer:
    def __init__(self, score, rows, default):
        self.score, self.rows, self.default = score, rows, default

class ModelUtility:
    def __init__(self, model, scorer):
        self.model, self.scorer = model, scorer
    def __call__(self, points, subset):
        if not len(subset):
            return self.scorer.default
        fitted = self.model.fit(points.x[subset], points.y[subset])
        return self.scorer.score(fitted, self.scorer.rows.x, self.scorer.rows.y)

class PermutationSampler:
    def __init__(self, seed):
        self.seed = seed

class AntitheticPermutationSampler(PermutationSampler):
    pass

class MinUpdates:
    def __init__(self, n):
        self.n = n

class ShapleyValuation:
    def __init__(self, utility, sampler, done):
        self.utility, self.sampler, self.done = utility, sampler, done
    def fit(self, points):
        rng, n, total, drawn = np.random.default_rng(self.sampler.seed), len(points.y), 0, 0
        while drawn < self.done.n:
            order = rng.permutation(n)
            paired = isinstance(self.sampler, AntitheticPermutationSampler)
            for each in (order, order[::-1]) if paired else (order,):
                worth = [self.utility(points, each[:k]) for k in range(n + 1)]
                marginals = np.empty(n)
                marginals[each] = np.diff(worth)
                total, drawn = total + marginals, drawn + 1
        turned = np.arange(n)[::-1]  # results need not come in the order of the points
        self.result = types.SimpleNamespace(
            names=turned.astype(str), values=(total / drawn)[turned], counts=np.full(n, drawn)
        )

module = types.ModuleType("pydvl.valuation")
for thing in (Dataset, SupervisedScorer, ModelUtility, PermutationSampler, MinUpdates,
              AntitheticPermutationSampler, ShapleyValuation):
    setattr(module, thing.__name__, thing)
sys.modules["pydvl"], sys.modules["pydvl.valuation"] = types.ModuleType("pydvl"), module
real = importlib.metadata.version
importlib.metadata.version = lambda name: "0.0-stub" if name == "pydvl" else real(name)
"""
"""A pyDVL that samples permutations, slowly; what the benchmark hands to it is what is tested."""


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """A python in which the stub is pydvl."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(STUB)
    path = tmp_path / "python"
    path.write_text(f'#!/bin/sh\nPYTHONPATH="{tmp_path / "site"}" exec "{sys.executable}" "$@"\n')
    path.chmod(0o755)
    return path


def make_problem() -> Problem:
    rng = np.random.default_rng(0)
    parts = [rng.normal(size=shape) for shape in ((60, 4), 60, (6, 4), 6, (20, 4), 20)]
    for i in (0, 1):  # train is centred
        parts[i] = parts[i] - parts[i].mean(axis=0)
    return Problem(*parts, ridge=1.0)


def test_every_way_of_pydvl_plays_our_game(python: Path) -> None:
    problem = make_problem()
    game = problem.game()
    total = game.utility(range(6)) - game.utility([])
    plan = {"refit": (40, 3), "sums": (40, 3), "sums, pairs": (40, 3)}
    sides, version = run_pydvl(problem, python, plan)
    assert version == "0.0-stub"
    assert [side.name for side in sides] == ["pyDVL, refit", "pyDVL, sums", "pyDVL, sums, pairs"]
    ours = run_ours(problem, permutations=2000, runs=3)
    for side in sides:
        np.testing.assert_allclose(side.values.sum(axis=1), total, atol=1e-9)
        error = np.abs(side.values.mean(axis=0) - ours.values.mean(axis=0))
        assert (error < 5 * side.values.std(axis=0, ddof=1) / np.sqrt(3) + 1e-3).all()
    # One seed draws the same permutations, however the ridge is fitted.
    np.testing.assert_allclose(sides[0].values, sides[1].values, atol=1e-10)


def test_another_game_and_a_python_without_pydvl_are_refused(
    python: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SystemExit, match="No such file"):
        run_pydvl(make_problem(), python.with_name("absent"), {})
    with pytest.raises(SystemExit, match="pydvl"):
        run_pydvl(make_problem(), Path(sys.executable), {"sums": (1, 3)})
    other = valuation._PYDVL.replace('float(data["ridge"])', '7 * float(data["ridge"])')
    monkeypatch.setattr(valuation, "_PYDVL", other)
    with pytest.raises(SystemExit, match="another game"):
        run_pydvl(make_problem(), python, {"sums": (1, 3)})


def test_time_goes_with_the_square_of_the_error() -> None:
    values = np.array([[1.0], [2.0], [3.0]])
    side = Side("one", permutations=5, seconds=2.0, values=values)
    assert side.error == 1.0
    assert side.seconds_for(0.1) == pytest.approx(200.0)


def test_the_section_compares_at_equal_error(
    python: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_bench(tmp_path)
    page = tmp_path / "page.md"
    asked = [
        *("--pydvl", str(python), "--data", str(tmp_path / "primary.csv"), "--quick"),
        *("--secondary", str(tmp_path / "secondary.csv"), "--model", str(tmp_path / "model")),
    ]
    assert main([*asked, "--page", str(page)]) == 0
    text = capsys.readouterr().out
    assert "12 points on top of" in text
    rows = [line.split("|") for line in text.splitlines() if line.startswith(("| pyDVL", "| ours"))]
    assert [row[1].strip() for row in rows][-1] == "ours"
    assert rows[-1][6].strip() == "1"
    assert len(rows) == 4
    assert "valuation:begin" in page.read_text(encoding="utf-8")
    with pytest.raises(SystemExit):
        valuation.parse(["--pydvl", "x", "--runs", "2"])
