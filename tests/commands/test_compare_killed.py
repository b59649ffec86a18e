"""`lipo compare` killed with -9 at moments that nobody chose, and started again each time."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from lipo_cli.tracking.stale import find_stale
from lipo_cli.tracking.store import open_store
from tests.fixtures.bench import make_bench

SEED = int(os.environ.get("LIPO_TEST_KILL_SEED", "5"))
N_KILLS = 5
SELECTIONS = ("tsds:top=6", "knn:top=6")
METHODS = ("lora", "bitfit")
SEEDS = 2
N_CELLS = (len(SELECTIONS) + 3) * len(METHODS) * SEEDS
"""With none, all, and random of equal size."""
TIMES = ("seconds", "reused", "run_id")
"""What may differ between an interrupted comparison and one that never was."""


@dataclass
class Grid:
    """A comparison of several selections, methods and seeds on a tiny model."""

    folder: Path
    flags: list[str]

    def command(self, store: str) -> list[str]:
        """Returns the one command line that is typed again and again."""
        asked = [flag for text in SELECTIONS for flag in ("-s", text)]
        asked += [flag for text in METHODS for flag in ("-p", text)]
        secondary = ["--secondary", str(self.folder / "secondary.csv")]
        more = [*secondary, *asked, "--seeds", str(SEEDS), "--store", store, "--json"]
        return [sys.executable, "-m", "lipo_cli", "compare", *self.flags, *more]

    def run(self, store: str) -> dict:
        """Runs it to its end."""
        done = subprocess.run(
            self.command(store), cwd=self.folder, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def kill(self, store: str, n_cells: int, delay: float) -> None:
        """Starts it and kills its process group, a delay after so many cells are over."""
        log = self.folder / f"{store}.log"
        with log.open("w") as stderr:
            process = subprocess.Popen(
                self.command(store),
                cwd=self.folder,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                start_new_session=True,
            )
        try:
            deadline = time.monotonic() + 240
            while _n_over(log.read_text()) < n_cells:
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.01)
            time.sleep(delay)
        finally:
            # Not reaped yet, so that the group is there even if the leader has ended.
            os.killpg(process.pid, signal.SIGKILL)
        assert process.wait(timeout=60) == -signal.SIGKILL, log.read_text()

    def cells(self, store: str) -> list:
        """Returns MLflow's runs of cells and scorings, whatever their state."""
        opened = open_store(self.folder / store)
        client = opened.client()
        experiment = client.get_experiment_by_name("lipo-compare")
        if experiment is None:
            return []
        return list(client.search_runs([experiment.experiment_id], max_results=1000))


def _n_over(log: str) -> int:
    return log.count(": done, ") + log.count(": found, ")


def _finished(runs: list) -> dict[str, int]:
    """Returns by run id when cells and scorings ended: computed again, they would end anew.

    The comparison itself is opened and completed by every life that finds its cells.
    """
    computed = [run for run in runs if run.data.tags["lipo.kind"] != "comparison"]
    over = [run for run in computed if run.info.status == "FINISHED"]
    return {run.info.run_id: run.info.end_time for run in over}


def _table(result: dict) -> dict:
    """Returns every number of a result but the times, to the last digit."""
    found = {name: result[name] for name in ("dataset", "verdicts", "overlaps")}
    for name in ("cells", "summary"):
        found[name] = [{k: v for k, v in row.items() if k not in TIMES} for row in result[name]]
    return found


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_killed_five_times_at_random_it_ends_with_the_same_table(tmp_path: Path) -> None:
    grid = Grid(tmp_path, make_bench(tmp_path))
    whole = grid.run("whole")
    assert len(whole["cells"]) == N_CELLS
    drawn = random.Random(SEED)
    # From the first moments of a run to the figures after its last cell, ever later, so that every
    # life but the last leaves something to do.
    moments = sorted(drawn.randint(0, N_CELLS) for _ in range(N_KILLS))
    finished: dict[str, int] = {}
    n_stale = 0
    for number, n_cells in enumerate(moments, 1):
        delay = drawn.uniform(0, 1)
        # Captured by pytest, and shown where the test fails.
        print(f"seed {SEED}, kill {number}: {delay:.2f} s after {n_cells} cells")  # noqa: T201
        grid.kill("killed", n_cells, delay)
        if n_cells == 0:
            continue  # there may be no store yet
        now = _finished(grid.cells("killed"))
        assert finished.items() <= now.items(), "a finished run was computed again"
        finished = now
        n_stale += len(find_stale(open_store(grid.folder / "killed")))
    # The last kill may have come between the comparison's end and the process's; not every one.
    assert n_stale > 0
    repair = [sys.executable, "-m", "lipo_cli", "doctor", "--repair", "--store", "killed"]
    subprocess.run(repair, cwd=grid.folder, capture_output=True, check=True)
    assert not find_stale(open_store(grid.folder / "killed"))
    assert "RUNNING" not in {run.info.status for run in grid.cells("killed")}
    resumed = grid.run("killed")
    assert _table(resumed) == _table(whole)
    runs = grid.cells("killed")
    assert finished.items() <= _finished(runs).items(), "a finished run was computed again"
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert not find_stale(open_store(grid.folder / "killed"))
    records = Counter(run.data.tags["lipo.fingerprint"] for run in runs)
    assert set(records.values()) == {1}, "a cell, a scoring or the comparison has two runs"
    kinds = Counter(run.data.tags["lipo.kind"] for run in runs)
    assert kinds["cell"] == N_CELLS
    assert kinds["comparison"] == 1
    assert kinds == Counter(run.data.tags["lipo.kind"] for run in grid.cells("whole"))
