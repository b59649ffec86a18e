"""`lipo compare --jobs`: cells in processes of their own, and what becomes of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
import torch

from lipo_cli.main import main
from lipo_cli.tracking.found import FoundRun, find_runs
from lipo_cli.tracking.owner import PID_TAG
from lipo_cli.tracking.store import open_store
from tests.fixtures.bench import make_bench

TIMES = ("seconds", "reused", "run_id")


class Grid:
    """Six cells on a tiny model, none of which needs values."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.flags = make_bench(folder)

    def arguments(self, store: str, *more: str) -> list[str]:
        asked = ["--secondary", str(self.folder / "secondary.csv"), "-s", "random:k=6"]
        asked += ["-p", "lora", "-p", "bitfit", "--epochs", "40"]
        return ["compare", *self.flags, *asked, "--store", str(self.folder / store), *more]

    def run(self, store: str, capsys: pytest.CaptureFixture[str], *more: str) -> dict:
        """Runs it in this process."""
        capsys.readouterr()
        code = main(self.arguments(store, "--json", *more))
        printed = capsys.readouterr()
        assert code == 0, printed.err
        return json.loads(printed.out)

    def runs(self, store: str) -> list[FoundRun]:
        return find_runs(open_store(self.folder / store), "lipo-compare")

    @contextmanager
    def training(
        self, store: str
    ) -> Iterator[tuple[subprocess.Popen[bytes], list[psutil.Process], Path]]:
        """Starts it, and waits until two processes train; gives it, these, and its log."""
        log = self.folder / f"{store}.log"
        command = [sys.executable, "-m", "lipo_cli", *self.arguments(store, "--jobs", "2")]
        with log.open("w") as stderr:
            # One thread everywhere: sums over more are in another order.
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            process = subprocess.Popen(
                command, env=environment, stdout=subprocess.DEVNULL, stderr=stderr
            )
        children: list[psutil.Process] = []
        try:
            wait_for(lambda: len(_training(log.read_text())) == 2, process, log)
            children = [
                child
                for child in psutil.Process(process.pid).children()
                if "spawn_main" in " ".join(child.cmdline())
            ]
            assert len(children) == 2
            yield process, children, log
        finally:
            process.kill()  # nothing, where it has ended
            process.wait()
            for child in children:
                with suppress(psutil.NoSuchProcess):
                    child.kill()


def wait_for(what: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 240
    while not what():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.02)


def _training(log: str) -> set[str]:
    """Returns the cells that have begun."""
    return {line.split(":")[0] for line in log.splitlines() if ": epoch " in line}


def table(result: dict) -> list[dict]:
    """Returns every number of every cell but the times."""
    return [{k: v for k, v in cell.items() if k not in TIMES} for cell in result["cells"]]


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Grid:
    return Grid(tmp_path_factory.mktemp("jobs"))


@pytest.fixture
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
def test_killed_here_and_there_it_ends_with_the_table_of_one_process(
    grid: Grid, capsys: pytest.CaptureFixture[str]
) -> None:
    with grid.training("killed") as (process, children, log):
        children[0].kill()
        wait_for(lambda: ": failed" in log.read_text(), process, log)
        (line,) = (text for text in log.read_text().splitlines() if ": failed" in text)
        assert "its process ended with code -9" in line
        # Another has taken its place, and hears that this one is gone.
        everyone = children + psutil.Process(process.pid).children()
        process.kill()
        process.wait()
        _, left = psutil.wait_procs(everyone, timeout=60)
        assert not left
    dead = grid.runs("killed")
    assert {run.status for run in dead if run.tags["lipo.kind"] == "cell"} >= {"KILLED"}
    result = grid.run("killed", capsys, "--jobs", "2")
    assert len(result["cells"]) == 6
    assert table(result) == table(grid.run("alone", capsys))
    runs = grid.runs("killed")
    assert {run.status for run in runs} == {"FINISHED"}
    cells = [run for run in runs if run.tags["lipo.kind"] == "cell"]
    (whole,) = (run for run in runs if run.tags["lipo.kind"] == "comparison")
    assert len(cells) == 6
    assert {run.tags["mlflow.parentRunId"] for run in cells} == {whole.run_id}
    assert whole.tags[PID_TAG] not in {run.tags[PID_TAG] for run in cells}


def test_sigterm_ends_all_processes_and_their_runs(grid: Grid) -> None:
    with grid.training("stopped") as (process, children, log):
        process.terminate()
        assert process.wait(timeout=60) == 128 + signal.SIGTERM, log.read_text()
        _, left = psutil.wait_procs(children, timeout=60)
        assert not left
    assert "Traceback" not in log.read_text()
    states = [run.status for run in grid.runs("stopped")]
    assert states.count("KILLED") == 3  # the comparison and two cells
    assert "RUNNING" not in states
