"""`lipo compare` as a user types it, killed as a user never would."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from lipo_cli.chem import demo
from lipo_cli.commands import compare_run
from lipo_cli.commands.compare_output import write_result
from lipo_cli.comparison.prepare import prepare
from lipo_cli.errors import ModelError, TrackingError
from lipo_cli.main import main
from lipo_cli.settings import CompareSettings, build
from lipo_cli.tracking.ledger import MlflowLedger
from lipo_cli.tracking.runs import find_runs
from lipo_cli.tracking.stale import find_stale
from lipo_cli.tracking.store import open_store
from tests.fixtures.models import tiny_checkpoint

DEMO = Path(demo.__path__[0])
NUMBERS = ["selection", "peft", "seed", "n_selected", "val_rmse", "test_rmse"]


class Bench:
    """A folder with a small dataset and a tiny model, and the command line on them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.model = tiny_checkpoint(folder / "model")
        for name, n in (("primary", 90), ("secondary", 24)):
            pd.read_csv(DEMO / f"{name}.csv").head(n).to_csv(folder / f"{name}.csv", index=False)

    def command(self, store: str, *more: str) -> list[str]:
        fixed = [
            "--dataset", "primary.csv", "--secondary", "secondary.csv", "--model", "model",
            "--precision", "float32", "--batch-size", "8", "--epochs", "5", "-s", "tsds:top=6",
            "-p", "lora", "-p", "bitfit", "--store", store, "--json",
        ]  # fmt: skip
        return [sys.executable, "-m", "lipo_cli", "compare", *fixed, *more]

    def run(self, store: str, *more: str) -> dict:
        done = subprocess.run(
            self.command(store, *more), cwd=self.folder, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("bench"))


@pytest.fixture(scope="module")
def whole(bench: Bench) -> dict:
    """The result of a comparison that nothing disturbed."""
    return bench.run("whole")


def numbers(result: dict) -> list[list]:
    return [[cell[name] for name in NUMBERS] for cell in result["cells"]]


def kill_after(bench: Bench, store: str, n_cells: int, how: signal.Signals) -> int:
    """Starts the comparison, kills it in the cell after the nth, returns its exit code."""
    log = bench.folder / f"{store}.log"
    with log.open("w") as stderr:
        process = subprocess.Popen(
            bench.command(store), cwd=bench.folder, stdout=subprocess.DEVNULL, stderr=stderr
        )
        deadline = time.monotonic() + 240
        while time.monotonic() < deadline and process.poll() is None:
            done, _, rest = log.read_text().rpartition(": done")
            if done.count(": done") + bool(rest) > n_cells or (
                log.read_text().count(": done") == n_cells and "epoch 2/" in rest
            ):
                break
            time.sleep(0.02)
        os.kill(process.pid, how)
        return process.wait(timeout=60)


def test_the_json_has_what_is_documented(whole: dict) -> None:
    assert {"dataset", "cells", "summary", "champion"} <= whole.keys()
    documented = {
        "selection", "peft", "seed", "n_selected", "n_train", "trainable_parameters", "seconds",
        "val_rmse", "test_rmse", "test_mae", "test_r2", "test_spearman", "run_id", "status",
    }  # fmt: skip
    assert all(documented <= cell.keys() for cell in whole["cells"])
    assert len(whole["cells"]) == 8
    assert {"model", "version", "run_id"} <= whole["champion"].keys()


def test_killed_with_9_the_same_command_needs_no_repair(bench: Bench, whole: dict) -> None:
    assert kill_after(bench, "killed-again", 1, signal.SIGKILL) == -signal.SIGKILL
    assert numbers(bench.run("killed-again")) == numbers(whole)
    assert not find_stale(open_store(bench.folder / "killed-again"))


def test_sigterm_ends_the_runs_as_killed(bench: Bench) -> None:
    assert kill_after(bench, "stopped", 1, signal.SIGTERM) == 128 + signal.SIGTERM
    runs = find_runs(open_store(bench.folder / "stopped"), "lipo-compare")
    states = [run.status for run in runs]
    assert "RUNNING" not in states
    assert "KILLED" in states


def test_two_at_once_on_a_fresh_store_both_end_well(bench: Bench, whole: dict) -> None:
    both = [
        subprocess.Popen(
            bench.command("together"),
            cwd=bench.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for process in both:
        out, err = process.communicate(timeout=400)
        assert process.returncode == 0, err
        assert numbers(json.loads(out)) == numbers(whole)


def test_saved_settings_given_back_find_everything(bench: Bench, whole: dict) -> None:
    saved = next((bench.folder / "whole" / "results").glob("*/settings.json"))
    command = [sys.executable, "-m", "lipo_cli", "compare", "--config", str(saved)]
    done = subprocess.run(
        [*command, "--store", "whole", "--json"],
        cwd=bench.folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    again = json.loads(done.stdout)
    assert all(cell["reused"] for cell in again["cells"])
    assert numbers(again) == numbers(whole)


def test_the_figures_are_written_and_logged(bench: Bench, whole: dict) -> None:
    written = {p.name for p in (bench.folder / "whole" / "results").glob("*/figures/*.png")}
    assert written == {
        "rmse_by_cell.png", "training_curves.png", "training_time.png",
        "predicted_vs_measured.png", "removal_curve.png", "values.png",
    }  # fmt: skip
    store = open_store(bench.folder / "whole")
    (parent,) = find_runs(store, "lipo-compare", "tags.`lipo.kind` = 'comparison'")
    for name in written:
        assert parent.artifact(f"figures/{name}").stat().st_size > 5000


def test_the_champion_is_shown_with_the_audit_of_its_secondary_set(
    bench: Bench, whole: dict, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = bench.folder
    files = [str(folder / "secondary.csv"), "--dataset", str(folder / "primary.csv")]
    assert main(["data", "audit", "--secondary", *files, "--json"]) in (0, 1, 3)
    audit = json.loads(capsys.readouterr().out)
    assert whole["champion"] is not None
    assert main(["model", "show", "--store", str(folder / "whole"), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["audit"], shown["audit_line"]) == (audit["level"], audit["one_line"])


def test_a_champion_that_cannot_be_registered_is_told_after_the_table(
    bench: Bench, whole: dict, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise TrackingError("the registry is not there", where="lipophilicity")

    monkeypatch.setattr(MlflowLedger, "promote", refuse)
    monkeypatch.chdir(bench.folder)
    out = bench.folder / "refused"
    assert main([*bench.command("whole")[3:], "--out", str(out)]) == TrackingError.exit_code
    shown = capsys.readouterr()
    assert numbers(json.loads(shown.out)) == numbers(whole)
    assert shown.err.splitlines()[-1] == "error: lipophilicity: the registry is not there"
    assert (out / "report.html").is_file()
    # It is there for `lipo report`, too.
    assert main(["report", "--store", "whole", "--out", str(out / "again.html")]) == 0


def test_a_result_in_the_same_folder_is_replaced_whole(
    bench: Bench, whole: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(bench.folder)
    command = bench.command("whole")[3:]
    assert main([*command, "--out", "mine"]) == 0
    names = {str(path.relative_to("mine")) for path in Path("mine").rglob("*") if path.is_file()}
    assert {"values/tsds/values.csv", "figures/removal_curve.png"} <= names
    Path("mine/notes.txt").write_text("a user's own")
    alone = [flag for flag in command if flag not in ("-s", "tsds:top=6")]
    assert main([*alone, "-s", "none", "--no-controls", "--out", "mine"]) == 0
    left = {str(path.relative_to("mine")) for path in Path("mine").rglob("*") if path.is_file()}
    assert "notes.txt" in left
    assert not [name for name in left if name.startswith("values/")]
    assert "figures/removal_curve.png" not in left
    assert {"result.json", "report.html", "figures/rmse_by_cell.png"} <= left
    assert not any("tsds" in path.read_text() for path in Path("mine").glob("*.csv"))


def test_the_mean_label_is_in_the_result(bench: Bench, whole: dict) -> None:
    prepared = prepare(
        build(CompareSettings, {"data": {"dataset": str(bench.folder / "primary.csv")}}).data
    )
    mean = prepared.train.labels.mean()
    (constant,) = whole["constants"]
    for part in ("val", "test"):
        error = ((prepared.part(part).labels - mean) ** 2).mean() ** 0.5
        assert constant[f"{part}_rmse"] == pytest.approx(error)


def test_every_model_is_looked_for_before_the_first_is_trained(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(bench.folder)
    command = [*bench.command("nothing")[3:], "--model", "nosuch"]
    for more in ([], ["--dry-run"]):
        assert main([*command, *more]) == ModelError.exit_code
        assert "no model 'nosuch'" in capsys.readouterr().err
    assert not (bench.folder / "nothing").exists()


def test_ctrl_c_while_the_result_is_drawn_is_heard_after_it(
    bench: Bench, whole: dict, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    written = []

    def interrupted(*arguments: Any) -> list[Path]:
        os.kill(os.getpid(), signal.SIGINT)
        written.extend(write_result(*arguments))
        return written

    monkeypatch.setattr(compare_run, "write_result", interrupted)
    monkeypatch.chdir(bench.folder)
    assert main([*bench.command("whole")[3:], "--out", "drawn"]) == 130
    assert written
    assert all(path.is_file() for path in written)
    # The comparison had finished before, and `lipo report` finds it still.
    capsys.readouterr()
    assert main(["report", whole["run_id"], "--store", "whole", "--out", "drawn.html"]) == 0


def test_a_misspelt_selection_is_found_before_the_data_are_read(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["compare", "--dataset", "missing.csv", "--selection", "tsd"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: selection: 'tsd' is no selection (valid: none, all, random:k=K")


def test_the_plan_of_a_dry_run_ends_with_its_time(
    bench: Bench, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(bench.folder)
    arguments = [text for text in bench.command("dry", "--dry-run")[3:] if text != "--json"]
    assert main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    header = next(i for i, line in enumerate(lines) if line.split()[:2] == ["selection", "role"])
    assert "  data.dataset = primary.csv" in lines[:header]
    named = [line.split()[0] for line in lines[header + 1 : -1]]
    assert named == ["none", "all", "tsds:top=6", "random,"]
    assert lines[-1].startswith("8 cells on a pool of 24, 5 epochs each: about ")
    assert main([*arguments, "-s", "tsds:top=25"]) == 2
    assert "of a pool of 24 (K must be 1 to 24)" in capsys.readouterr().err


def test_a_dry_run_computes_nothing(bench: Bench) -> None:
    plan = bench.run("dry", "--dry-run")
    assert plan["n_cells"] == 8
    assert plan["seconds"] > 0
    assert not (bench.folder / "dry").exists()


def test_a_file_as_out_is_refused_before_the_work(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    taken = bench.folder / "taken"
    taken.write_text("precious")
    assert main(["compare", "--out", str(taken)]) == 2
    assert "is a file, not a folder" in capsys.readouterr().err


def test_a_model_on_the_command_line_wins_over_those_of_saved_settings(
    bench: Bench, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = tmp_path / "settings.json"
    saved.write_text(json.dumps({"models": ["small", str(tmp_path / "gone")]}))
    flags = ["--dataset", "demo", "--peft", "lora", "--selection", "none", "--dry-run", "--json"]
    model = str(tiny_checkpoint(tmp_path / "tiny"))
    assert main(["compare", "--config", str(saved), "--model", model, *flags]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert str(tmp_path / "gone") not in json.dumps(plan)
