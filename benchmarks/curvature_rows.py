"""How few train molecules may stand for the curvature that influence functions need?

Each method's reference model is fine-tuned once (or loaded). The pool is then valued with the
curvature of ever more train molecules, by the same solver, damping and target; the values by all of
them are the truth. For each number of molecules several draws: how they rank against the truth and
against each other, and how much larger they are.

    python benchmarks/curvature_rows.py --peft lora --rows 500 1000 2000
    python benchmarks/curvature_rows.py --peft lora=FOLDER full=FOLDER   # models that were saved
    python benchmarks/curvature_rows.py --quick                          # a smoke run; prints only
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from report import add_output_options, machine, settle_page, write_section
from scipy.stats import spearmanr

from lipo_cli.commands.console import RichProgress
from lipo_cli.comparison.prepare import Prepared, prepare
from lipo_cli.model.regressor import Regressor
from lipo_cli.settings import (
    PEFT_METHODS,
    DataSettings,
    InfluenceSettings,
    Peft,
    TrainingSettings,
    build,
)
from lipo_cli.training.finetune import fit
from lipo_cli.valuation.gradients import OutputGradients
from lipo_cli.valuation.influence import InfluenceResult, Molecules, influence

Floats = NDArray[np.float64]
N_FOLDS = 5


@dataclass(frozen=True)
class Measured:
    """The values by so many train molecules, and what one draw of them took."""

    n_rows: int
    draws: list[InfluenceResult]
    seconds: float


def reference(text: str, prepared: Prepared, arguments: argparse.Namespace) -> Regressor:
    """Returns the model that `METHOD` or `METHOD=FOLDER` names, fitted."""
    method, _, folder = text.partition("=")
    if folder:
        return Regressor.load(folder)
    settings = {"model": arguments.model, "epochs": arguments.epochs}
    peft: Peft = method  # type: ignore[assignment]  # `parse` refuses what is none
    regressor = Regressor.from_base(peft, build(TrainingSettings, settings), 0)
    with RichProgress() as progress:
        fit(regressor, prepared.train, prepared.validation, seed=0, progress=progress)
    return regressor


def measure(
    regressor: Regressor, prepared: Prepared, n_rows: int, arguments: argparse.Namespace
) -> Measured:
    """Values the pool with the curvature of `n_rows` train molecules, once for each draw."""
    train, target, pool = (
        Molecules(part.smiles, part.labels)
        for part in (prepared.train, prepared.validation, prepared.require_pool().examples)
    )
    folds = np.random.default_rng(0).permutation(len(target)) % N_FOLDS
    draws, seconds = [], []
    for seed in range(1 if n_rows >= len(train) else arguments.draws):
        settings = build(
            InfluenceSettings,
            {
                "solver": "lissa",
                "curvature_rows": n_rows,
                "table_gib": arguments.table_gib,
                "seed": seed,
            },
        )
        started = time.perf_counter()
        with RichProgress() as progress:
            found = influence(
                OutputGradients(regressor),
                train,
                target,
                pool,
                settings,
                fold_of=folds,
                progress=progress,
            )
        seconds.append(time.perf_counter() - started)
        draws.append(found)
    return Measured(n_rows, draws, float(np.median(seconds)))


def row(method: str, measured: Measured, truth: InfluenceResult) -> str:
    """Returns a line of the table."""
    values = [draw.values for draw in measured.draws]
    best = max(1, len(truth.values) // 10)
    top = set(np.argsort(-truth.values)[:best].tolist())
    common = [len(top & set(np.argsort(-v)[:best].tolist())) / best for v in values]
    off = [np.median(np.abs(v - truth.values) / truth.standard_error) for v in values]
    halves = [d.halves_agree for d in measured.draws if d.halves_agree is not None]
    told = (
        _span([float(spearmanr(v, truth.values).statistic) for v in values]),
        _span([float(spearmanr(a, b).statistic) for a, b in combinations(values, 2)]),
        _span(halves),
        _span(common, "{:.0%}"),
        _span([float(np.std(v) / np.std(truth.values)) for v in values]),
        _span([float(each) for each in off]),
    )
    seconds = f"{measured.seconds:,.0f}"
    return f"| {method} | {measured.n_rows:,} | {seconds} | {' | '.join(told)} |"


def _span(numbers: Sequence[float], form: str = "{:.2f}") -> str:
    """Returns the lowest and the highest of some numbers, or the one that both are."""
    ends = [form.format(end) for end in (min(numbers), max(numbers))] if numbers else []
    return " to ".join(dict.fromkeys(ends))


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Returns the flags."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--peft", nargs="+", default=["lora", "full"], help="METHOD, or METHOD=FOLDER of a model")
    add("--rows", nargs="+", type=int, default=[500, 1000, 2000], help="train molecules")
    add("--draws", type=int, default=3, help="of each number of them")
    add("--data", help="dataset (default: as `lipo`)")
    add("--secondary", help="secondary set (default: the dataset's)")
    add("--model", default="small")
    add("--epochs", type=int, default=5, help="of the reference model, where it is not loaded")
    add("--table-gib", type=float, default=6.0)
    add_output_options(parser)
    arguments = parser.parse_args(argv)
    for text in arguments.peft:
        if text.partition("=")[0] not in PEFT_METHODS:
            parser.error(f"--peft {text}: no method; one of {', '.join(PEFT_METHODS)}")
    if arguments.quick:
        arguments.epochs, arguments.draws = 1, 2
        arguments.peft, arguments.rows = ["lora"], [20]
    settle_page(arguments)
    return arguments


def main(argv: Sequence[str] | None = None) -> int:
    """Measures, prints, and writes docs/benchmarks.md."""
    arguments = parse(argv)
    asked = {"dataset": arguments.data, "secondary": arguments.secondary}
    prepared = prepare(build(DataSettings, {k: v for k, v in asked.items() if v is not None}))
    n_train, pool = len(prepared.train), len(prepared.require_pool())
    lines = [
        "## The curvature of some train molecules for that of all",
        "",
        f"{prepared.dataset.name}: {n_train:,} train, {len(prepared.validation):,} validation, "
        f"{pool:,} points; values by influence (LiSSA, all trained parameters), against those by "
        "the curvature of all train molecules. Lowest to highest of the draws; seconds are of the "
        "influence alone, the median.",
        "",
        "| fitted by | curvature of | seconds | rank correlation with all | of two draws | of two "
        "halves (as lipo says) | best tenth in common | spread of the values, ratio | median "
        "difference, in standard errors |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for text in arguments.peft:
        regressor = reference(text, prepared, arguments)
        numbers = sorted({*(n for n in arguments.rows if n < n_train), n_train})
        found = [measure(regressor, prepared, n, arguments) for n in numbers]
        method, (truth,) = text.partition("=")[0], found[-1].draws
        for measured in found:
            lines.append(row(method, measured, truth))
            print(lines[-1], file=sys.stderr)
    command = ["--peft", *(text.partition("=")[0] for text in arguments.peft), "--rows"]
    command += [*map(str, arguments.rows), "--draws", str(arguments.draws)]
    lines += [
        "",
        f"Machine: {machine()}; torch {version('torch')}. "
        f"Command: `python benchmarks/curvature_rows.py {' '.join(command)}`",
    ]
    print("\n".join(lines))
    if arguments.page is not None and not arguments.dry:
        write_section("curvature-rows", "\n".join(lines), Path(arguments.page))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
