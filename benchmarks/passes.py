"""Prediction on a CPU: passes beside one another, and one after another with all threads.

Both ways in turn in one process, on the same molecules; ratios within a round. The numbers must be
the same, bit for bit.

    python benchmarks/passes.py             # prints, and writes its section of docs/benchmarks.md
    python benchmarks/passes.py --dry       # prints only
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Sequence
from importlib.metadata import version

import numpy as np
import torch
from numpy.typing import NDArray
from report import add_output_options, machine, settle_page, write_section
from turns import take_turns

from lipo_cli.chem.datasets import load_dataset
from lipo_cli.model import parallel
from lipo_cli.model.batches import predicted_at_once
from lipo_cli.model.regressor import Regressor
from lipo_cli.settings import DataSettings, TrainingSettings


def compare(
    regressor: Regressor, smiles: Sequence[str], repeats: int
) -> dict[str, tuple[float, ...]]:
    """Times both ways in turn; returns the seconds of each, a number for each round.

    Raises:
        SystemExit: they predict differently.
    """
    before = parallel.MOST_AT_ONCE

    def predict(most: int) -> NDArray[np.float64]:
        parallel.MOST_AT_ONCE = most
        return regressor.predict(smiles)

    try:
        taken, found = take_turns(
            {"one after another": lambda: predict(1), "beside": lambda: predict(before)}, repeats
        )
    finally:
        parallel.MOST_AT_ONCE = before
    one, other = found.values()
    if not np.array_equal(one, other):
        raise SystemExit(f"the two ways differ by {np.abs(one - other).max():.1e}")
    return taken


def row(n: int, taken: dict[str, tuple[float, ...]]) -> str:
    """Returns a line of the table: medians, and the median of the rounds' ratios."""
    one, other = taken.values()
    gain = float(np.median(np.divide(one, other)))
    return (
        f"| {n:,} | {n / float(np.median(one)):,.0f} | {n / float(np.median(other)):,.0f} "
        f"| {gain:.2f}x |"
    )


def section(rows: Sequence[str], model: str, rounds: int, load: float) -> str:
    """Returns the section of the docs."""
    threads = torch.get_num_threads()
    at_once = predicted_at_once(torch.device("cpu"))
    return "\n".join(
        [
            "## Passes beside one another",
            "",
            f"`Regressor.predict` on `{model}`, {threads} threads, {at_once} SMILES a pass; one "
            f"after another with all threads, or {min(threads, parallel.MOST_AT_ONCE)} beside one "
            f"another. {rounds} rounds in which both take turns; the predictions are the same, "
            "bit for bit.",
            "",
            "| molecules | one after another, molecules/s | beside, molecules/s | faster by |",
            "|---:|---:|---:|---:|",
            *rows,
            "",
            f"Machine: {machine()}, load {load:.1f}; Python {platform.python_version()}, "
            f"torch {version('torch')}. Command: `python benchmarks/passes.py --model {model} "
            f"--rounds {rounds}`",
        ]
    )


def main(given: Sequence[str] | None = None) -> int:
    """Measures, and writes docs/benchmarks.md."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="small", help="checkpoint")
    parser.add_argument("--rounds", type=int, default=5)
    add_output_options(parser)
    arguments = parser.parse_args(given)
    settle_page(arguments)
    load = os.getloadavg()[0]
    smiles = load_dataset(DataSettings(dataset="demo")).primary.smiles
    settings = TrainingSettings(model=arguments.model, device="cpu")
    regressor = Regressor.from_base("full", settings, 0)
    rows = [
        row(n, compare(regressor, smiles[:n], arguments.rounds))
        for n in ((40,) if arguments.quick else (32, 128, 512, 1500))
    ]
    text = section(rows, arguments.model, arguments.rounds, load)
    print(text)
    if arguments.page is not None:
        write_section("passes", text, arguments.page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
