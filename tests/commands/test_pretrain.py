"""`lipo pretrain` from the outside."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from lipo_cli.chem.datasets import load_dataset
from lipo_cli.chem.splits import make_split
from lipo_cli.main import main
from lipo_cli.model.base import resolve_base
from lipo_cli.settings import DataSettings
from lipo_cli.tracking.runs import find_runs
from lipo_cli.tracking.store import open_store
from tests.fixtures.corpora import regular_molecules, write_lines
from tests.fixtures.models import tiny_checkpoint

SMALL = ["--size", "tiny", "--batch-size", "16", "--device", "cpu", "--precision", "float32"]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return write_lines(tmp_path / "corpus.smi", regular_molecules(120))


def command(corpus: Path, out: Path, *more: str) -> list[str]:
    return ["pretrain", str(corpus), "--out", str(out), *SMALL, *more]


def test_report_on_stdout_and_bad_lines_on_stderr(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [*regular_molecules(120), *["?"] * 7]
    file = write_lines(tmp_path / "corpus.smi", lines)
    assert main(command(file, tmp_path / "out", "--steps", "4", "--no-track")) == 0
    captured = capsys.readouterr()
    assert "token frequencies alone" in captured.out
    assert "on 12 held-out molecules" in captured.out
    assert "120 molecules of 127 lines (7 bad)" in captured.err
    assert f"{file}:121: the SMILES has a syntax error" in captured.err
    assert f"{file}:126" not in captured.err
    assert "and 2 more bad lines" in captured.err
    assert resolve_base(str(tmp_path / "out"))


def test_json_is_the_only_thing_on_stdout(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    leave_out = write_lines(tmp_path / "out.csv", ["smiles,exp", f"{regular_molecules(1)[0]},1"])
    arguments = command(corpus, tmp_path / "out", "--steps", "2", "--no-track", "--json")
    assert main([*arguments, "--exclude", str(leave_out)]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["status"] == "finished"
    assert content["steps"] == content["total_steps"] == 2
    assert content["corpus"]["n_excluded"] == 1
    assert content["n_train"] + content["n_validation"] == 119


@pytest.mark.parametrize(
    ("arguments", "exit_code", "message"),
    [
        (["c.smi"], 2, "--out"),
        (["--out", "o"], 2, "a file of SMILES is needed"),
        (["--out", "o", "--adapt"], 2, "--from"),
        (["c.smi", "--out", "o", "--adapt", "--from", "small"], 2, "give no corpus"),
        (["c.smi", "--out", "o", "--epochs", "1", "--steps", "1"], 2, "not both"),
        (["c.smi", "--out", "o", "--mask", "1.5"], 2, "mask"),
        (["c.smi", "--out", "o", "--split", "random"], 2, "split: read with --adapt only"),
        (["no.smi", "--out", "o"], 3, "does not exist"),
        (["c.smi", "--out", "o", "--exclude", "no.csv"], 3, "no.csv: does not exist"),
        (["bad.smi", "--out", "o", "--on-invalid", "error"], 3, "bad.smi:2: the SMILES"),
        (["c.smi", "--out", "o", "--from", "nothing"], 4, "no model 'nothing'"),
    ],
)
def test_mistake_is_one_line_and_an_exit_code(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    exit_code: int,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    write_lines(tmp_path / "c.smi", ["CCO", "CCN"])
    write_lines(tmp_path / "bad.smi", ["CCO", "?"])
    assert main(["pretrain", *arguments]) == exit_code
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "mlruns").exists()


def test_paused_run_goes_on_in_the_same_mlflow_run(
    corpus: Path, tmp_path: Path, store_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = command(corpus, tmp_path / "out", "--steps", "3", "--evaluate-every", "1")
    arguments += ["--store", str(store_root)]
    assert main([*arguments, "--max-minutes", "0.000000001"]) == 0
    assert "paused at step 1 of 3; the same command goes on" in capsys.readouterr().err
    assert main(arguments) == 0
    (run,) = find_runs(open_store(store_root), "lipo-pretrain")
    assert run.status == "FINISHED"
    assert run.params["size"] == "tiny"
    assert run.tags["status"] == "finished"
    assert [step for step, _ in run.history("val_loss")] == [0, 1, 2, 3]
    assert [step for step, _ in run.history("train_loss")] == [1, 2, 3]
    assert run.metrics["final_val_loss"] == pytest.approx(run.history("val_loss")[-1][1])
    assert run.artifact("figures/training.png").is_file()
    assert json.loads(run.artifact("pretrain.json").read_text())["status"] == "finished"


def test_finished_run_is_shown_again_without_a_new_mlflow_run(
    corpus: Path, tmp_path: Path, store_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = command(corpus, tmp_path / "out", "--steps", "1", "--store", str(store_root))
    assert main(arguments) == 0
    first = capsys.readouterr().out
    assert main(arguments) == 0
    assert capsys.readouterr().out == first
    assert len(find_runs(open_store(store_root), "lipo-pretrain")) == 1


@pytest.mark.parametrize("lost", [True, False])
def test_finished_run_without_its_model_is_not_called_saved(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], lost: bool
) -> None:
    arguments = command(corpus, tmp_path / "out", "--steps", "1", "--no-track")
    assert main(arguments) == 0
    weights = tmp_path / "out" / "model.safetensors"
    if lost:
        weights.unlink()
    else:
        weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    capsys.readouterr()
    assert main(arguments) == 4
    assert "model.safetensors" in capsys.readouterr().err


def test_other_bits_are_another_run(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = command(corpus, tmp_path / "out", "--steps", "1", "--no-track")
    assert main(arguments) == 0
    assert main([*arguments, "--half"]) != 0
    assert "half" in capsys.readouterr().err


def test_a_handful_of_molecules_has_no_r2_and_no_complaint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = write_lines(tmp_path / "corpus.smi", regular_molecules(12))
    arguments = command(corpus, tmp_path / "out", "--steps", "1", "--no-track")
    assert main([*arguments, "--objective", "both"]) == 0
    assert "no held-out descriptor varies" in capsys.readouterr().out


def test_settings_of_a_report_are_taken_back(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(corpus, tmp_path / "a", "--steps", "2", "--no-track")) == 0
    report = json.loads((tmp_path / "a" / "pretrain.json").read_text())
    config = tmp_path / "again.json"
    config.write_text(json.dumps(report["settings"]))
    assert (
        main(["pretrain", "--config", str(config), "--out", str(tmp_path / "b"), "--no-track"]) == 0
    )
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in "ab"]
    assert weights[0] == weights[1]


def test_adapting_reads_the_dataset_without_its_test_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = tiny_checkpoint(tmp_path / "base")
    table = tmp_path / "own.csv"
    smiles = regular_molecules(100)
    table.write_text("smiles,exp\n" + "".join(f"{s},{i}\n" for i, s in enumerate(smiles)))
    arguments = ["pretrain", "--adapt", "--from", str(base), "--out", str(tmp_path / "out")]
    arguments += ["--dataset", str(table), "--split", "random", "--device", "cpu"]
    assert main([*arguments, "--no-track", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    settings = DataSettings(dataset=str(table), split="random")
    split = make_split(load_dataset(settings).primary, settings)
    assert content["corpus"]["n_read"] == len(split.train) + len(split.val) == 90
    n_batches = -(-content["n_train"] // 32)
    assert content["total_steps"] == 10 * n_batches
    assert resolve_base(str(tmp_path / "out")).sha256 != resolve_base(str(base)).sha256


@pytest.mark.slow
@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signal_keeps_a_checkpoint_and_ends_the_run_as_killed(
    corpus: Path, tmp_path: Path, store_root: Path, number: signal.Signals, exit_code: int
) -> None:
    out = tmp_path / "out"
    arguments = command(corpus, out, "--steps", "100000", "--checkpoint-every", "100000")
    arguments += ["--store", str(store_root), "--evaluate-every", "5"]
    child = subprocess.Popen(
        [sys.executable, "-m", "lipo_cli", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    wait_for(lambda: curve_of(store_root), child)
    child.send_signal(number)
    _, error = child.communicate(timeout=120)
    assert child.returncode == exit_code, error
    assert "Traceback" not in error
    assert "interrupted (what is finished is kept; the same command goes on)" in error
    assert (out / "state" / "checkpoint.pt").is_file()
    (run,) = find_runs(open_store(store_root), "lipo-pretrain")
    assert run.status == "KILLED"


def curve_of(store_root: Path) -> bool:
    runs = find_runs(open_store(store_root), "lipo-pretrain")
    return bool(runs) and len(runs[0].history("train_loss")) > 0


def wait_for(happened: Any, child: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 180
    while not happened():
        assert child.poll() is None, child.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; import lipo_cli.commands.pretrain; "
        "print(sorted({'torch', 'transformers', 'mlflow', 'rdkit', 'numpy'} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"
