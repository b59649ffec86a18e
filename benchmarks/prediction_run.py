"""`lipo predict` on a file as a user starts it: molecules per second, and the memory it takes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

from lipo_cli.chem.molecules import randomised_smiles

POLL_SECONDS = 0.05


@dataclass(frozen=True)
class PredictionRun:
    """One run of the command.

    Attributes:
        n: Molecules in the file.
        seconds: From start to exit: imports, the check of the file and writing included.
        peak_gib: Largest resident memory of the process and its children together, polled.
    """

    n: int
    seconds: float
    peak_gib: float

    @property
    def rate(self) -> float:
        """Molecules per second."""
        return self.n / self.seconds


def write_molecules(path: Path, smiles: Sequence[str], n: int, seed: int = 0) -> None:
    """Writes a CSV of `n` molecules, line by line: the given ones, then random SMILES of them."""
    rng = np.random.default_rng(seed)
    with path.open("w", encoding="utf-8", newline="") as stream:
        stream.write("id,smiles\n")
        for i in range(n):
            molecule = smiles[i % len(smiles)]
            text = molecule if i < len(smiles) else randomised_smiles(molecule, rng)
            stream.write(f"{i},{text}\n")


def measure_prediction(regressor: Path, file: Path, n: int, threads: int) -> PredictionRun:
    """Runs `lipo predict FILE --out OUT` in a process of its own and watches it.

    Raises:
        SystemExit: it failed, or wrote another number of rows.
    """
    out, log = file.with_suffix(".out.csv"), file.with_suffix(".log")
    command = [
        *(sys.executable, "-m", "lipo_cli", "predict", str(file)),
        *("--model", str(regressor), "--out", str(out)),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
    start = time.perf_counter()
    with log.open("w", encoding="utf-8") as stream:
        process = psutil.Popen(
            command, env=environment, stdout=stream, stderr=subprocess.STDOUT, cwd=file.parent
        )
        peak = _watch(process)
    seconds = time.perf_counter() - start
    if process.returncode != 0:
        raise SystemExit(f"lipo predict failed:\n{log.read_text(encoding='utf-8')[-2000:]}")
    with out.open(encoding="utf-8") as stream:
        n_written = sum(1 for _ in stream) - 1
    if n_written != n:
        raise SystemExit(f"lipo predict wrote {n_written:,} rows of {n:,}")
    return PredictionRun(n, seconds, peak / 2**30)


def _watch(process: psutil.Popen) -> int:
    """Waits for a process; returns the largest memory of its tree in bytes."""
    peak = 0
    while process.poll() is None:
        peak = max(peak, _tree_bytes(process))
        time.sleep(POLL_SECONDS)
    return peak


def _tree_bytes(process: psutil.Popen) -> int:
    total = 0
    try:
        for member in [process, *process.children(recursive=True)]:
            total += member.memory_info().rss
    except psutil.Error:  # a process that ended while it was looked at
        return total
    return total
