"""What RDKit computes of a molecule: the targets of descriptor pretraining.

Properties, surface areas by contribution (VSA), functional groups, and two counts that decide
whether a molecule is charged at pH 7.4. The connectivity indices (chi) are left out: they are half
of the time and say little that the rest does not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from rdkit import Chem, rdBase
from rdkit.Chem import Fragments, rdMolDescriptors

Float32s = NDArray[np.float32]
_SKIPPED = ("chi", "kappa3", "Phi", "exactmw")
_PROPERTIES = tuple(
    name
    for name in rdMolDescriptors.Properties.GetAvailableProperties()
    if not name.startswith(_SKIPPED)
)
_SURFACES: dict[str, tuple[Callable[[Chem.Mol], Sequence[float]], int]] = {
    "SlogP_VSA": (rdMolDescriptors.SlogP_VSA_, 12),
    "SMR_VSA": (rdMolDescriptors.SMR_VSA_, 10),
    "PEOE_VSA": (rdMolDescriptors.PEOE_VSA_, 14),
}
_IONISED = {
    "basic_amines": "[NX3;!$(N~[!#6;!#1]);!$(N-[#6]=,#[!#6]);!$(N-[c,$([#6]=[#6])])]",
    "acidic_groups": "[$([CX3](=O)[OX2H1]),$(c1nnn[nH]1),$(c1nn[nH]n1),$(P(=O)[OX2H1]),"
    "$(S(=O)(=O)[OX2H1]),$([NX3H1](C=O)S(=O)=O)]",
}
DESCRIPTORS: tuple[str, ...] = (
    *_PROPERTIES,
    *(f"{name}{i + 1}" for name, (_, count) in _SURFACES.items() for i in range(count)),
    *(name for name, _ in Fragments.fns),
    *_IONISED,
)
"""Names, in the order of the columns."""


@lru_cache(maxsize=1)
def _computers() -> tuple[rdMolDescriptors.Properties, tuple[Chem.Mol, ...]]:
    patterns = tuple(Chem.MolFromSmarts(smarts) for smarts in _IONISED.values())
    return rdMolDescriptors.Properties(list(_PROPERTIES)), patterns


def descriptor_matrix(smiles: Sequence[str]) -> Float32s:
    """Returns the descriptors of molecules, float32 of shape [n, len(DESCRIPTORS)].

    A value that RDKit cannot compute (a partial charge of a rare element) is NaN, as is every
    value of a text that is not a molecule.
    """
    values = np.full((len(smiles), len(DESCRIPTORS)), np.nan, dtype=np.float32)
    with rdBase.BlockLogs():
        for i, text in enumerate(smiles):
            mol = Chem.MolFromSmiles(text)
            if mol is not None:
                values[i] = _of_molecule(mol)
    values[~np.isfinite(values)] = np.nan
    return values


def _of_molecule(mol: Chem.Mol) -> list[float]:
    properties, patterns = _computers()
    row = list(properties.ComputeProperties(mol))
    for compute, _ in _SURFACES.values():
        row.extend(compute(mol))
    row.extend(count(mol) for _, count in Fragments.fns)
    row.extend(len(mol.GetSubstructMatches(pattern)) for pattern in patterns)
    return row
