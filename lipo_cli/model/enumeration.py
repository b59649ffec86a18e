"""Several SMILES of a molecule, for averaging at prediction.

Each is drawn from the molecule itself, so that a prediction depends neither on the order of a file
nor on what else is in it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np

from lipo_cli.chem.molecules import randomised_smiles


def enumerated(
    smiles: str, count: int, readable: Callable[[str], bool] = lambda _: True
) -> list[str]:
    """Returns `count` SMILES of a molecule, the given one first.

    Args:
        smiles: The molecule.
        count: How many; repeats are possible, as a small molecule has few.
        readable: Says whether a model reads a SMILES whole; one that it does not gives way to
            the given one.
    """
    if count == 1:
        return [smiles]
    seed = hashlib.blake2b(smiles.encode(), digest_size=8).digest()
    rng = np.random.default_rng(int.from_bytes(seed, "little"))
    drawn = [randomised_smiles(smiles, rng) for _ in range(count - 1)]
    return [smiles, *[text if readable(text) else smiles for text in drawn]]
