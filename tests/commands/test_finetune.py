"""`lipo finetune`, from the flags to the saved regressor."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lipo_cli.commands.compare_view import CompareView
from lipo_cli.main import main
from lipo_cli.model.regressor import Regressor
from lipo_cli.tracking.runs import find_runs
from lipo_cli.tracking.store import open_store
from tests.fixtures.bench import make_bench


@pytest.fixture
def command(tmp_path: Path, store_root: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.chdir(tmp_path)
    return ["finetune", *make_bench(tmp_path / "bench"), "-p", "lora", "--store", str(store_root)]


def n_runs(root: Path) -> int:
    return len(find_runs(open_store(root), "lipo", "tags.`lipo.kind` = 'cell'"))


def test_result_is_json_is_saved_and_is_found_again(
    command: list[str], store_root: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = tmp_path / "new" / "regressor"
    assert main([*command, "--out", str(out), "--json"]) == 0
    first = json.loads(capsys.readouterr().out)
    assert (first["status"], first["reused"], first["peft"]) == ("finished", False, "lora")
    assert first["n_selected"] == 0
    predicted = Regressor.load(out).predict(["CCO", "c1ccccc1"])
    assert np.isfinite(predicted).all()
    assert main([*command, "--json"]) == 0
    second = json.loads(capsys.readouterr().out)
    assert second.pop("reused")
    first.pop("reused")
    assert second == first
    assert n_runs(store_root) == 1


def test_an_interrupted_run_goes_on_and_ends_as_if_nothing_had_happened(
    command: list[str],
    store_root: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(CompareView, "epoch", interrupt)
        assert main([*command, "--json"]) == 130
    assert "goes on where it stopped" in capsys.readouterr().err
    assert main([*command, "--json"]) == 0
    resumed = json.loads(capsys.readouterr().out)
    assert n_runs(store_root) == 1
    other = [*command[:-1], str(tmp_path / "undisturbed")]
    assert main([*other, "--json"]) == 0
    whole = json.loads(capsys.readouterr().out)
    for name in ("val_rmse", "test_rmse", "best_epoch", "n_train"):
        assert resumed[name] == whole[name]


@pytest.mark.parametrize("under", [False, True])
def test_a_place_that_cannot_be_written_is_refused_before_the_work(
    command: list[str],
    store_root: Path,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    under: bool,
) -> None:
    taken = tmp_path / "taken"
    taken.write_text("precious")
    out = taken / "below" if under else taken
    assert main([*command, "--out", str(out)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: --out: {out} ")
    assert taken.read_text() == "precious"
    assert n_runs(store_root) == 0


@pytest.mark.parametrize(
    ("flags", "what"),
    [
        (["--seed", "-1"], "seed"),
        (["--split-seed", "4"], "the split 'reference' does not read split_seed"),
        (["--learning-rate", "inf"], "learning_rate"),
        (["--split", "column", "--fractions", "0.5,0.3,0.2"], "does not read fractions"),
    ],
)
def test_settings_that_make_no_sense_are_one_line(
    command: list[str], capsys: pytest.CaptureFixture[str], flags: list[str], what: str
) -> None:
    assert main([*command, *flags]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert what in line


def test_a_misplaced_name_in_the_default_file_is_an_error(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("lipo.toml").write_text("epochs = 3\n")
    assert main(command) == 2
    assert "it belongs under [training]" in capsys.readouterr().err


def test_a_table_in_words_by_default(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("lora, seed 0: test RMSE ")
    assert "dataset primary.csv" in printed.err


def test_a_missing_file_is_one_line(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command, "--dataset", "nowhere/x.csv"]) == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert "nowhere/x.csv" in line


def test_a_label_that_the_primary_lacks_is_one_line(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    path = Path("bench/primary.csv")
    table = pd.read_csv(path)
    table.assign(other=1.5).to_csv(path, index=False)
    assert main([*command, "--label-column", "pKa"]) == 3
    assert "has no column 'pKa'" in capsys.readouterr().err
