import numpy as np
import pytest
from rdkit import Chem

from lipo_cli.chem.molecules import (
    canonical_smiles,
    murcko_scaffold,
    parse_problem,
    randomised_smiles,
    skeleton,
)
from lipo_cli.chem.tokens import split_tokens, unmatched
from lipo_cli.errors import DataError

MOLECULES = [
    "CC(=O)Oc1ccccc1C(=O)O",
    "C[C@H](N)C(=O)O",
    "F/C=C/F",
    "O=C([O-])c1ccccc1.[Na+]",
    "C1CC2(C1)CCN(CC2)S(=O)(=O)c1ccc2nc[nH]c2c1",
    "C",
    "C[C@]12CC[C@H]3[C@@H](CC[C@@H]4CC(=O)CC[C@]34C)[C@@H]1CC[C@@H]2O",
]


def test_two_ways_of_writing_a_molecule_have_one_canonical_form() -> None:
    assert canonical_smiles("OCC") == canonical_smiles("C(O)C") == "CCO"


def test_canonical_form_of_a_canonical_form_is_itself() -> None:
    for smiles in MOLECULES:
        once = canonical_smiles(smiles)
        assert once is not None
        assert canonical_smiles(once) == once


def test_enantiomers_share_a_skeleton_and_not_a_canonical_form() -> None:
    left, right = "C[C@H](N)C(=O)O", "C[C@@H](N)C(=O)O"
    assert canonical_smiles(left) != canonical_smiles(right)
    assert skeleton(left) == skeleton(right) == canonical_smiles("CC(N)C(=O)O")


def test_double_bond_stereo_is_not_part_of_the_skeleton() -> None:
    assert skeleton("F/C=C/F") == skeleton("F/C=C\\F") == "FC=CF"


def test_scaffold_drops_substituents_and_chirality() -> None:
    assert murcko_scaffold("C[C@H](c1ccccc1)N1CCC[C@@H]1C") == murcko_scaffold("C(c1ccccc1)N1CCCC1")
    assert "@" not in murcko_scaffold("C[C@]12CC[C@H]3[C@@H](CC[C@@H]4CCCC[C@]34C)[C@@H]1CCC2")


def test_molecule_without_rings_has_an_empty_scaffold() -> None:
    assert murcko_scaffold("CCCCO") == ""


@pytest.mark.parametrize("smiles", MOLECULES)
def test_random_smiles_are_the_same_molecule(smiles: str) -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        assert canonical_smiles(randomised_smiles(smiles, rng)) == canonical_smiles(smiles)


def test_random_smiles_are_determined_by_the_generator() -> None:
    def draw(seed: int) -> list[str]:
        rng = np.random.default_rng(seed)
        return [randomised_smiles(MOLECULES[0], rng) for _ in range(10)]

    assert draw(1) == draw(1)
    assert draw(1) != draw(2)
    assert len(set(draw(1))) > 3


@pytest.mark.parametrize(
    ("smiles", "reason"),
    [
        ("", "empty"),
        ("   ", "empty"),
        ("C1CC", "syntax"),
        ("not a molecule", "space"),
        ("C(C)(C)(C)(C)C", "valence"),
        ("c1cccc1", "kekulize"),
        ("C" * 2000, "2,000 characters"),
        ("CCO ethanol", "space"),
    ],
)
def test_what_is_no_molecule_says_why(smiles: str, reason: str) -> None:
    problem = parse_problem(smiles)
    assert problem is not None
    assert reason in problem.lower()
    assert canonical_smiles(smiles) is None


def test_long_but_possible_smiles_is_read() -> None:
    assert parse_problem("C" * 1999) is None


def test_failures_raise_data_errors_and_print_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    for function in (skeleton, murcko_scaffold):
        with pytest.raises(DataError):
            function("C1CC")
    with pytest.raises(DataError):
        randomised_smiles("C1CC", np.random.default_rng(0))
    assert capfd.readouterr() == ("", "")


def test_tokens_join_to_the_smiles() -> None:
    for smiles in MOLECULES:
        assert "".join(split_tokens(smiles)) == smiles
        assert unmatched(smiles) == ""


def test_tokens_keep_brackets_halogens_and_ring_numbers_whole() -> None:
    assert split_tokens("[nH]1ClBrC%12") == ["[nH]", "1", "Cl", "Br", "C", "%12"]
    assert unmatched("C!C") == "!"


def test_atoms_of_the_skeleton_are_those_of_the_molecule() -> None:
    for smiles in MOLECULES:
        plain = Chem.MolFromSmiles(skeleton(smiles))
        assert plain.GetNumHeavyAtoms() == Chem.MolFromSmiles(smiles).GetNumHeavyAtoms()
