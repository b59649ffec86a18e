"""A handful of computed properties that say what kind of molecules a set holds."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from rdkit import Chem
from rdkit.Chem import rdMolDescriptors

from lipo_cli.chem.molecules import read


def crippen_logp(mol: Chem.Mol) -> float:
    """Returns Crippen's atom-wise logP (Wildman & Crippen, JCICS 39 (1999) 868)."""
    return float(rdMolDescriptors.CalcCrippenDescriptors(mol)[0])


PROPERTIES: dict[str, Callable[[Chem.Mol], float]] = {
    "molecular weight": rdMolDescriptors.CalcExactMolWt,
    "rings": rdMolDescriptors.CalcNumRings,
    "Crippen logP": crippen_logp,
    "polar surface": rdMolDescriptors.CalcTPSA,
    "H-bond donors": rdMolDescriptors.CalcNumHBD,
    "H-bond acceptors": rdMolDescriptors.CalcNumHBA,
    "rotatable bonds": rdMolDescriptors.CalcNumRotatableBonds,
    "aromatic rings": rdMolDescriptors.CalcNumAromaticRings,
    "sp3 carbon share": rdMolDescriptors.CalcFractionCSP3,
}


def property_matrix(smiles: Sequence[str]) -> npt.NDArray[np.float64]:
    """Returns the properties of `PROPERTIES` in their order, float64 of shape [n, 9].

    Raises:
        DataError: a SMILES is not a molecule.
    """
    rows = [[float(compute(mol)) for compute in PROPERTIES.values()] for mol in map(read, smiles)]
    return np.array(rows, dtype=np.float64).reshape(len(smiles), len(PROPERTIES))
