"""Makes the demo: drug-like molecules with a synthetic logD, part of the secondary set corrupted.

`python -m lipo_cli.chem.demo_set --out DIR` writes the files of `chem/demo/` again, bit for bit.
The molecules are assembled from `demo_parts`, the labels are `demo_labels.synthetic_logd` plus
Gaussian noise. Of the secondary rows a known share is wrong: 1.5 to 3 log units too high, as if
read off another scale. The column `corrupted` says which; nothing that scores ever reads it.
"""

from __future__ import annotations

import argparse
import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rdkit import Chem
from rdkit.Chem import rdMolDescriptors

from lipo_cli.chem import demo_parts as parts
from lipo_cli.chem.demo_labels import synthetic_logd
from lipo_cli.chem.molecules import ParsedMolecule, parse, read
from lipo_cli.chem.properties import crippen_logp

SEED = 20261
N_PRIMARY = 1500
N_SECONDARY = 300
RARE_IN_PRIMARY = 0.10
RARE_IN_SECONDARY = 0.60
NOISE = 0.2
"""Standard deviation of the label noise, log units."""
CORRUPTED_SHARE = 0.4
SHIFT = (1.5, 3.0)
"""Log units that a corrupted label is too high."""
LARGEST_LABEL = 4.8
"""Corrupted labels stay in the range of the others, so that the range does not betray them."""
WEIGHT = (250.0, 500.0)
LOGD = (-2.0, LARGEST_LABEL)


@dataclass(frozen=True)
class DemoRow:
    """A demo molecule: SMILES, noisy label, and whether the label was corrupted afterwards."""

    smiles: str
    label: float
    corrupted: bool = False


def make_demo(seed: int = SEED) -> tuple[list[DemoRow], list[DemoRow]]:
    """Returns the primary and the secondary rows, the same for the same seed."""
    rng = np.random.default_rng(seed)
    known: set[str] = set()
    primary = _draw_set(N_PRIMARY, RARE_IN_PRIMARY, known, rng)
    secondary = _draw_set(N_SECONDARY, RARE_IN_SECONDARY, known, rng)
    return primary, corrupt(secondary, rng)


def corrupt(rows: list[DemoRow], rng: np.random.Generator) -> list[DemoRow]:
    """Raises the labels of 40 % of the rows by 1.5 to 3 log units, and says so in the flag."""
    room = np.array([LARGEST_LABEL - row.label for row in rows])
    eligible = np.flatnonzero(room >= SHIFT[0])
    chosen = set(rng.choice(eligible, round(CORRUPTED_SHARE * len(rows)), replace=False).tolist())
    changed = []
    for position, row in enumerate(rows):
        if position in chosen:
            shift = rng.uniform(SHIFT[0], min(SHIFT[1], float(room[position])))
            row = DemoRow(row.smiles, round(row.label + shift, 2), corrupted=True)
        changed.append(row)
    return changed


def write_demo(folder: Path, seed: int = SEED) -> tuple[Path, Path]:
    """Writes primary.csv and secondary.csv into a folder; returns their paths."""
    primary, secondary = make_demo(seed)
    folder.mkdir(parents=True, exist_ok=True)
    paths = (folder / "primary.csv", folder / "secondary.csv")
    _write(paths[0], ["id", "smiles", "logd"], [[r.smiles, f"{r.label:.2f}"] for r in primary], "P")
    _write(
        paths[1],
        ["id", "smiles", "logd", "corrupted"],
        [[r.smiles, f"{r.label:.2f}", str(int(r.corrupted))] for r in secondary],
        "S",
    )
    return paths


def _write(path: Path, header: list[str], rows: list[list[str]], letter: str) -> None:
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(header)
        writer.writerows([f"{letter}{i:04d}", *row] for i, row in enumerate(rows, start=1))


def _draw_set(
    n: int, rare_share: float, known: set[str], rng: np.random.Generator
) -> list[DemoRow]:
    """Draws `n` molecules whose skeletons are not known yet, in random order."""
    n_rare = round(n * rare_share)
    rows: list[DemoRow] = []
    for count, rare in ((n_rare, True), (n - n_rare, False)):
        wanted = len(rows) + count
        while len(rows) < wanted:
            smiles = _assemble(rare, rng)
            parsed = parse(smiles)
            # Every draw takes the same numbers from rng whether it is kept or not.
            noise = rng.normal(0.0, NOISE)
            if not isinstance(parsed, ParsedMolecule) or parsed.skeleton in known:
                continue
            mol = read(parsed.canonical)
            label = round(synthetic_logd(mol) + noise, 2)
            if is_drug_like(mol) and LOGD[0] <= label <= LOGD[1]:
                known.add(parsed.skeleton)
                rows.append(DemoRow(smiles, label))
    return [rows[i] for i in rng.permutation(len(rows))]


def is_drug_like(mol: Chem.Mol) -> bool:
    """Returns whether size, polarity and flexibility are those of oral drugs, a little wider."""
    weight = rdMolDescriptors.CalcExactMolWt(mol)
    return bool(
        WEIGHT[0] <= weight <= WEIGHT[1]
        and rdMolDescriptors.CalcTPSA(mol) <= 140.0
        and rdMolDescriptors.CalcNumRotatableBonds(mol) <= 9
        and rdMolDescriptors.CalcNumRings(mol) <= 5
        and -1.0 <= crippen_logp(mol) <= 5.5
    )


def _assemble(rare: bool, rng: np.random.Generator) -> str:
    """Puts one molecule together; about one in two has a large group in both places."""
    on_nitrogen = rng.random() < 0.35
    core = _one_of(parts.NITROGEN_CORES if on_nitrogen else parts.CARBON_CORES, rng)
    first = _group_on_nitrogen(rng) if on_nitrogen else _group_on_carbon(rng)
    second = _group_on_carbon(rng) if rng.random() < 0.35 else _one_of(parts.SMALL, rng)
    if rare:
        # On a nitrogen core only the second place takes every tail.
        second_is_rare = on_nitrogen or rng.random() < 0.5
        tail = _one_of(parts.RARE_TAILS, rng)
        first, second = (first, tail) if second_is_rare else (tail, second)
    return core.format(first, second)


def _group_on_carbon(rng: np.random.Generator) -> str:
    kind = rng.random()
    if kind < 0.4:
        linkers = parts.CARBON_LINKERS + parts.SULFUR_LINKERS
        return _one_of(linkers, rng) + _one_of(parts.ARYL_TAILS, rng)
    if kind < 0.7:
        return _one_of(parts.CARBON_LINKERS, rng) + _one_of(parts.ALKYL_TAILS, rng)
    return _one_of(parts.AMINE_LINKERS, rng) + _one_of(parts.AMINE_TAILS, rng)


def _group_on_nitrogen(rng: np.random.Generator) -> str:
    kind = rng.random()
    if kind < 0.75:
        tails = parts.ARYL_TAILS if kind < 0.5 else parts.ALKYL_TAILS
        return _one_of(parts.ON_NITROGEN_LINKERS, rng) + _one_of(tails, rng)
    return _one_of(parts.ON_NITROGEN_AMINE_LINKERS, rng) + _one_of(parts.AMINE_TAILS, rng)


def _one_of(choices: tuple[str, ...], rng: np.random.Generator) -> str:
    return choices[int(rng.integers(len(choices)))]


def main() -> None:
    """Writes the demo files."""
    parser = argparse.ArgumentParser(description="Write the demo set again.")
    parser.add_argument("--out", type=Path, required=True, help="folder for the two files")
    parser.add_argument("--seed", type=int, default=SEED)
    arguments = parser.parse_args()
    write_demo(arguments.out, arguments.seed)


if __name__ == "__main__":
    main()
