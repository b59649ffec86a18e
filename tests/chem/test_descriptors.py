"""Descriptors: the values of RDKit's own functions under the names we give them."""

from __future__ import annotations

import numpy as np
import pytest
from rdkit import Chem
from rdkit.Chem import Crippen, Descriptors

from lipo_cli.chem.descriptors import DESCRIPTORS, descriptor_matrix

SMILES = ["CC(=O)Oc1ccccc1C(=O)O", "CN1CCC(Cc2ccccc2)CC1", "OC(=O)C(F)(F)F", "c1nnn[nH]1"]


def column(name: str, smiles: list[str]) -> list[float]:
    return descriptor_matrix(smiles)[:, DESCRIPTORS.index(name)].tolist()


def test_values_are_those_of_rdkit_by_name() -> None:
    mols = [Chem.MolFromSmiles(text) for text in SMILES]
    for name, function in (
        ("CrippenClogP", Crippen.MolLogP),
        ("tpsa", Descriptors.TPSA),
        ("SlogP_VSA12", Descriptors.SlogP_VSA12),
        ("PEOE_VSA1", Descriptors.PEOE_VSA1),
        ("SMR_VSA10", Descriptors.SMR_VSA10),
        ("fr_COO", Descriptors.fr_COO),
    ):
        assert column(name, SMILES) == pytest.approx([function(mol) for mol in mols], rel=1e-5)


def test_names_are_distinct_and_match_the_columns() -> None:
    assert len(set(DESCRIPTORS)) == len(DESCRIPTORS) == descriptor_matrix(["C"]).shape[1]


@pytest.mark.parametrize(
    ("smiles", "basic", "acidic"),
    [
        ("CCN", 1, 0),
        ("CN1CCNCC1", 2, 0),
        ("CC(=O)NC", 0, 0),  # an amide
        ("Nc1ccccc1", 0, 0),  # an aniline
        ("CS(=O)(=O)NC", 0, 0),  # a sulfonamide
        ("N#CNC", 0, 0),
        ("CC(=O)O", 0, 1),
        ("CC(=O)OC", 0, 0),
        ("c1nnn[nH]1", 0, 1),
        ("CC(=O)NS(C)(=O)=O", 0, 1),  # an acyl sulfonamide
        ("CS(=O)(=O)O", 0, 1),
    ],
)
def test_ionised_groups(smiles: str, basic: int, acidic: int) -> None:
    assert column("basic_amines", [smiles]) == [basic]
    assert column("acidic_groups", [smiles]) == [acidic]


def test_what_is_no_molecule_is_nan_and_does_not_stop_the_rest() -> None:
    values = descriptor_matrix(["CCO", "C(", "CC"])
    assert np.isnan(values[1]).all()
    assert np.isfinite(values[[0, 2]]).all()
    assert descriptor_matrix([]).shape == (0, len(DESCRIPTORS))
