"""Are the verdicts of `lipo compare` honest? Coverage, a null comparison, and a planted one.

Coverage: simulated test RMSEs, arms x seeds x molecules, where the truth is known; lipo's interval
beside Student's t over the seeds and a bootstrap over seeds and molecules.

Null: whole comparisons of a tiny model whose secondary set is a copy of all train rows. By equal
steps, the default of `lipo compare`, training on all of it too is training on the same rows as
often, and a choice of two weighs two of 300 double: next to nothing to find, and every significant
verdict is a false one. With `--equal-epochs` more rows are more steps, of copies too. (Copies of a
tenth of the rows are not nothing: rows that count twice leave less weight to the others, as if
there were 279 rows instead of 300, and models were worse for it.)

Planted: the same with as many new molecules as there are in train, half of whose labels are wrong:
shuffled among one another, or too high by two standard deviations, as those of another assay may
be. TS-DShapley's choice must beat the control `all`.

    python benchmarks/verdicts.py                # about an hour of one core
    python benchmarks/verdicts.py --quick --dry
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from report import add_output_options, machine, settle_page, write_section
from scipy.stats import t as student_t
from sklearn.metrics import roc_auc_score

from lipo_cli.chem import demo
from lipo_cli.chem.datasets import load_dataset
from lipo_cli.commands.compare_view import CompareView
from lipo_cli.comparison.engine import compare
from lipo_cli.comparison.intervals import (
    Component,
    half_width,
    molecule_component,
    residual_variance,
)
from lipo_cli.comparison.prepare import prepare
from lipo_cli.comparison.result import Comparison
from lipo_cli.main import main as lipo
from lipo_cli.settings import CompareSettings, DataSettings, build
from lipo_cli.tracking.ledger import MlflowLedger
from lipo_cli.tracking.store import open_store
from lipo_cli.training.examples import Examples

Floats = NDArray[np.float64]
World = Literal["null", "shuffled", "shifted"]
PLANTED: dict[World, str] = {
    "shuffled": "shuffled among one another",
    "shifted": "too high by two standard deviations",
}

NOISE = (
    ("seeds decide", 0.02, 0.02, 0.2),
    ("molecules decide", 0.0, 0.3, 0.1),
    ("both", 0.02, 0.3, 0.1),
)
"""Name; standard deviations of seed within arm, of molecule within arm, and of the rest."""
N_ARMS, N_MOLECULES, N_RESAMPLED = 6, 200, 300
N_TRAIN, N_VAL, N_TEST, N_POOL = 300, 100, 300, 300
N_COPIES, N_CHOSEN = N_TRAIN, 2


def simulated(rng: np.random.Generator, n_seeds: int, noise: tuple[float, float, float]) -> Floats:
    """Returns terms [arm, seed, molecule] of arms that do not differ in truth."""
    seed, molecule, rest = noise
    return (
        rng.normal(0, seed, (N_ARMS, n_seeds, 1))
        + rng.normal(0, seed, (1, n_seeds, 1))
        + rng.normal(0, molecule, (N_ARMS, 1, N_MOLECULES))
        + rng.normal(0, rest, (N_ARMS, n_seeds, N_MOLECULES))
    )


def half_widths(terms: Floats, rng: np.random.Generator) -> dict[str, tuple[float, float]]:
    """Returns how far off each interval of arm 1 less arm 0 is, and half its width."""
    n_seeds = terms.shape[1]
    means = terms.mean(axis=2)
    seeds = np.tile(np.arange(n_seeds), N_ARMS).tolist()
    arms = np.repeat(np.arange(N_ARMS), n_seeds).tolist()
    one = residual_variance(seeds, arms, means.ravel().tolist())
    assert one is not None
    difference = terms[1] - terms[0]
    delta = float(difference.mean())
    own = Component(2 * one.variance / n_seeds, one.df)
    by_seed = difference.mean(axis=1)
    quantile = float(student_t.ppf(0.975, n_seeds - 1))
    chosen = rng.integers(0, n_seeds, (N_RESAMPLED, n_seeds))
    molecules = rng.integers(0, N_MOLECULES, (N_RESAMPLED, N_MOLECULES))
    resampled = [difference[s][:, m].mean() for s, m in zip(chosen, molecules, strict=True)]
    low, high = np.quantile(resampled, [0.025, 0.975])
    return {
        "lipo": (abs(delta), half_width([own, molecule_component(difference.mean(axis=0))])),
        "t over seeds": (abs(delta), quantile * by_seed.std(ddof=1) / np.sqrt(n_seeds)),
        "bootstrap": (abs((low + high) / 2), (high - low) / 2),
    }


def coverage(n_trials: int) -> list[str]:
    """Returns the table of coverage and mean half-width."""
    rng = np.random.default_rng(0)
    lines = [
        "| seeds | what decides | lipo | t over seeds | bootstrap of both |",
        "|---:|---|---:|---:|---:|",
    ]
    for n_seeds in (2, 3, 5):
        for name, *noise in NOISE:
            found: dict[str, list[tuple[bool, float]]] = {}
            for _ in range(n_trials):
                terms = simulated(rng, n_seeds, (noise[0], noise[1], noise[2]))
                for kind, (off, half) in half_widths(terms, rng).items():
                    found.setdefault(kind, []).append((off <= half, half))
            said = [
                f"{np.mean([c for c, _ in rows]):.1%} (± {np.mean([h for _, h in rows]):.3f})"
                for rows in found.values()
            ]
            lines.append(f"| {n_seeds} | {name} | {' | '.join(said)} |")
            print(lines[-1], file=sys.stderr)
    return lines


def tiny_model(folder: Path) -> Path:
    """Pretrains a model of a hundred thousand parameters for a minute on the demo's molecules."""
    primary = Path(demo.__path__[0]) / "primary.csv"
    arguments = ["pretrain", str(primary), "--out", str(folder), "--size", "tiny", "--no-track"]
    if code := lipo([*arguments, "--epochs", "4", "--objective", "descriptors"]):
        raise SystemExit(f"no tiny model: exit code {code}")
    return folder


def write_world(folder: Path, seed: int, kind: World) -> dict[str, Any]:
    """Writes a primary set with its split and a secondary set; returns their settings."""
    source = Path(demo.__path__[0]) / "primary.csv"
    frame = pd.read_csv(source).rename(columns=str.lower)
    label = frame.columns[-1]
    rng = np.random.default_rng([seed, kind != "null"])
    frame = frame.iloc[rng.permutation(len(frame))].reset_index(drop=True)
    n_primary = N_TRAIN + N_VAL + N_TEST
    primary = frame.head(n_primary).copy()
    primary["split"] = ["train"] * N_TRAIN + ["val"] * N_VAL + ["test"] * N_TEST
    if kind != "null":
        pool = frame.iloc[n_primary : n_primary + N_POOL].copy()
        wrong = rng.permutation(N_POOL)[: N_POOL // 2]
        column = pool.columns.get_loc(label)
        labels = pool[label].to_numpy()
        pool.iloc[wrong, column] = (
            labels[np.roll(wrong, 1)] if kind == "shuffled" else labels[wrong] + 2 * labels.std()
        )
    else:
        pool = primary.head(N_TRAIN).sample(N_COPIES, random_state=seed)[["smiles", label]]
    folder.mkdir(parents=True, exist_ok=True)
    primary.to_csv(folder / "primary.csv", index=False)
    pool.to_csv(folder / "secondary.csv", index=False)
    return {
        "dataset": str(folder / "primary.csv"),
        "secondary": str(folder / "secondary.csv"),
        "label_column": label,
        "split": "column",
    }


def comparisons(
    arguments: argparse.Namespace, model: Path, scratch: Path, kind: World
) -> Iterator[Comparison]:
    """Runs a comparison for each repetition."""
    for seed in range(arguments.repetitions if kind == "null" else arguments.planted):
        data = write_world(scratch / f"{kind}{seed}", seed, kind)
        settings = build(
            CompareSettings,
            {
                "data": data,
                "training": {
                    "model": str(model),
                    "epochs": arguments.epochs,
                    "learning_rate": arguments.learning_rate,
                    "equal_steps": not arguments.equal_epochs,
                },
                "selections": (f"tsds:top={N_CHOSEN}", f"tsds:bottom={N_CHOSEN}")
                if kind == "null"
                else ("tsds",),
                "peft": ("full",),
                "seeds": arguments.seeds,
                "first_seed": 100 * seed,
            },
        )
        store = open_store(scratch / "store")
        ledger = MlflowLedger(store, f"{kind}-{seed}")
        with CompareView(arguments.epochs) as view:
            yield compare(settings, prepare(settings.data), ledger, view)
        print(f"{kind} {seed} done", file=sys.stderr)


def null_lines(results: Sequence[Comparison], n_seeds: int) -> list[str]:
    """Returns what the comparisons with nothing to find said."""
    verdicts = [v for result in results for v in result.verdicts]
    wrong = [v for v in verdicts if v.significant]
    raw = sum(v.p is not None and v.p < 0.05 for v in verdicts)
    families = sum(any(v.significant for v in result.verdicts) for result in results)
    inside = [v.low <= 0 <= v.high for v in verdicts if v.low is not None and v.high is not None]
    return [
        f"Next to nothing to find ({len(results)} comparisons, {n_seeds} seeds, "
        f"{len(verdicts)} verdicts): **{len(wrong)} significant after Holm**, "
        f"in {families} of the comparisons; {raw} with p < 0.05 before it; "
        f"{np.mean(inside):.1%} of the intervals hold zero.",
        *(f"- {v.sentence()}" for v in wrong),
    ]


def planted_lines(results: Sequence[Comparison], kind: World) -> list[str]:
    """Returns what the comparisons with wrong labels said of TS-DShapley's choice."""
    found = [v for r in results for v in r.verdicts if v.selection == "tsds" and v.against == "all"]
    seen = sum(v.significant and v.delta < 0 for v in found)
    mean = np.mean([v.delta for v in found])
    return [
        f"Half of the pool's labels {PLANTED[kind]} ({len(results)} comparisons): TS-DShapley's "
        "choice "
        f"beats `all` significantly in **{seen} of {len(found)}**, by {-mean:.3f} on average.",
        *(f"- {v.sentence()}" for v in found),
        f"Its values part wrong from right labels at an AUROC of {', '.join(map(auroc, results))}; "
        f"wrong among the chosen: {', '.join(map(kept, results))}.",
    ]


def wrong_labels(pool: Examples) -> NDArray[np.bool_]:
    """Returns [n] whose labels are not those of the demo set."""
    truth = true_labels()
    return np.asarray([truth[s] for s in pool.smiles]) != pool.labels


@cache
def true_labels() -> dict[str, float]:
    """Returns the labels of the demo set by SMILES."""
    source = load_dataset(build(DataSettings, {"dataset": "demo"})).primary
    return dict(zip(source.smiles, source.labels.tolist(), strict=True))


def auroc(result: Comparison) -> str:
    """Returns how well the values of TS-DShapley find the wrong labels."""
    wrong = wrong_labels(result.prepared.require_pool().examples)
    return f"{roc_auc_score(wrong, -result.scored['tsds'].scores.values):.2f}"


def kept(result: Comparison) -> str:
    """Returns how many of the points that TS-DShapley chose carry a wrong label."""
    chosen = result.chosen["tsds"]
    wrong = wrong_labels(result.prepared.require_pool().examples)
    return f"{wrong[chosen].sum()} of {len(chosen)}"


def whole_comparisons(arguments: argparse.Namespace) -> list[str]:
    """Runs comparisons with nothing to find and with wrong labels; returns what is said."""
    with ExitStack() as stack:
        scratch = arguments.work or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        model = scratch / "model"
        if not model.exists():
            tiny_model(model)
        null = list(comparisons(arguments, model, scratch, "null"))
        lines = null_lines(null, arguments.seeds) if null else []
        for kind in PLANTED:
            planted = list(comparisons(arguments, model, scratch, kind))
            lines += ["", *planted_lines(planted, kind)] if planted else []
    return [
        *lines,
        "",
        f"Each on {N_TRAIN} train, {N_VAL} validation and {N_TEST} test molecules of the demo set,",
        f"a pool of {N_COPIES} copies or of {N_POOL} others, a model of 0.1 million parameters, "
        f"{arguments.epochs} epochs of "
        f"{'all' if arguments.equal_epochs else N_TRAIN} rows, "
        f"learning rate {arguments.learning_rate:g}.",
    ]


def main() -> None:
    """Measures, and writes docs/benchmarks.md."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--trials", type=int, default=1000, help="simulated comparisons of each row")
    add("--repetitions", type=int, default=40, help="comparisons with nothing to find")
    add("--planted", type=int, default=5, help="comparisons for each kind of wrong labels")
    add("--seeds", type=int, default=3)
    add("--epochs", type=int, default=10)
    add("--learning-rate", type=float, default=3e-3)
    add("--equal-epochs", action="store_true", help="epochs of all rows: more rows, more steps")
    add("--work", type=Path, help="keep models and runs in this folder, and find them there again")
    add_output_options(parser)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.trials, arguments.repetitions, arguments.planted = 20, 1, 1
        arguments.seeds, arguments.epochs = 2, 2
    settle_page(arguments)
    load = os.getloadavg()[0]
    lines = ["## Verdicts", "", "Coverage of 95 % intervals (mean half-width):", ""]
    lines += coverage(arguments.trials)
    if arguments.repetitions or arguments.planted:
        lines += ["", *whole_comparisons(arguments)]
    lines.append("")
    lines += [
        f"Simulated: {N_ARMS} arms, {N_MOLECULES} molecules, {arguments.trials} trials a row, no "
        "difference in truth; standard deviations in `NOISE`.",
        "",
        f"Machine: {machine()}, load {load:.1f}; torch {version('torch')}. "
        f"Command: `python benchmarks/verdicts.py --trials {arguments.trials} --repetitions "
        f"{arguments.repetitions} --planted {arguments.planted} --seeds {arguments.seeds} --epochs "
        f"{arguments.epochs} --learning-rate {arguments.learning_rate:g}"
        f"{' --equal-epochs' if arguments.equal_epochs else ''}`",
    ]
    text = "\n".join(lines)
    print(text)
    if not arguments.dry and arguments.page is not None:
        write_section("verdicts", text, arguments.page)


if __name__ == "__main__":
    main()
