"""The best points that are not alike: greedy by value under a cap on Tanimoto similarity."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lipo_cli.chem.fingerprints import morgan_bits, tanimoto
from lipo_cli.valuation.arrays import IntArray

CAP = 0.6
"""Tanimoto similarity of Morgan fingerprints (radius 2) that two chosen points may have."""


def most_diverse(
    order: Sequence[int] | IntArray, smiles: Sequence[str], count: int, cap: float
) -> tuple[list[int], dict[int, tuple[int, float]]]:
    """Takes points in their order, each unless it is too similar to one taken before.

    Args:
        order: [n] positions, best first.
        smiles: [n] molecules.
        count: How many to take; fewer are taken where no more are unlike.
        cap: The similarity that two taken points may have.

    Returns:
        The positions taken, in order, and for every point passed over on the way the taken point
        that it is most similar to, with the similarity.

    Raises:
        DataError: a SMILES is not a molecule.
    """
    bits = morgan_bits(smiles)
    highest, nearest = np.zeros(len(smiles)), np.full(len(smiles), -1)
    taken: list[int] = []
    passed: dict[int, tuple[int, float]] = {}
    for point in map(int, order):
        if len(taken) == count:
            break
        if highest[point] > cap:
            passed[point] = (int(nearest[point]), float(highest[point]))
            continue
        taken.append(point)
        alike = tanimoto(bits, bits[[point]])[:, 0]
        nearest = np.where(alike > highest, point, nearest)
        highest = np.maximum(alike, highest)
    return taken, passed
