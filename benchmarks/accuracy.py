"""Accuracy: ours against chemprop 2, trained on the same split files, in one run.

Ours is fine-tuned with its defaults; chemprop runs with its own, on the CPU, in an environment of
its own. Single models, the mean over several SMILES of a molecule (ours) and the mean over seeds
are all computed from predictions that are kept, so that an interrupted run goes on and nothing is
trained twice. In a run the test rows choose nothing: both sides choose their epoch on validation.

    python3.11 -m venv ~/chemprop-env
    ~/chemprop-env/bin/pip install torch==2.13.0     # the CPU build, without CUDA's gigabytes
    ~/chemprop-env/bin/pip install torch==2.13.0 chemprop==2.3.1

    python benchmarks/accuracy.py --chemprop ~/chemprop-env/bin/python --seeds 5
    python benchmarks/accuracy.py --data FILE.csv --chemprop ~/chemprop-env/bin/python
    python benchmarks/accuracy.py --quick       # seconds; prints only

With another file, a section of its own is written; its SMILES and label columns are found by their
usual names or named by options.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import get_args

from accuracy_chemprop import QUICK, Chemprop
from accuracy_table import Row, accuracy_lines, rows_of, uncertainty_lines
from kept_runs import KERNEL, PEER, Run, Shelf, this_device
from report import add_output_options, command_line, machine, settle_page, write_section
from split_files import SplitFile, split_file

from lipo_cli.settings import PEFT_METHODS, DataSettings, SplitName, TrainingSettings, build

SPLITS: tuple[SplitName, ...] = tuple(name for name in get_args(SplitName) if name != "column")


def data_settings(arguments: argparse.Namespace, split: str) -> DataSettings:
    """Returns what is split and how."""
    given = {
        "dataset": arguments.data,
        "smiles_column": arguments.smiles_column,
        "label_column": arguments.label_column,
        "on_invalid": arguments.on_invalid,
        "split": split,
    }
    return build(DataSettings, {name: value for name, value in given.items() if value is not None})


def training_settings(arguments: argparse.Namespace) -> TrainingSettings:
    """Returns our defaults but for what the command line names."""
    given = {"model": arguments.model, "epochs": arguments.epochs}
    return build(
        TrainingSettings, {name: value for name, value in given.items() if value is not None}
    )


def measure(
    arguments: argparse.Namespace, peer: Chemprop | None
) -> tuple[list[Run], list[SplitFile]]:
    """Trains what is not kept, the two sides in turn.

    Returns:
        The runs, those of a method and split together; and the split files.
    """
    from accuracy_ours import run_kernel, run_ours

    settings = training_settings(arguments)
    runs: list[Run] = []
    files = []
    for split in arguments.split:
        splits = split_file(data_settings(arguments, split), arguments.out, arguments.limit)
        shelf = Shelf(splits)
        files.append(splits)
        by_method = {KERNEL: [_said(run_kernel(splits, shelf, settings, arguments.tta))]}
        for seed in range(arguments.seeds):
            for peft in arguments.peft:
                run = run_ours(splits, shelf, peft, settings, seed, arguments.tta)
                by_method.setdefault(peft, []).append(_said(run))
            if peer is not None:
                by_method.setdefault(PEER, []).append(_said(peer.run(splits, shelf, seed)))
        runs += [run for group in by_method.values() for run in group]
    return runs, files


def _said(run: Run) -> Run:
    kept = "found" if run.about.get("found") else f"{run.seconds:.0f} s"
    print(f"{run.split}, {run.method}, seed {run.seed}: {kept}", file=sys.stderr)
    return run


def _described(splits: SplitFile) -> str:
    counts = splits.frame["split"].value_counts()
    sizes = "/".join(f"{counts[part]:,}" for part in ("train", "val", "test"))
    return f"{splits.split} {sizes} (SHA-256 {splits.sha256()[:12]})"


def report(
    arguments: argparse.Namespace,
    rows: Sequence[Row],
    runs: Sequence[Run],
    files: Sequence[SplitFile],
    peer: Chemprop | None,
    load: float,
) -> str:
    """Returns the section of the docs: what was measured, where, and the tables."""
    settings = training_settings(arguments)
    n_found = sum(bool(run.about.get("found")) for run in runs)
    n_ensembles = arguments.seeds // arguments.ensemble
    several = f" (mean of {n_ensembles}, no model in two)" if n_ensembles > 1 else ""
    lines = [
        f"## Accuracy on {files[0].dataset}: "
        + (arguments.section.replace("-", " ") if arguments.section else "ours against chemprop 2"),
        "",
        f"Ours: `{settings.model}`, at most {settings.epochs} epoch(s), our defaults. "
        "Both sides train on the same split files",
        "(rows train/validation/test) and choose their epoch on validation: "
        f"{'; '.join(map(_described, files))}.",
        "Errors are in raw label units; test RMSE is mean ± standard deviation over the seeds of "
        f"one split. An ensemble is the mean of {arguments.ensemble} seeds{several}.",
        "With the kernel: beside our kernel readout, fitted once, whose share validation "
        "chooses (0, 1/4, 1/2, 3/4); chemprop too, and compared with like.",
        "Our recipe was chosen on the validation rows of Lipophilicity's reference split, whose "
        "test rows were looked at between versions; chemprop's defaults were not chosen here.",
        "The ratio is of mean test RMSEs, below 1 where ours is better, with a 95 % bootstrap "
        "interval over the test molecules.",
        "",
        *accuracy_lines(rows),
        "",
        "Intervals of 90 %, calibrated on validation and measured on test; uncertainty is the "
        "spread over models and SMILES. Last column: ratio of RMS errors.",
        "",
        *uncertainty_lines(rows),
        "",
        *_said_of(peer),
        f"Load average at the start: {load:.1f} (0 on a quiet machine; times are provisional above "
        f"0.5). {n_found} of {len(runs)} runs were kept from an earlier start{_others(runs)}.",
        "",
        f"Machine: {machine()}. Python {platform.python_version()}, "
        + ", ".join(f"{p} {version(p)}" for p in ("lipo", "torch", "transformers", "rdkit"))
        + ".",
        f"Command: `{command_line('accuracy.py')}`",
    ]
    return "\n".join(lines)


def _others(runs: Sequence[Run]) -> str:
    """Says how many of our runs were made by other code than today's, or elsewhere."""
    from lipo_cli.comparison.ledger import code_version

    ours = [run for run in runs if run.method != PEER]
    other = sum(run.about.get("code") != code_version() for run in ours)
    said = f", {other} of ours by an earlier version of the code" if other else ""
    away = Counter(
        f"on one {run.device} ({run.about.get('precision')}, torch {run.about.get('torch')})"
        for run in ours
        if run.device != this_device()
    )
    return said + "".join(f", {n} {where}" for where, n in sorted(away.items()))


def _said_of(peer: Chemprop | None) -> list[str]:
    if peer is None:
        return ["chemprop was not run: no `--chemprop PYTHON` was given.", ""]
    versions = ", ".join(f"{name} {number}" for name, number in peer.versions.items())
    own = f", with `{' '.join(peer.options)}`" if peer.options else ", its defaults"
    return [
        f"chemprop: {versions}; `chemprop train --splits-column split --accelerator cpu "
        f"--data-seed SEED --pytorch-seed SEED`{own}.",
        "Its seconds are those of the command, which starts Python, reads the molecules and "
        "predicts the test rows too; ours are those of loading and training. None stand "
        "where runs came with the repository or were made on another device.",
        "Its environment: `python3.11 -m venv ENV`, `ENV/bin/pip install torch==2.13.0` (the CPU "
        "build), `ENV/bin/pip install torch==2.13.0 chemprop==2.3.1`.",
        "",
    ]


def parse(given: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--data", metavar="CSV", help="any file with SMILES and a label; default: lipophilicity")
    add("--smiles-column", metavar="NAME", help="default: found by its usual names")
    add("--label-column", metavar="NAME", help="default: found by its usual names")
    add("--on-invalid", choices=["error", "skip"], help="what a row without a molecule does")
    add("--split", action="append", choices=SPLITS, help="repeatable; default: reference, scaffold")
    add("--seeds", type=int, help="models of each method and split; default 3")
    add("--peft", action="append", choices=PEFT_METHODS, help="repeatable; default: full")
    add("--model", help="checkpoint; default: the shipped one")
    add("--epochs", type=int, help="of ours, at most; default: the product's")
    add("--ensemble", type=int, metavar="K", help="models in an ensemble; default: all seeds")
    add("--tta", type=int, metavar="K", help="SMILES of a molecule to average; default 10")
    add("--chemprop", type=Path, metavar="PYTHON", help="python of chemprop's environment")
    add("--committed", action="store_true", help="without it: the runs in benchmarks/peer_runs")
    add("--limit", type=int, metavar="N", help="about this many molecules; default: all")
    add("--out", type=Path, default=Path("build/accuracy"), help="where runs are kept")
    add("--section", metavar="NAME", help="write a section of this name beside the usual one")
    add_output_options(parser)
    arguments = parser.parse_args(given)
    # A smoke run's numbers do not belong in the docs.
    unsaid = {"seeds": 2, "epochs": 1, "tta": 2, "limit": 120} if arguments.quick else {}
    for option, value in {"seeds": 3, "tta": 10, **unsaid}.items():
        if getattr(arguments, option) is None:
            setattr(arguments, option, value)
    arguments.split = arguments.split or ["reference", "scaffold"]
    arguments.peft = arguments.peft or ["full"]
    arguments.ensemble = arguments.ensemble or arguments.seeds
    if not 1 <= arguments.ensemble <= arguments.seeds:
        parser.error(f"--ensemble {arguments.ensemble} of {arguments.seeds} seeds")
    settle_page(arguments)
    return arguments


def main(given: Sequence[str] | None = None) -> int:
    """Runs the benchmark, prints its section and writes it."""
    arguments = parse(given)
    load = os.getloadavg()[0]
    options = QUICK if arguments.quick else ()
    peer = Chemprop.find(arguments.chemprop, options) if arguments.chemprop else None
    if peer is None and arguments.committed:
        peer = Chemprop.committed()
    if peer is None:
        print("no --chemprop PYTHON: the rows of chemprop are left out", file=sys.stderr)
    runs, files = measure(arguments, peer)
    rows = rows_of(runs, arguments.ensemble, arguments.tta)
    text = report(arguments, rows, runs, files, peer, load)
    print(text)
    if arguments.page is not None:
        name = files[0].dataset
        section = "accuracy" if name == "lipophilicity" else f"accuracy-{name}"
        section += f"-{arguments.section}" if arguments.section else ""
        write_section(section, text, arguments.page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
