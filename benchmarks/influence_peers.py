"""Influence by ours, by kronfluence and by dattri: the same model, molecules and target.

A LoRA model is fine-tuned once. Every way then values the same points by what they do to the mean
squared error over the same target rows, each in a fresh process on one thread: seconds, memory, and
the rank correlation with the exact values (ours, Gauss-Newton, in the span of the gradients). The
damping is one number for all: a share of the curvature's largest eigenvalue as the exact way
measures it. Where that is large the inverse is hardly more than a multiple of the identity: how far
products of gradients alone rank like the exact values says what a rank correlation is worth. What a
way cannot do, or not within the limits, is said in its own words.

kronfluence is run as its documentation says (labels drawn from the model for the factors, every
target row a query, the queries' gradients summed), with the damping of the others and with its
default. dattri takes the Hessian, so that its values may differ for that reason alone.

    pip install 'lipo[ekfac]'
    pip install --no-deps --target build/dattri dattri==0.3.0     # beside lipo, not into it
    python benchmarks/influence_peers.py --dattri build/dattri
    python benchmarks/influence_peers.py --quick                  # some minutes; prints only
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import distributions, version
from pathlib import Path
from typing import Any

import numpy as np
from influence_sides import SIDES
from report import add_output_options, command_line, machine, settle_page, write_section
from scipy.stats import spearmanr

from lipo_cli.chem.datasets import load_dataset
from lipo_cli.chem.splits import make_split
from lipo_cli.model.regressor import Regressor
from lipo_cli.settings import DataSettings, TrainingSettings, build
from lipo_cli.training.examples import Examples
from lipo_cli.training.finetune import fit

_EXACT = "ours, exact"


def prepare(arguments: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """Fine-tunes the model and writes it and the molecules; returns what was done."""
    settings = build(DataSettings, {"dataset": arguments.data} if arguments.data else {})
    primary = load_dataset(settings).primary
    split = make_split(primary, settings)
    order = np.random.default_rng(0).permutation(split.part("train"))
    n, k = arguments.train, arguments.points
    rows = {"train": order[:n], "points": order[n : n + k]}
    rows["target"] = split.part("val")[: arguments.targets]
    for name, asked in (("train", n), ("points", k), ("target", arguments.targets)):
        if len(rows[name]) < asked:
            raise SystemExit(f"{settings.dataset}: {len(rows[name])} molecules are left for {name}")
    parts = {
        name: Examples([primary.smiles[i] for i in at], primary.labels[at])
        for name, at in rows.items()
    }
    given = {
        "model": arguments.model,
        "epochs": arguments.epochs,
        "lora_rank": arguments.rank,
        "precision": "float32",
        "device": "cpu",
    }
    regressor = Regressor.from_base("lora", build(TrainingSettings, given), 0)
    fit(regressor, parts["train"], parts["target"], seed=0)
    regressor.save(scratch / "model")
    plan = {name: {"smiles": p.smiles, "labels": p.labels.tolist()} for name, p in parts.items()}
    plan |= {"share": arguments.damping, "memory_gib": arguments.memory_gib}
    (scratch / "plan.json").write_text(json.dumps(plan), encoding="utf-8")
    return {
        "dataset": load_dataset(settings).name,
        "n_parameters": regressor.parameters().trainable,
        **{f"n_{name}": len(part) for name, part in parts.items()},
    }


def run_side(name: str, scratch: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Runs one way in a fresh process; one that fails says why in `stopped`."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    paths = [os.environ.get("PYTHONPATH", ""), str(Path(__file__).parents[1])]
    if arguments.dattri is not None:
        paths.append(str(arguments.dattri.resolve()))
    environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    script = Path(__file__).with_name("influence_sides.py")
    command = [sys.executable, "-W", "ignore", str(script), name, str(scratch)]
    try:
        done = subprocess.run(
            command,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=arguments.limit,
        )
    except subprocess.TimeoutExpired:
        return {"side": name, "stopped": f"not done after {arguments.limit:,} s"}
    if done.returncode == 0:
        return {"side": name, **json.loads(done.stdout.splitlines()[-1])}
    lines = done.stderr.strip().splitlines()
    signal = f"killed by signal {-done.returncode}" if done.returncode < 0 else None
    return {"side": name, "stopped": signal or (lines[-1] if lines else "it ended without a word")}


def measure(arguments: argparse.Namespace) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Runs every way in turn, the exact one first: its eigenvalue sets the others' damping."""
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        world = prepare(arguments, scratch)
        found = []
        for name in arguments.sides:
            found.append(run_side(name, scratch, arguments))
            if name == _EXACT:
                if "values" not in found[0]:
                    raise SystemExit(f"{name}: {found[0]['stopped']}")
                plan = json.loads((scratch / "plan.json").read_text(encoding="utf-8"))
                plan["damping"] = world["damping"] = found[0]["damping"]
                (scratch / "plan.json").write_text(json.dumps(plan), encoding="utf-8")
            shown = {key: value for key, value in found[-1].items() if key != "values"}
            print(shown, file=sys.stderr)
    truth = found[0]["values"]
    for each in found:
        if "values" in each:
            each["spearman"] = float(spearmanr(each["values"], truth).statistic)
            each["scale"] = float(np.std(each["values"]) / np.std(truth))
    return world, found


def report(
    world: dict[str, Any], found: Sequence[dict[str, Any]], arguments: argparse.Namespace
) -> str:
    """Returns the section of the docs."""
    lines = [
        "## Influence by ours, kronfluence and dattri",
        "",
        f"LoRA of rank {arguments.rank} on `{arguments.model}` ({world['n_parameters']:,} trained "
        f"parameters), {arguments.epochs} epochs on {world['n_train']:,} molecules of "
        f"{world['dataset']}; {world['n_points']:,} points, {world['n_target']:,} target rows. "
        f"Each way in a fresh process on one thread; damping {world['damping']:.3g} "
        f"({arguments.damping:g} of the largest eigenvalue) where nothing else is said. A way is "
        f"stopped after {arguments.limit:,} s (start included) or at {arguments.memory_gib:g} GiB "
        "of address space.",
        "Spread: the standard deviation of the values as a multiple of that of the exact ones. "
        "Memory: the peak of the process, and how much of it came on top of the loaded model. The "
        "row without curvature says what a rank correlation is worth here: no more than its own "
        "shows that a way knows the curvature.",
        "",
        "| | s | peak GiB | on top, GiB | Spearman with exact | spread | |",
        "|---|---:|---:|---:|---:|---:|---|",
    ]
    for each in found:
        if "values" not in each:
            lines.append(f"| {each['side']} | | | | | | {_cell(each['stopped'])} |")
            continue
        cells = [
            each["side"],
            f"{each['seconds']:,.1f}",
            f"{each['peak_gib']:.2f}",
            f"{each['peak_gib'] - each['loaded_gib']:.2f}",
            f"{each['spearman']:.3f}",
            f"{each['scale']:.3g}",
            _cell(each.get("note", "")),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    if arguments.dattri is not None:
        lines += [
            "",
            "dattri 0.3.0: the explicit Hessian is a matrix of all parameters by all; EK-FAC reads "
            "maps whose input has two dimensions (`a_prev` in `dattri/func/fisher.py`), not those "
            "over tokens. Its train set is one batch for CG, LiSSA and Arnoldi, since over several "
            "it sums the inverses of each: that is what the limit of memory stops.",
        ]
    versions = ", ".join(f"{p} {version(p)}" for p in ("torch", "peft", "kronfluence"))
    peer = "" if arguments.dattri is None else f", dattri {_version_in(arguments.dattri)}"
    lines += [
        "",
        f"Machine: {machine()}. Python {platform.python_version()}, {versions}{peer}. Load "
        f"average: {os.getloadavg()[0]:.1f} (0 on a quiet machine; seconds are provisional above "
        "0.5).",
        f"Command: `{command_line('influence_peers.py')}`",
    ]
    return "\n".join(lines)


def _version_in(folder: Path) -> str:
    """Returns dattri's version in a folder that pip filled."""
    found = [d.version for d in distributions(name="dattri", path=[str(folder)])]
    return found[0] if found else "?"


def _cell(text: str) -> str:
    """Returns a text that fits a cell of a table."""
    text = " ".join(text.rpartition("DefaultCPUAllocator: ")[2].replace("|", "/").split())
    return text if len(text) <= 160 else f"{text[:157]}..."


def parse(given: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--dattri", type=Path, metavar="DIR", help="where pip put it; default: without it")
    add("--data", metavar="NAME|CSV", help="default: lipophilicity, else demo")
    add("--model", default="small", help="checkpoint that is fine-tuned")
    add("--rank", type=int, default=8, help="of LoRA")
    add("--epochs", type=int, default=3)
    add("--train", type=int, default=500, help="molecules to fine-tune on")
    add("--points", type=int, default=100, help="molecules to value")
    add("--targets", type=int, default=100, help="rows of validation")
    add("--damping", type=float, default=0.05, help="share of the largest eigenvalue")
    add("--sides", nargs="+", choices=list(SIDES), help="default: all (dattri's with --dattri)")
    add("--limit", type=int, default=900, help="seconds that a way may take")
    add("--memory-gib", type=float, default=12, help="address space that a way may take")
    add("--json", action="store_true", help="print the numbers instead of the section")
    add_output_options(parser)
    arguments = parser.parse_args(given)
    if arguments.sides is None:
        arguments.sides = [n for n in SIDES if arguments.dattri or not n.startswith("dattri")]
    if arguments.quick:
        arguments.train, arguments.points, arguments.targets, arguments.epochs = 24, 8, 8, 1
    arguments.sides = [_EXACT, *(name for name in arguments.sides if name != _EXACT)]
    settle_page(arguments)
    return arguments


def main(given: Sequence[str] | None = None) -> int:
    """Runs the benchmark, prints its section and writes it."""
    arguments = parse(given)
    world, found = measure(arguments)
    text = report(world, found, arguments)
    print(json.dumps({"world": world, "sides": found}) if arguments.json else text)
    if arguments.page is not None:
        write_section("influence-peers", text, arguments.page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
