"""Several SMILES of a molecule, for averaging at prediction.

Each is drawn from the molecule itself, so that a prediction depends neither on the order of a file
nor on what else is in it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from lipo_cli.chem.molecules import randomised_smiles


def view_weights(count: int, randomise: float) -> NDArray[np.float64]:
    """Returns the weights [count] of a molecule's given SMILES and of `count` - 1 random ones.

    They are those of training, where a share `randomise` of the molecules was written at random
    (docs/benchmarks.md, Averaging over SMILES). The given one has never less than an equal share,
    and just that where training saw no random SMILES: who averages then wants the usual mean.
    """
    if count == 1:
        return np.ones(1)
    given = max(1 - randomise, 1 / count) if randomise > 0 else 1 / count
    return np.array([given, *[(1 - given) / (count - 1)] * (count - 1)])


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
