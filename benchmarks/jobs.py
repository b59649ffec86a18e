"""The same comparison with its cells one after another, and side by side (`lipo compare --jobs`).

Each way is the command as a user types it, on a fresh store, so that everything counts: start,
reading, training, figures, report. The tables must be equal.

    python benchmarks/jobs.py            # prints, and writes its section of docs/benchmarks.md
    python benchmarks/jobs.py --dry      # prints only
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from report import add_output_options, machine, settle_page, write_section

from lipo_cli.chem.datasets import load_dataset
from lipo_cli.settings import DataSettings
from lipo_cli.training.workers import usable_cores

_ROUNDING = 0.02
"""Sums in another order part trainings for good, by less than retraining does."""


@dataclass(frozen=True)
class Timed:
    """One run of the comparison."""

    jobs: int
    seconds: float
    training_seconds: float
    cells: list[dict[str, Any]]

    def rmse(self) -> list[float]:
        """Returns the test RMSE of every cell."""
        return [cell["test_rmse"] for cell in self.cells]


def write_data(folder: Path, n: int) -> Path:
    """Writes a primary set of `n` molecules: of lipophilicity, where it is here, else the demo's.

    Args:
        folder: Where to.
        n: Molecules, a tenth of which is added as a secondary set.
    """
    primary = load_dataset(DataSettings()).primary
    chosen = np.random.default_rng(0).permutation(len(primary.smiles))[: n + n // 10]
    if len(chosen) < n + n // 10:
        raise SystemExit(f"{len(primary.smiles)} molecules are too few for --rows {n}")
    frame = pd.DataFrame(
        {"smiles": [primary.smiles[i] for i in chosen], "label": primary.labels[chosen]}
    )
    frame.head(n).to_csv(folder / "primary.csv", index=False)
    frame.tail(n // 10).to_csv(folder / "secondary.csv", index=False)
    return folder


def timed(jobs: int, data: Path, asked: argparse.Namespace) -> Timed:
    """Runs the comparison."""
    with tempfile.TemporaryDirectory() as store:
        command = [
            *(sys.executable, "-m", "lipo_cli", "compare", "--json", "--jobs", str(jobs)),
            *("--dataset", str(data / "primary.csv"), "--secondary", str(data / "secondary.csv")),
            *("--label-column", "label", "--split", "random", "--store", store),
            *("-s", "random:k=20", "-p", asked.peft, "--seeds", str(asked.seeds)),
            *("--epochs", str(asked.epochs)),
        ]
        started = time.monotonic()
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        seconds = time.monotonic() - started
    cells = json.loads(done.stdout)["cells"]
    return Timed(jobs, seconds, sum(cell["seconds"] for cell in cells), cells)


def section(runs: Sequence[Timed], asked: argparse.Namespace, load: float) -> str:
    """Returns the section of docs/benchmarks.md."""
    by_jobs: dict[int, list[Timed]] = {}
    for run in runs:
        by_jobs.setdefault(run.jobs, []).append(run)
    alone = by_jobs[1]
    lines = [
        "## Cells side by side (`lipo compare --jobs`)",
        "",
        f"The whole command, {len(alone[0].cells)} cells of `small` ({asked.peft}, {asked.epochs} "
        f"epochs) on {asked.rows:,} molecules, everything included, on a fresh store each time, in "
        f"turn, {len(alone)} round(s). Ratios within a round. The tables are equal but for the "
        "order of floating-point sums.",
        "",
        "| jobs | s | s of training, summed over cells | times as fast | largest difference of a "
        "cell's test RMSE |",
        "|---:|---:|---:|---:|---:|",
    ]
    for jobs, mine in by_jobs.items():
        ratios = [one.seconds / run.seconds for one, run in zip(alone, mine, strict=True)]
        off = max(float(np.max(np.abs(np.subtract(run.rmse(), alone[0].rmse())))) for run in mine)
        if off > _ROUNDING:
            raise SystemExit(f"--jobs {jobs}: a cell's test RMSE differs by {off:.1e}")
        lines.append(
            f"| {jobs} | {np.median([run.seconds for run in mine]):.0f} | "
            f"{np.median([run.training_seconds for run in mine]):.0f} | "
            f"{np.median(ratios):.2f} | {off:.0e} |"
        )
    lines += [
        "",
        f"Machine: {machine()}, {usable_cores()} usable, load {load:.1f} when it began; torch "
        f"{version('torch')}.",
        f"Command: `python benchmarks/jobs.py --rows {asked.rows} --epochs {asked.epochs} --seeds "
        f"{asked.seeds} --peft {asked.peft} --rounds {asked.rounds}`",
    ]
    return "\n".join(lines)


def main() -> None:
    """Measures, and writes docs/benchmarks.md."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--rows", type=int, default=600, help="molecules of the primary set")
    add("--epochs", type=int, default=3)
    add("--seeds", type=int, default=2)
    add("--peft", default="lora")
    add("--rounds", type=int, default=1)
    add("--jobs", type=int, nargs="+", default=[usable_cores()], help="beside 1")
    add_output_options(parser)
    asked = parser.parse_args()
    if asked.quick:
        asked.rows, asked.epochs, asked.seeds, asked.rounds = 60, 1, 1, 1
    settle_page(asked)
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as scratch:
        data = write_data(Path(scratch), asked.rows)
        runs = [timed(jobs, data, asked) for _ in range(asked.rounds) for jobs in (1, *asked.jobs)]
    text = section(runs, asked, load)
    print(text)
    if not asked.dry and asked.page is not None:
        write_section("jobs", text, asked.page)


if __name__ == "__main__":
    main()
