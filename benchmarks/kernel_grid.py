"""How the kernel readout was chosen: validation RMSE over its settings. Test is not read.

    python benchmarks/kernel_grid.py          # prints, and writes its section of docs/benchmarks.md
    python benchmarks/kernel_grid.py --dry

The share beside networks needs their predictions: those of `full` that benchmarks/accuracy.py kept
on the reference split are used, whatever their number.
"""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
from accuracy_ours import found_ours
from kept_runs import Run, Shelf
from report import DOCS, command_line, machine, write_section
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVR
from split_files import split_file
from valued import Floats

from lipo_cli.chem.fingerprints import morgan_bits, tanimoto
from lipo_cli.model.ensemble import KERNEL_SHARE
from lipo_cli.model.kernel import EPSILON, PENALTY, RECIPE, STRUCTURE, gaussian
from lipo_cli.model.regressor import Regressor
from lipo_cli.settings import DataSettings, TrainingSettings, build

PENALTIES = (1.0, 3.0, 10.0)
WIDTHS = (0.5, 1.0, 2.0)
STRUCTURES = (0.0, 0.5, 1.0)
SHARES = sorted({0.0, 0.25, 1 / 3, KERNEL_SHARE, 2 / 3, 0.75, 1.0})


class Bench:
    """The embeddings and fingerprints of train and validation."""

    def __init__(self, frame: pd.DataFrame, model: str) -> None:
        parts = {p: frame[frame["split"] == p] for p in ("train", "val")}
        encoder = Regressor.from_base("full", build(TrainingSettings, {"model": model}), 0)
        scaler = StandardScaler()
        smiles = {name: list(part["smiles"]) for name, part in parts.items()}
        self.train_z = scaler.fit_transform(encoder.embed(smiles["train"]))
        self.val_z = scaler.transform(encoder.embed(smiles["val"]))
        train_bits, val_bits = morgan_bits(smiles["train"]), morgan_bits(smiles["val"])
        self.alike = tanimoto(train_bits, train_bits), tanimoto(val_bits, train_bits)
        self.train_y, self.val_y = (
            parts[p]["label"].to_numpy(np.float64) for p in ("train", "val")
        )

    def predicted(self, penalty: float, width: float, structure: float) -> Floats:
        """Returns predictions of validation; gamma is `width` over the embedding's width."""
        gamma = np.array([width / self.train_z.shape[1]])
        kernel = gaussian(self.train_z, self.train_z, gamma) + structure * self.alike[0]
        other = gaussian(self.val_z, self.train_z, gamma) + structure * self.alike[1]
        centre, scale = self.train_y.mean(), self.train_y.std()
        fitted = SVR(kernel="precomputed", C=penalty, epsilon=EPSILON)
        fitted.fit(kernel, (self.train_y - centre) / scale)
        return np.asarray(centre + scale * fitted.predict(other))

    def rmse(self, predicted: Floats) -> float:
        """Returns the validation RMSE, raw label units."""
        return float(np.sqrt(np.mean((predicted - self.val_y) ** 2)))


def report(bench: Bench, networks: Sequence[Run], model: str) -> str:
    """Returns the section of the docs: the grid, and the share beside networks."""
    lines = [
        "## How the kernel readout was chosen",
        "",
        f"Validation RMSE of Lipophilicity's reference split, frozen encoder of `{model}`; chosen: "
        f"{RECIPE}.",
        "",
        "| Tanimoto's weight | gamma x width | " + " | ".join(f"C {c:g}" for c in PENALTIES) + " |",
        "|---:|---:|" + "---:|" * len(PENALTIES),
    ]
    for structure in STRUCTURES:
        for width in WIDTHS:
            cells = []
            for penalty in PENALTIES:
                text = f"{bench.rmse(bench.predicted(penalty, width, structure)):.3f}"
                chosen = (structure, width, penalty) == (STRUCTURE, 1.0, PENALTY)
                cells.append(f"**{text}**" if chosen else text)
            lines.append(f"| {structure:g} | {width:g} | {' | '.join(cells)} |")
    if networks:
        lines += ["", *share_lines(bench, networks)]
    lines += [
        "",
        f"Machine: {machine()}. Python {platform.python_version()}, "
        + ", ".join(f"{p} {version(p)}" for p in ("lipo", "scikit-learn", "rdkit"))
        + ".",
        f"Command: `{command_line('kernel_grid.py')}`",
    ]
    return "\n".join(lines)


def share_lines(bench: Bench, networks: Sequence[Run]) -> list[str]:
    """Returns the table of the share that the readout has beside networks (one SMILES)."""
    kernel = bench.predicted(PENALTY, 1.0, STRUCTURE)
    views = [run.views[(run.rows["split"] == "val").to_numpy(), 0] for run in networks]
    n = len(views)
    lines = [
        f"| share beside networks | one network, mean of {n} | the {n} together |",
        "|---:|---:|---:|",
    ]
    for share in SHARES:
        single = np.mean([bench.rmse((1 - share) * v + share * kernel) for v in views])
        together = bench.rmse((1 - share) * np.mean(views, axis=0) + share * kernel)
        cells = f"{share:.2f} | {single:.3f} | {together:.3f}"
        if share == KERNEL_SHARE:
            cells = "**" + cells.replace(" | ", "** | **") + "**"
        lines.append(f"| {cells} |")
    return lines


def main(given: Sequence[str] | None = None) -> int:
    """Runs the benchmark, prints its section and writes it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--data", help="default: lipophilicity")
    add("--model", default="small", help="checkpoint")
    add("--seeds", type=int, default=5, help="networks, where they are kept")
    add("--out", type=Path, default=Path("build/accuracy"), help="where runs are kept")
    add("--dry", action="store_true", help="print only")
    add("--page", type=Path, default=DOCS, metavar="FILE", help="write the section there")
    arguments = parser.parse_args(given)
    data = {"split": "reference", **({"dataset": arguments.data} if arguments.data else {})}
    splits = split_file(build(DataSettings, data), arguments.out)
    settings = build(TrainingSettings, {"model": arguments.model})
    networks = [
        run
        for seed in range(arguments.seeds)
        if (run := found_ours(splits, Shelf(splits), "full", settings, seed, 1)[1]) is not None
    ]
    text = report(Bench(splits.frame, arguments.model), networks, arguments.model)
    print(text)
    if not arguments.dry:
        write_section("kernel-grid", text, arguments.page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
