"""The benchmark against pyDVL: the same game goes over, and ours stops at the same error."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from tests.fixtures.bench import make_bench

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import valuation
from valuation import Problem, main, run_ours, run_pydvl

FAKE = """#!{python}
import json, sys
import numpy as np
data, n = np.load(sys.argv[3]), int(sys.argv[4])
assert set(data) == {{"base_z", "base_y", "players_z", "players_y", "val_z", "val_y", "ridge"}}
count = len(data["players_y"])
print("a line that is no answer")
print(json.dumps(dict(seconds=60.0, values=[0.5] * count, errors=[1e-3] * count, permutations=n,
                      version="0.10.0")))
"""
"""Answers as the worker would; its arguments are `-c CODE FILE PERMUTATIONS`."""


@pytest.fixture
def python(tmp_path: Path) -> Path:
    path = tmp_path / "python"
    path.write_text(FAKE.format(python=sys.executable))
    path.chmod(0o755)
    return path


def make_problem() -> Problem:
    rng = np.random.default_rng(0)
    parts = [rng.normal(size=shape) for shape in ((60, 4), 60, (10, 4), 10, (20, 4), 20)]
    return Problem(*parts, ridge=1.0)


def test_ours_draws_until_its_error_is_no_larger() -> None:
    problem = make_problem()
    first = run_ours(problem, np.inf)
    assert first.permutations == 8
    more = run_ours(problem, first.error / 3)
    assert more.permutations > 8
    assert more.error <= first.error / 3
    game = problem.game()
    total = game.utility(range(10)) - game.utility([])
    assert more.values.sum() == pytest.approx(total, abs=1e-10)


def test_the_game_goes_over_whole(python: Path) -> None:
    side, version = run_pydvl(make_problem(), python, permutations=7)
    assert (side.permutations, side.seconds, version) == (7, 60.0, "0.10.0")
    assert side.error == 1e-3
    with pytest.raises(SystemExit, match="No such file"):
        run_pydvl(make_problem(), python.with_name("absent"), 7)
    python.write_text(f"#!{sys.executable}\nraise SystemExit('no module named pydvl')\n")
    with pytest.raises(SystemExit, match="no module named pydvl"):
        run_pydvl(make_problem(), python, 7)


def test_the_section_says_how_much_longer_it_takes(
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
    assert "| pyDVL | 4 | 0.001 | 60.00 |" in text
    assert "valuation:begin" in page.read_text(encoding="utf-8")
    assert valuation.parse(["--pydvl", "x"]).page == valuation.DOCS
