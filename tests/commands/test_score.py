"""`lipo score`, from the flags to the value table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from lipo_cli.main import main
from lipo_cli.tracking.runs import find_runs
from lipo_cli.tracking.store import open_store
from lipo_cli.valuation.table import read_curve, read_values
from tests.fixtures.bench import N_SECONDARY, make_bench


@pytest.fixture
def command(tmp_path: Path, store_root: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.chdir(tmp_path)
    return [
        *("score", *make_bench(tmp_path / "bench"), "--secondary", "bench/secondary.csv"),
        *("--reference-peft", "lora", "--components", "8", "--relative-error", "0.5"),
        *("--store", str(store_root)),
    ]


def score_runs(root: Path) -> int:
    return len(find_runs(open_store(root), "lipo", "tags.`lipo.kind` = 'score'"))


def read_json(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_values_are_json_are_written_and_are_found_again(
    command: list[str], store_root: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = tmp_path / "new" / "values"
    assert main([*command, "--out", str(out), "--json"]) == 0
    first = read_json(capsys)
    assert (first["dataset"], first["split"]) == ("primary.csv", "reference")
    assert first["scope"].startswith("primary.csv:")
    assert (first["method"], first["game"]) == ("tsds", "secondary")
    assert first["reason"]
    assert isinstance(first["converged"], bool)
    assert isinstance(first["n_optimal"], int)
    assert sum(point["selected"] for point in first["values"]) == first["n_optimal"]
    assert sorted(point["rank"] for point in first["values"]) == list(range(1, N_SECONDARY + 1))
    table = read_values(out)
    assert table["value"].tolist() == [point["value"] for point in first["values"]]
    assert len(read_curve(out)) > 0
    assert main([*command, "--json"]) == 0
    assert read_json(capsys) == first
    assert score_runs(store_root) == 1


def test_the_game_is_named_and_is_scored_apart(
    command: list[str], store_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, "--json"]) == 0
    assert main([*command, "--game", "empty", "--json"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line)["game"] for line in lines] == ["secondary", "empty"]
    assert score_runs(store_root) == 2


def test_both_ends_are_shown(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command, "--show", "2"]) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("highest values\n")
    assert "lowest values\n" in printed.out
    assert "split reference:" in printed.err
    assert "labels:" not in printed.err


def test_labels_of_two_names_are_announced(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    path = Path("bench/secondary.csv")
    pd.read_csv(path).rename(columns={"logd": "Label"}).to_csv(path, index=False)
    assert main([*command, "--json"]) == 0
    said = capsys.readouterr().err
    assert "labels: column logd of primary.csv, column Label of secondary.csv" in said
    assert main([*command, "--label-column", "logd"]) == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert "secondary.csv: has no column 'logd'" in line
    assert "rename" in line


def test_a_place_that_cannot_be_written_is_refused_before_the_work(
    command: list[str], store_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    taken = Path("taken")
    taken.write_text("precious")
    for out in (taken, taken / "below"):
        assert main([*command, "--out", str(out)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"error: --out: {out} ")
    assert score_runs(store_root) == 0


def test_without_a_secondary_set_nothing_is_trained(
    command: list[str], store_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    at = command.index("--secondary")
    assert main(command[:at] + command[at + 2 :]) == 3
    assert "give one: --secondary FILE" in capsys.readouterr().err
    assert find_runs(open_store(store_root), "lipo", "") == []


@pytest.mark.parametrize("flags", [["--seed", "-1"], ["--relative-error", "nan"], ["--show", "-1"]])
def test_numbers_that_make_no_sense(
    command: list[str], capsys: pytest.CaptureFixture[str], flags: list[str]
) -> None:
    assert main([*command, *flags]) == 2
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("method", "more", "said"),
    [
        ("influence", ["--solver", "lissa", "--damping", "0.1"], "residual"),
        ("influence", ["--parameters", "head"], "n_parameters"),
        ("knn", ["--neighbours", "3"], "neighbours"),
        ("loo", [], "proxy_val_rmse_all"),
    ],
)
def test_every_method_scores_selects_and_is_found_again(
    command: list[str],
    method: str,
    more: list[str],
    said: str,
    store_root: Path,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    asked = [*command, "--method", method, *more, "--json"]
    assert main([*asked, "--out", str(tmp_path / "values")]) == 0
    first = read_json(capsys)
    assert first["method"] == method
    assert first[said] > 0
    assert all(point["standard_error"] > 0 for point in first["values"])
    assert main(asked) == 0
    assert read_json(capsys) == first
    assert score_runs(store_root) == 1
    assert main(["select", str(tmp_path / "values"), "-s", f"{method}:top=3", "--json"]) == 0
    drawn = {path.stem for path in (tmp_path / "values").glob("*.png")}
    assert drawn >= {"values", "removal_curve", "diagnostics", "molecules"}
    assert ("residuals" in drawn) == ("lissa" in more)
    highest = [point["row"] for point in first["values"] if point["rank"] <= 3]
    assert sorted(read_json(capsys)["rows"]) == sorted(highest)
    assert main(["select", str(tmp_path / "values"), "-s", "tsds:top=3"]) == 2
    assert f"write {method}:top=3" in capsys.readouterr().err


def test_a_table_without_room_for_exact_algebra_is_one_line(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    asked = [*command, "-m", "influence", "--solver", "exact", "--table-gib", "1e-9"]
    assert main(asked) == 6
    assert "--solver lissa or cg" in capsys.readouterr().err
