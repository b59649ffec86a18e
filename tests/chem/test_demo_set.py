import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from rdkit import Chem
from rdkit.Chem import rdMolDescriptors

from lipo_cli.chem import demo_parts as parts
from lipo_cli.chem.datasets import DEMO_FOLDER, load_dataset
from lipo_cli.chem.demo_labels import (
    ionisation_loss,
    strongest_acid,
    strongest_base,
    synthetic_logd,
)
from lipo_cli.chem.demo_set import CORRUPTED_SHARE, NOISE, SMALLEST_ERROR, write_demo
from lipo_cli.chem.molecules import murcko_scaffold, parse_problem
from lipo_cli.chem.properties import crippen_logp
from lipo_cli.settings import DataSettings


def test_script_makes_the_embedded_files_again_bit_for_bit(tmp_path: Path) -> None:
    for path in write_demo(tmp_path):
        assert path.read_bytes() == (DEMO_FOLDER / path.name).read_bytes(), path.name


def test_demo_is_small_and_diverse() -> None:
    demo = load_dataset(DataSettings(dataset="demo"))
    assert demo.secondary is not None
    assert (len(demo.primary), len(demo.secondary)) == (1500, 300)
    assert sum(path.stat().st_size for path in DEMO_FOLDER.iterdir()) < 300_000
    scaffolds = Counter(map(murcko_scaffold, demo.primary.smiles))
    assert len(scaffolds) > 500
    assert max(scaffolds.values()) < 50
    weights = [
        rdMolDescriptors.CalcExactMolWt(Chem.MolFromSmiles(smiles))
        for smiles in demo.primary.smiles + demo.secondary.smiles
    ]
    assert min(weights) >= 250
    assert max(weights) <= 500


def test_no_secondary_molecule_is_primary() -> None:
    demo = load_dataset(DataSettings(dataset="demo"))
    assert demo.secondary is not None
    assert not set(demo.primary.skeletons) & set(demo.secondary.skeletons)


def test_known_share_is_corrupted_upwards_within_the_range_of_the_others() -> None:
    demo = load_dataset(DataSettings(dataset="demo"))
    assert demo.secondary is not None
    corrupted = demo.known_corruption
    assert corrupted is not None
    assert corrupted.sum() == CORRUPTED_SHARE * 300
    truth = np.array([synthetic_logd(Chem.MolFromSmiles(s)) for s in demo.secondary.smiles])
    error = demo.secondary.labels - truth
    assert error[corrupted].min() > SMALLEST_ERROR - 4 * NOISE
    assert error[corrupted].max() < 3.0 + 4 * NOISE
    assert np.abs(error[~corrupted]).max() < 4 * NOISE
    assert error[~corrupted].std() == pytest.approx(NOISE, rel=0.2)
    assert demo.secondary.labels.max() <= demo.primary.labels.max() + 0.05


def test_order_of_rows_does_not_tell_what_is_corrupted() -> None:
    corrupted = load_dataset(DataSettings(dataset="demo")).known_corruption
    assert corrupted is not None
    assert 45 <= corrupted[:150].sum() <= 75


def test_neutral_molecule_has_its_logp_for_logd() -> None:
    mol = Chem.MolFromSmiles("Clc1ccccc1CCc1ccccc1")
    assert strongest_acid(mol) is None
    assert strongest_base(mol) is None
    assert synthetic_logd(mol) == crippen_logp(mol)


@pytest.mark.parametrize(
    ("smiles", "acid", "base"),
    [
        ("CC(=O)O", 4.2, None),
        ("OC(=O)c1ccccc1", 4.2, None),
        ("COC(C)=O", None, None),
        ("CCN", None, 9.8),
        ("CCNCC", None, 9.7),
        ("CCN(CC)CC", None, 8.5),
        ("CN1CCOCC1", None, 7.0),
        ("CN1CCN(c2ccccc2)CC1", None, 7.4),
        ("CC(=O)NCC", None, None),
        ("CN(C)c1ccccc1", None, None),
        ("CS(=O)(=O)NCC", None, None),
        ("NCC(=O)O", 4.2, 9.8),
    ],
)
def test_typical_pka(smiles: str, acid: float | None, base: float | None) -> None:
    mol = Chem.MolFromSmiles(smiles)
    assert (strongest_acid(mol), strongest_base(mol)) == (acid, base)


def test_ionisation_lowers_logd_as_the_formula_says() -> None:
    neutral = 1 / (1 + 10 ** (7.4 - 4.2))
    expected = -math.log10(neutral + (1 - neutral) * 10**-3.0)
    assert ionisation_loss(Chem.MolFromSmiles("CCCC(=O)O")) == pytest.approx(expected)
    assert ionisation_loss(Chem.MolFromSmiles("CCCCO")) == 0


def test_every_part_makes_a_molecule() -> None:
    for core in parts.CARBON_CORES + parts.NITROGEN_CORES:
        assert parse_problem(core.format("C", "F")) is None, core
    tails = parts.ARYL_TAILS + parts.ALKYL_TAILS + parts.AMINE_TAILS + parts.IONISED_TAILS
    for tail in (*tails, *parts.SMALL):
        assert parse_problem(f"c1ccccc1{tail}") is None, tail
