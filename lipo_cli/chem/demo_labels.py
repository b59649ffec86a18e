"""The synthetic logD of the demo: a computed logP, lowered by what is ionised at pH 7.4."""

from __future__ import annotations

import math
from functools import cache

from rdkit import Chem

from lipo_cli.chem.properties import crippen_logp

PH = 7.4
ION_PARTITION = 3.0
"""How many log units less an ion goes into octanol than its neutral form."""

ACIDS = (("[CX3](=O)[OX2H1]", 4.2),)
BASES = (
    ("[NX3;H2][CX4]", 9.8),
    ("[NX3;H1]([CX4])[CX4]", 9.7),
    ("[NX3;H0]([CX4])([CX4])[CX4]", 8.5),
)
"""SMARTS and typical pKa of the ionised form; the strongest acid and base of a molecule count."""
WEAKER_BASES = (("[NX3;H0;R]1CCOCC1", 7.0), ("[NX3;H0;R]1CCN([c,C$(C=O)])CC1", 7.4))
"""Ring amines that a second heteroatom makes weaker: they replace the tertiary amine's value."""


def synthetic_logd(mol: Chem.Mol) -> float:
    r"""Returns the logD at pH 7.4 that the demo takes for the truth, before noise.

    .. math::

        \log D = \log_{10}(f\,10^{\log P} + (1 - f)\,10^{\log P - 3}), \quad
        f = 1 / (1 + 10^{pK_b - 7.4} + 10^{7.4 - pK_a})

    with Crippen's logP, :math:`pK_a` of the strongest acid and :math:`pK_b` of the strongest base.
    """
    return crippen_logp(mol) - ionisation_loss(mol)


def ionisation_loss(mol: Chem.Mol) -> float:
    """Returns by how much the synthetic logD lies below logP, in log units; 0 or more."""
    exponents = []
    acid, base = strongest_acid(mol), strongest_base(mol)
    if acid is not None:
        exponents.append(PH - acid)
    if base is not None:
        exponents.append(base - PH)
    neutral = 1.0 / (1.0 + sum(10.0**exponent for exponent in exponents))
    return -math.log10(neutral + (1.0 - neutral) * 10.0**-ION_PARTITION)


def strongest_acid(mol: Chem.Mol) -> float | None:
    """Returns the lowest pKa among the acids, None without any."""
    return min((pka for smarts, pka in ACIDS if _has(mol, smarts)), default=None)


def strongest_base(mol: Chem.Mol) -> float | None:
    """Returns the highest pKa among the bases, None without any."""
    weakened = {
        match[0]: pka
        for smarts, pka in WEAKER_BASES
        for match in mol.GetSubstructMatches(_pattern(smarts))
    }
    found = [
        weakened.get(match[0], pka) if smarts.startswith("[NX3;H0]") else pka
        for smarts, pka in BASES
        for match in mol.GetSubstructMatches(_pattern(smarts))
    ]
    return max(found, default=None)


def _has(mol: Chem.Mol, smarts: str) -> bool:
    return bool(mol.HasSubstructMatch(_pattern(smarts)))


@cache
def _pattern(smarts: str) -> Chem.Mol:
    return Chem.MolFromSmarts(smarts)
