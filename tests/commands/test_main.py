from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from lipo_cli import __version__, main
from lipo_cli.errors import DataError, Interrupted, LipoError, PartialFailure

HEAVY = ("torch", "transformers", "mlflow", "pandas", "rdkit", "sklearn", "optuna", "peft")


def lipo(*arguments: str, **more: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "lipo_cli", *arguments],
        capture_output=True,
        text=True,
        check=False,
        **more,  # type: ignore[call-overload]
    )


def fails_with(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> int:
    def command() -> None:
        raise error

    app = typer.Typer(pretty_exceptions_enable=False)
    app.callback()(main._root)
    app.command("broken")(command)
    monkeypatch.setattr(main, "build_app", lambda: app)
    return main.main(["broken"])


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["predict", "--help"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys\nfrom lipo_cli.main import main\n"
        f"assert main({arguments!r}) == 0\n"
        f"print([n for n in {HEAVY!r} if n in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert done.stderr.strip() == "[]"


@pytest.mark.parametrize("command", ["compare", "finetune", "score"])
def test_what_is_wrong_with_the_data_is_said_before_torch_is_imported(
    command: str, tmp_path: Path
) -> None:
    file = tmp_path / "mine.csv"
    file.write_text("smiles,logD\nCCO,-0.3\nCCO(,1.0\n")
    arguments = [command, "--dataset", str(file), "--store", str(tmp_path / "store")]
    code = (
        "import sys\nfrom lipo_cli.main import main\n"
        f"code = main({arguments!r})\n"
        "print(code, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "3 False", done.stderr
    assert "mine.csv:3: " in done.stderr


def test_help_answers_at_once() -> None:
    def cpu_seconds() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    took = []
    for _ in range(3):
        before = cpu_seconds()
        assert lipo("--help").returncode == 0
        took.append(cpu_seconds() - before)
    # Computing time: on an idle machine the same as the time by the clock, on a busy one as short.
    assert min(took) < 0.6


def test_every_command_has_help() -> None:
    shown = lipo("--help").stdout
    commands = typer.main.get_command(main.build_app()).commands  # type: ignore[attr-defined]
    assert {entry.name for entry in main.COMMANDS} == set(commands)
    for name, command in commands.items():
        assert name in shown
        assert command.help, f"{name} does not say what it does"


def test_version_is_the_package_s() -> None:
    assert lipo("--version").stdout == f"lipo {__version__}\n"


def test_wrong_command_and_option_exit_2() -> None:
    done = lipo("preidct")
    assert done.returncode == 2
    assert "Did you mean 'predict'" in done.stderr
    assert lipo("predict", "--no-such-option", "x").returncode == 2


@pytest.mark.parametrize(
    "error",
    [
        DataError("broken SMILES", where="a.csv:7", hint="--on-invalid skip"),
        PartialFailure("2 of 8 cells failed"),
        LipoError("a\nlong\nstory " + "x" * 300),
    ],
)
def test_failure_is_one_line_and_its_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: LipoError
) -> None:
    assert fails_with(monkeypatch, error) == error.exit_code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == f"error: {error}\n"


def test_interruption_has_the_shell_s_codes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fails_with(monkeypatch, KeyboardInterrupt()) == 130
    assert fails_with(monkeypatch, Interrupted(15)) == 143
    assert capsys.readouterr().err.count("the same command goes on") == 2


def test_unexpected_failure_is_one_line_and_a_file(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert fails_with(monkeypatch, KeyError("first\nsecond")) == 70
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1
    assert "Traceback" not in shown
    (file,) = tmp_path.iterdir()
    assert str(file) in shown
    assert "Traceback" in file.read_text()


def test_debug_shows_the_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LIPO_DEBUG", "1")
    assert fails_with(monkeypatch, KeyError("x")) == 70
    assert "Traceback" in capsys.readouterr().err
    assert fails_with(monkeypatch, DataError("broken")) == 3
    shown = capsys.readouterr().err
    assert "Traceback" in shown
    assert shown.endswith("error: broken\n")


def test_debug_flag_sets_it_for_child_processes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(["--debug", "predict", "/no/such/file.csv"]) == 3
    assert os.environ["LIPO_DEBUG"] == "1"
    assert "Traceback" in capsys.readouterr().err


def test_exit_code_of_a_command_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    assert fails_with(monkeypatch, typer.Exit(1)) == 1
    assert fails_with(monkeypatch, typer.Exit(0)) == 0


def test_reader_that_leaves_early_causes_no_noise() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "lipo_cli", "--help"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    errors = process.stderr.read()
    process.wait()
    assert errors == ""


WAITS = """
import sys, time
from lipo_cli import main
def waits():
    "Waits."
    print("ready", flush=True)
    time.sleep(60)
build = main.build_app
def with_waits():
    app = build()
    app.command("waits")(waits)
    return app
main.build_app = with_waits
sys.argv = ["lipo", "waits"]
main.run()
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals_end_a_command_in_one_line(number: signal.Signals, code: int) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", WAITS], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == code
    assert errors == "error: interrupted (what is finished is kept; the same command goes on)\n"
