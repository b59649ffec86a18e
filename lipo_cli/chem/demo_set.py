"""Makes the demo: drug-like molecules with a synthetic logD, part of the secondary set corrupted.

`python -m lipo_cli.chem.demo_set --out DIR` writes the files of `chem/demo/` again, bit for bit.
The molecules are assembled from `demo_parts`, the labels are `demo_labels.synthetic_logd` plus
Gaussian noise. Two fifths of the secondary rows are wrong as rows of real collections are: the
source measured these acids in acid buffer, where they are neutral, and their labels are the logP,
2.8 log units above the logD at pH 7.4. The column `corrupted` says which rows; nothing that
scores ever reads it. The other rows are honest: acids, bases and neutral molecules.
"""

from __future__ import annotations

import argparse
import csv
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rdkit import Chem
from rdkit.Chem import rdMolDescriptors

from lipo_cli.chem import demo_parts as parts
from lipo_cli.chem.demo_labels import ionisation_loss, strongest_acid, synthetic_logd
from lipo_cli.chem.molecules import ParsedMolecule, parse, read
from lipo_cli.chem.properties import crippen_logp

SEED = 20261
N_PRIMARY = 1500
N_SECONDARY = 300
IONISED_IN_PRIMARY = 0.20
IONISED_IN_SECONDARY = 0.80
NOISE = 0.15
"""Standard deviation of the label noise, log units."""
CORRUPTED_SHARE = 0.4
SMALLEST_ERROR = 2.0
"""Log units that a corrupted label is too high, at least; a base beside the acid changes it."""
LARGEST_LABEL = 4.8
"""Corrupted labels stay in the range of the others, so that the range does not betray them."""
WEIGHT = (250.0, 500.0)
LOGD = (-2.0, LARGEST_LABEL)


@dataclass(frozen=True)
class DemoRow:
    """A demo molecule.

    Attributes:
        smiles: As assembled, not canonical.
        label: Noisy synthetic logD.
        ionisation_loss: How far logD lies below logP, log units.
        is_acid: Whether an acid is in it.
        corrupted: Whether the label is logP instead.
    """

    smiles: str
    label: float
    ionisation_loss: float
    is_acid: bool
    corrupted: bool = False


def make_demo(seed: int = SEED) -> tuple[list[DemoRow], list[DemoRow]]:
    """Returns the primary and the secondary rows, the same for the same seed."""
    rng = np.random.default_rng(seed)
    known: set[str] = set()
    primary = _draw_set(N_PRIMARY, IONISED_IN_PRIMARY, known, rng)
    secondary = _draw_set(N_SECONDARY, IONISED_IN_SECONDARY, known, rng)
    return primary, corrupt(secondary, rng)


def corrupt(rows: list[DemoRow], rng: np.random.Generator) -> list[DemoRow]:
    """Gives 40 % of the rows, all of them acids, their logP for a label and the flag."""
    eligible = [
        position
        for position, row in enumerate(rows)
        if row.is_acid
        and row.ionisation_loss >= SMALLEST_ERROR
        and row.label + row.ionisation_loss <= LARGEST_LABEL
    ]
    chosen = rng.choice(eligible, round(CORRUPTED_SHARE * len(rows)), replace=False)
    changed = list(rows)
    for position in chosen:
        row = rows[position]
        wrong = round(row.label + row.ionisation_loss, 2)
        changed[position] = replace(row, label=wrong, corrupted=True)
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
    n: int, ionised_share: float, known: set[str], rng: np.random.Generator
) -> list[DemoRow]:
    """Draws `n` molecules whose skeletons are not known yet, in random order."""
    n_ionised = round(n * ionised_share)
    rows: list[DemoRow] = []
    for count, ionised in ((n_ionised, True), (n - n_ionised, False)):
        wanted = len(rows) + count
        while len(rows) < wanted:
            smiles = _assemble(ionised, rng)
            parsed = parse(smiles)
            # Every draw takes the same numbers from rng whether it is kept or not.
            noise = rng.normal(0.0, NOISE)
            if not isinstance(parsed, ParsedMolecule) or parsed.skeleton in known:
                continue
            mol = read(parsed.canonical)
            label = round(synthetic_logd(mol) + noise, 2)
            if is_drug_like(mol) and LOGD[0] <= label <= LOGD[1]:
                known.add(parsed.skeleton)
                is_acid = strongest_acid(mol) is not None
                rows.append(DemoRow(smiles, label, ionisation_loss(mol), is_acid))
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


def _assemble(ionised: bool, rng: np.random.Generator) -> str:
    """Puts one molecule together; about one in two has a large group in both places."""
    on_nitrogen = rng.random() < 0.35
    core = _one_of(parts.NITROGEN_CORES if on_nitrogen else parts.CARBON_CORES, rng)
    first = _group_on_nitrogen(rng) if on_nitrogen else _group_on_carbon(rng)
    second = _group_on_carbon(rng) if rng.random() < 0.35 else _one_of(parts.SMALL, rng)
    if ionised:
        # On a nitrogen core only the second place takes every tail.
        second_is_ionised = on_nitrogen or rng.random() < 0.5
        tail = _one_of(parts.IONISED_TAILS, rng)
        first, second = (first, tail) if second_is_ionised else (tail, second)
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
