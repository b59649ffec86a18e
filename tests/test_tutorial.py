"""The tutorial's commands, run for real, in order, from an empty folder."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pandas as pd
import pytest

PAGE = Path(__file__).parents[1] / "docs" / "tutorial.md"


def shell_blocks() -> list[str]:
    """Returns the blocks that a reader pastes."""
    return re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.M)


def installed(folder: Path) -> Path:
    """Makes a folder with `lipo`, `mlflow` and `python` of this environment."""
    folder.mkdir()
    for name, module in (("lipo", "-m lipo_cli"), ("mlflow", "-m mlflow"), ("python", "")):
        program = folder / name
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" {module} "$@"\n')
        program.chmod(0o755)
    return folder


def free_ports(n: int) -> list[int]:
    probes = [socket.socket() for _ in range(n)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def test_every_block_is_shown_to_be_shell_or_output() -> None:
    fences = re.findall(r"^```(\w*)$", PAGE.read_text(encoding="utf-8"), re.M)
    assert set(fences[::2]) == {"sh", "text"}
    assert set(fences[1::2]) == {""}


@pytest.mark.slow
@pytest.mark.server
@pytest.mark.timeout(2700)
@pytest.mark.skipif(shutil.which("curl") is None, reason="the tutorial uses curl")
def test_the_tutorial_pasted_as_written_works(tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    script = "\n".join(["set -euo pipefail", *shell_blocks()])
    # Ports that nobody else has; the rest is run as it stands.
    for written, free in zip(("5000", "5001"), free_ports(2), strict=True):
        assert f"--port {written}" in script
        script = re.sub(rf"(--port |127\.0\.0\.1:){written}\b", rf"\g<1>{free}", script)
    (tmp_path / "tutorial.sh").write_text(script)
    own = (installed(tmp_path / "bin"), Path(sys.executable).parent)
    environment = {
        **os.environ,
        "PATH": os.pathsep.join([*map(str, own), os.environ["PATH"]]),
        "PYTHONPATH": os.pathsep.join([str(PAGE.parents[1]), os.environ.get("PYTHONPATH", "")]),
    }
    log = tmp_path / "log"
    with log.open("w") as stream:
        shell = subprocess.Popen(
            ["bash", "-x", str(tmp_path / "tutorial.sh")],
            cwd=work,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )
    try:
        code = shell.wait(timeout=2600)
    finally:
        # The servers, had a command between their start and end failed.
        with suppress(ProcessLookupError):
            os.killpg(shell.pid, signal.SIGTERM)
    said = log.read_text()
    assert code == 0, said
    check_what_it_left(work, said)


def check_what_it_left(work: Path, said: str) -> None:
    """Checks that each step did what the page says of it."""
    chosen = pd.read_csv(work / "chosen.csv")
    assert (int(chosen["selected"].sum()), len(chosen)) == (20, 60)
    assert "against random:k=20" in said
    for name in ("result/report.html", "report.html", "exported/manifest.json", "first"):
        assert (work / name).exists()
    predicted = pd.read_csv(work / "predicted.csv")
    assert [*predicted.columns[:3]] == ["name", "smiles", "prediction"]
    assert (predicted["prediction_low"] < predicted["prediction"]).all()
    served = re.findall(r'\{"prediction": ([-0-9.]+)\}', said)
    assert [float(text) for text in served] == pytest.approx(predicted["prediction"][:2], abs=1e-4)
