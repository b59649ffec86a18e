"""Throughput: training three ways in turn, and prediction of a large file as a user starts it.

Training: the product's loop (batches of like length, bf16 where the machine has it) against the
same network padded to 128 tokens in float32, and against the published way, which also draws the
random features anew by QR at each forward pass. One process, the ways in turn, ratios by round.
Prediction: `lipo predict FILE --out FILE`, its molecules per second from start to exit and the
largest memory of its processes, on the whole file and on a tenth of it.

    python benchmarks/throughput.py                 # prints, and writes its sections
    python benchmarks/throughput.py --part training --epochs 10 --seeds 3
    python benchmarks/throughput.py --quick         # seconds; prints only
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from prediction_run import PredictionRun, measure_prediction, write_molecules
from report import add_output_options, command_line, machine, settle_page, write_section

if TYPE_CHECKING:
    from training_ways import Timing

    from lipo_cli.training.examples import Examples

PARTS = ("training", "prediction")


@dataclass(frozen=True)
class Equality:
    """The best validation RMSE of a way after equal epochs, one per seed."""

    title: str
    rmse: tuple[float, ...]


def load(arguments: argparse.Namespace) -> tuple[str, Examples, Examples]:
    """Returns the name of the data, and the training and validation molecules."""
    from lipo_cli.chem.datasets import load_dataset
    from lipo_cli.chem.splits import make_split
    from lipo_cli.settings import DataSettings
    from lipo_cli.training.examples import Examples

    data = DataSettings(dataset=arguments.data)
    dataset = load_dataset(data)
    split = make_split(dataset.primary, data)
    every = Examples(dataset.primary.smiles, dataset.primary.labels)
    return (
        dataset.name,
        every.take(split.train[: arguments.n_train]),
        every.take(split.val[: arguments.n_train]),
    )


def measure_training(arguments: argparse.Namespace) -> str:
    """Times the ways of training; returns the section."""
    import torch
    from training_ways import OURS, PADDED, WAYS, alternate, settings_for, train

    name, training, validation = load(arguments)
    load_average, data = os.getloadavg()[0], (training, validation)
    timings = alternate(WAYS, arguments.model, arguments.batch_size, data, arguments.repeats)
    equal = []
    for way in (OURS, PADDED) if arguments.epochs else ():
        settings = settings_for(way, arguments.model, arguments.batch_size, arguments.epochs)
        found = [train(way, settings, data, seed)[1] for seed in range(arguments.seeds)]
        equal.append(Equality(way.title, tuple(found)))
    lines = [
        "## Training throughput: ours against padding, float32 and redrawn features",
        "",
        f"Full fine-tuning of `{arguments.model}` on {len(training):,} molecules of {name} with "
        f"{len(validation):,} for validation, batch {arguments.batch_size}, the same loop",
        f"and optimiser, {torch.get_num_threads()} thread(s). Medians of {arguments.repeats} "
        "round(s) (lowest to highest), each way once a round, in turn; ratios within a round.",
        "",
        *training_lines(timings),
        "",
        *equality_lines(equal, arguments.epochs),
        *provenance(load_average),
    ]
    return "\n".join(lines)


def training_lines(timings: Sequence[Timing]) -> list[str]:
    """Returns the table of the ways."""
    from training_ways import OURS, WAYS, ratios

    lines = [
        "| way | molecules/s | s per epoch, validation included | ours is faster by |",
        "|---|---:|---:|---:|",
    ]
    for way in WAYS:
        own = [timing for timing in timings if timing.way == way.name]
        factor = "" if way is OURS else spread_of(ratios(timings, way), "{:.2f}") + "x"
        cells = [
            way.title,
            spread_of([timing.rate for timing in own], "{:.0f}"),
            spread_of([timing.epoch_s for timing in own], "{:.1f}"),
            factor,
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def spread_of(values: Sequence[float], form: str) -> str:
    """Returns the median with the lowest and the highest of several values."""
    middle, low, high = (
        form.format(value) for value in (statistics.median(values), min(values), max(values))
    )
    return middle if len(values) == 1 else f"{middle} ({low} to {high})"


def equality_lines(equal: Sequence[Equality], epochs: int) -> list[str]:
    """Returns a sentence on what the faster way costs in accuracy; nothing where none was asked."""
    if not equal:
        return []
    said = [
        f"{way.title}: {statistics.mean(way.rmse):.3f} "
        f"({', '.join(f'{value:.3f}' for value in way.rmse)})"
        for way in equal
    ]
    return [
        f"Best validation RMSE within {epochs} epoch(s), mean (and each of "
        f"{len(equal[0].rmse)} seed(s)): {'; '.join(said)}.",
        "",
    ]


def measure_predictions(arguments: argparse.Namespace) -> str:
    """Runs the command on a tenth of the molecules and on all; returns the section."""
    name, training, _ = load(arguments)
    load_average = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        regressor = arguments.regressor or untrained(arguments.model, folder / "regressor")
        runs = []
        for n in (max(1, arguments.n_predict // 10), arguments.n_predict):
            file = folder / f"{n}.csv"
            write_molecules(file, training.smiles, n)
            runs.append(measure_prediction(regressor.absolute(), file, n, arguments.threads))
    lines = [
        "## Prediction throughput: `lipo predict` on a file",
        "",
        f"`lipo predict FILE --out FILE`, `{arguments.regressor or arguments.model}`, "
        f"{arguments.threads} thread(s), molecules of {name} written anew as random SMILES.",
        "Time from start to exit; memory is the largest resident size of all its processes.",
        "",
        *prediction_lines(runs),
        "",
        *provenance(load_average),
    ]
    return "\n".join(lines)


def untrained(model: str, folder: Path) -> Path:
    """Saves a regressor with a fresh head: how fast it predicts does not depend on its weights."""
    from lipo_cli.model.regressor import Regressor
    from lipo_cli.settings import TrainingSettings

    Regressor.from_base("full", TrainingSettings(model=model, device="cpu"), 0).save(folder)
    return folder


def prediction_lines(runs: Sequence[PredictionRun]) -> list[str]:
    """Returns the table of the runs, and the rate between them: without the start of Python."""
    lines = [
        "| molecules | s | molecules/s | peak memory, GiB |",
        "|---:|---:|---:|---:|",
        *(f"| {r.n:,} | {r.seconds:.1f} | {r.rate:,.0f} | {r.peak_gib:.2f} |" for r in runs),
    ]
    few, many = runs[0], runs[-1]
    if many.n > few.n and many.seconds > few.seconds:
        rate = (many.n - few.n) / (many.seconds - few.seconds)
        lines += ["", f"Between the two sizes, without the start: {rate:,.0f} molecules/s."]
    return lines


def provenance(load_average: float) -> list[str]:
    """Returns where and how it was measured."""
    versions = ", ".join(f"{p} {version(p)}" for p in ("lipo", "torch", "transformers", "rdkit"))
    return [
        f"Load average when the runs began: {load_average:.1f} (0 on a quiet machine; provisional "
        "above 0.5).",
        "",
        f"Machine: {machine()}. Python {platform.python_version()}, {versions}.",
        f"Command: `{command_line('throughput.py')}`",
    ]


def parse(given: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--part", action="append", choices=PARTS, help="repeatable; default: both")
    add("--data", default="auto", metavar="NAME|CSV", help="default: lipophilicity, else demo")
    add("--model", default="small", help="checkpoint")
    add("--batch-size", type=int, default=32)
    add("--n-train", type=int, help="training molecules, at most; default 3024")
    add("--repeats", type=int, help="rounds of training; default 3")
    add("--epochs", type=int, default=0, help="compare the RMSE after these, too; 0: do not")
    add("--seeds", type=int, default=1, help="seeds of that comparison")
    add("--regressor", type=Path, metavar="FOLDER", help="predict with it; default: a fresh head")
    add("--n-predict", type=int, help="molecules to predict; default 100000")
    add("--threads", type=int, default=2, help="of the prediction")
    add_output_options(parser)
    arguments = parser.parse_args(given)
    # A smoke run's numbers do not belong in the docs.
    whole = {"n_train": 3024, "repeats": 3, "n_predict": 100_000}
    quick = {"n_train": 64, "repeats": 1, "n_predict": 200}
    for option, value in (quick if arguments.quick else whole).items():
        if getattr(arguments, option) is None:
            setattr(arguments, option, value)
    arguments.part = arguments.part or list(PARTS)
    settle_page(arguments)
    return arguments


def main(given: Sequence[str] | None = None) -> int:
    """Runs the benchmark, prints its sections and writes them."""
    arguments = parse(given)
    for part, measure in zip(PARTS, (measure_training, measure_predictions), strict=True):
        if part not in arguments.part:
            continue
        text = measure(arguments)
        print(text)
        if arguments.page is not None:
            write_section(f"throughput-{part}", text, arguments.page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
