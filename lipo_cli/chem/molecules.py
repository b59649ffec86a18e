"""What one molecule is: its canonical SMILES, its skeleton, its scaffold, why it does not parse."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from rdkit import Chem, rdBase
from rdkit.Chem.Scaffolds import MurckoScaffold

from lipo_cli.errors import DataError

TOO_LONG = 2000
"""Characters. Drug-like molecules stay under 300 and the longest polysaccharide met in measured
logD data has 1,526; from here on a row is taken for a mistake."""


@dataclass(frozen=True)
class ParsedMolecule:
    """A molecule that was read once, in the two forms that tables compare.

    Attributes:
        canonical: RDKit's canonical isomeric SMILES.
        skeleton: The canonical SMILES without stereochemistry.
    """

    canonical: str
    skeleton: str


def parse(smiles: str) -> ParsedMolecule | str:
    """Reads a SMILES once.

    Returns:
        The molecule, or the reason (a short sentence) why it is none.
    """
    with rdBase.BlockLogs():
        mol = _molecule_or_reason(smiles.strip())
        if isinstance(mol, str):
            return mol
        canonical = Chem.MolToSmiles(mol)
        # In place, after the canonical form was taken: reading again would double the time.
        Chem.RemoveStereochemistry(mol)
        return ParsedMolecule(canonical, Chem.MolToSmiles(mol))


def canonicalise(smiles: str) -> tuple[str | None, str]:
    """Reads a SMILES for its canonical form alone, in two thirds of the time of `parse`.

    Returns:
        RDKit's canonical isomeric SMILES and "", or None and the reason why it is no molecule.
    """
    with rdBase.BlockLogs():
        mol = _molecule_or_reason(smiles.strip())
        return (None, mol) if isinstance(mol, str) else (Chem.MolToSmiles(mol), "")


def parse_problem(smiles: str) -> str | None:
    """Returns why `smiles` is not a molecule that can be used, or None when it is one."""
    return canonicalise(smiles)[1] or None


def canonical_smiles(smiles: str) -> str | None:
    """Returns RDKit's canonical isomeric SMILES, or None when `smiles` is not a molecule."""
    return canonicalise(smiles)[0]


def skeleton(smiles: str) -> str:
    """Returns the canonical SMILES without stereochemistry.

    Raises:
        DataError: `smiles` is not a molecule.
    """
    parsed = parse(smiles)
    if isinstance(parsed, str):
        raise DataError(parsed, where=_short(smiles))
    return parsed.skeleton


def murcko_scaffold(smiles: str) -> str:
    """Returns the Bemis-Murcko scaffold without chirality; "" for a molecule without rings.

    Bemis & Murcko, J. Med. Chem. 39 (1996) 2887: ring systems and the linkers between them.

    Raises:
        DataError: `smiles` is not a molecule.
    """
    mol = read(smiles)
    return str(
        MurckoScaffold.MurckoScaffoldSmiles(mol=mol, includeChirality=False)  # type: ignore[no-untyped-call]
    )


def randomised_smiles(smiles: str, rng: np.random.Generator) -> str:
    """Returns another SMILES of the same molecule, drawn by `rng` and determined by it.

    Arus-Pous et al., J. Cheminform. 11 (2019) 71 (unrestricted randomised SMILES). One draw is
    always taken from `rng`, so that one odd molecule does not shift the stream of the others.

    Raises:
        DataError: `smiles` is not a molecule.
    """
    seed = int(rng.integers(1, 2**31 - 1))
    mol = read(smiles)
    with rdBase.BlockLogs():
        written: list[str] = list(Chem.MolToRandomSmilesVect(mol, 1, randomSeed=seed))
    return written[0] if written and written[0] else smiles


def read(smiles: str) -> Chem.Mol:
    """Reads a molecule.

    Raises:
        DataError: `smiles` is not a molecule.
    """
    with rdBase.BlockLogs():
        mol = _molecule(smiles)
    if mol is None or mol.GetNumAtoms() == 0:
        raise DataError(parse_problem(smiles) or "holds no atom", where=_short(smiles))
    return mol


def _molecule_or_reason(text: str) -> Chem.Mol | str:
    """Returns the molecule, or the reason (a short sentence) why it is none."""
    reason = _reason_before_reading(text)
    if reason is not None:
        return reason
    mol = _molecule(text)
    return _reason_of_failure(text) if mol is None else mol


def _molecule(text: str, *, sanitize: bool = True) -> Chem.Mol | None:
    """RDKit's type hints forget that it returns None for what it cannot read."""
    return Chem.MolFromSmiles(text, sanitize=sanitize)


def _reason_before_reading(text: str) -> str | None:
    if not text:
        return "the SMILES is empty"
    if len(text) >= TOO_LONG:
        return f"the SMILES has {len(text):,} characters; {TOO_LONG:,} or more are not accepted"
    if any(character.isspace() for character in text):
        # RDKit would read up to the space and take the rest for a name.
        return "the SMILES holds a space"
    return None


def _reason_of_failure(text: str) -> str:
    """Tells a syntax error from chemistry that cannot be (valence, aromaticity)."""
    mol = _molecule(text, sanitize=False)
    if mol is None:
        return "the SMILES has a syntax error"
    problems = Chem.DetectChemistryProblems(mol)
    detail = problems[0].Message() if problems else "RDKit cannot sanitise it"
    return f"the SMILES is not a possible molecule: {detail}"


def _short(smiles: str, limit: int = 60) -> str:
    return smiles if len(smiles) <= limit else smiles[: limit - 3] + "..."
