"""The benchmark of influence's peers: one model for all, and what a way cannot do is said."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fixtures.bench import make_bench

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import influence_peers
from influence_peers import main, parse, report, run_side


def test_ours_and_kronfluence_value_the_same_points(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("kronfluence", reason="kronfluence is not installed (lipo[ekfac])")
    make_bench(tmp_path)
    page = tmp_path / "page.md"
    asked = ["--data", str(tmp_path / "primary.csv"), "--model", str(tmp_path / "model")]
    sides = ["--sides", "no curvature: products of gradients", "ours, EK-FAC"]
    sides += ["kronfluence, EK-FAC"]
    assert main([*asked, *sides, "--quick", "--json", "--page", str(page)]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["world"]["n_points"] == 8
    exact, without, mine, peer = told["sides"]
    assert [each["side"] for each in told["sides"]] == ["ours, exact", *sides[1:]]
    assert -1 <= without["spearman"] < 1
    assert exact["spearman"] == pytest.approx(1)
    # The same factors, but for its drawn labels.
    assert mine["spearman"] == pytest.approx(peer["spearman"], abs=0.2)
    assert all(each["peak_gib"] >= each["loaded_gib"] > 0 for each in told["sides"])
    text = page.read_text(encoding="utf-8")
    assert "influence-peers:begin" in text
    assert str(tmp_path) not in text.split("Command:")[0].replace(asked[-1], "")


def test_what_stopped_a_way_is_in_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = parse(["--dry", "--dattri", str(tmp_path)])

    def late(*_: object, **__: object) -> None:
        raise subprocess.TimeoutExpired("python", 900)

    monkeypatch.setattr(subprocess, "run", late)
    stopped = run_side("dattri, CG", tmp_path, arguments)
    assert stopped["stopped"] == "not done after 900 s"

    def failed(*_: object, **__: object) -> argparse.Namespace:
        return argparse.Namespace(returncode=1, stdout="", stderr="trace\nValueError: a | b\n")

    monkeypatch.setattr(subprocess, "run", failed)
    world = {"dataset": "demo", "n_parameters": 1, "damping": 1.0}
    world |= {"n_train": 1, "n_points": 1, "n_target": 1}
    text = report(world, [stopped, run_side("dattri, EK-FAC", tmp_path, arguments)], arguments)
    assert "| dattri, CG | | | | | | not done after 900 s |" in text
    assert "| dattri, EK-FAC | | | | | | ValueError: a / b |" in text


def test_without_dattri_its_ways_are_not_asked() -> None:
    assert not [side for side in parse(["--dry"]).sides if side.startswith("dattri")]
    assert parse(["--dry", "--sides", "ours, EK-FAC"]).sides == ["ours, exact", "ours, EK-FAC"]
    assert influence_peers.parse(["--quick"]).page is None
