"""Molecules with their labels, and what an epoch makes of them: rows drawn, SMILES written anew."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lipo_cli.chem.molecules import randomised_smiles

_DEALING = 1
"""Keeps the shuffles apart from the other streams of a seed."""


@dataclass(frozen=True)
class Examples:
    """SMILES with their labels [n] in raw units."""

    smiles: list[str]
    labels: NDArray[np.float64]

    def __post_init__(self) -> None:
        if len(self.smiles) != len(self.labels):
            raise ValueError(f"{len(self.smiles)} SMILES, {len(self.labels)} labels")

    def __len__(self) -> int:
        """Returns the number of molecules."""
        return len(self.smiles)

    def take(self, positions: NDArray[np.int64]) -> Examples:
        """Returns the examples at these positions, in their order."""
        return Examples([self.smiles[i] for i in positions], self.labels[positions])

    def joined(self, other: Examples) -> Examples:
        """Returns these examples followed by others."""
        return Examples(self.smiles + other.smiles, np.concatenate([self.labels, other.labels]))


def dealt(examples: Examples, n: int, seed: int, epoch: int) -> Examples:
    """Returns the `n` rows of an epoch, in their order; all where there are no more.

    Epochs deal out the rows of one shuffle after another: after any number of them a row has been
    seen as often as every other, give or take one.

    Args:
        examples: All rows.
        n: Rows of an epoch.
        seed: Of the shuffles.
        epoch: Counted from 0.
    """
    total, first = len(examples), epoch * n
    if n >= total:
        return examples
    shuffles = range(first // total, (first + n - 1) // total + 1)
    streams = [np.random.default_rng([seed, shuffle, _DEALING]) for shuffle in shuffles]
    order = np.concatenate([rng.permutation(total) for rng in streams])
    start = first - shuffles[0] * total
    return examples.take(np.sort(order[start : start + n]).astype(np.int64))


def written_anew(
    smiles: list[str],
    share: float,
    rng: np.random.Generator,
    readable: Callable[[str], bool] = lambda _: True,
) -> list[str]:
    """Returns the molecules, a random share of them written as a random SMILES.

    One that the model would not read whole gives way to the given SMILES: nothing is cut that was
    not counted.
    """
    chosen = rng.random(len(smiles)) < share
    drawn = [
        randomised_smiles(text, rng) if anew else text
        for text, anew in zip(smiles, chosen, strict=True)
    ]
    return [
        new if new == text or readable(new) else text
        for new, text in zip(drawn, smiles, strict=True)
    ]
