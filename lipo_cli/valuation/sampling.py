"""Which permutations a valuation draws. Sample i depends on the seed and i alone.

Each sample has a generator of its own, the i-th child of the seed sequence
(`SeedSequence(seed).spawn`), so that any division of the samples over chunks or processes draws the
same permutations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from lipo_cli.errors import SettingsError
from lipo_cli.settings import TsdsSettings
from lipo_cli.valuation.arrays import IntArray


class Sampler(Protocol):
    """Draws samples: each a few permutations whose mean is one independent observation."""

    @property
    def permutations_per_sample(self) -> int:
        """How many permutations one sample holds."""

    def draw(self, index: int) -> list[IntArray]:
        """Returns the permutations of sample `index`, over the same set of players."""


@dataclass(frozen=True)
class AntitheticPairs:
    """A full permutation and its reverse, which lowers the variance (Mitchell et al. 2022)."""

    n_players: int
    seed: int

    @property
    def permutations_per_sample(self) -> int:
        """Two: a pair is one observation, since its halves are not independent."""
        return 2

    def draw(self, index: int) -> list[IntArray]:
        """Returns a permutation of all players and its reverse."""
        forward = _generator(self.seed, index).permutation(self.n_players)
        return [forward, forward[::-1]]


@dataclass(frozen=True)
class SubsetChains:
    """A permutation of a random subset, its size uniform in [smallest, largest].

    The sampling chains of Schoch et al. 2023; with both sizes n it is plain permutation Shapley.
    """

    n_players: int
    smallest: int
    largest: int
    seed: int

    @property
    def permutations_per_sample(self) -> int:
        """One chain is one observation for the points that it holds."""
        return 1

    def draw(self, index: int) -> list[IntArray]:
        """Returns one ordered random subset."""
        rng = _generator(self.seed, index)
        size = int(rng.integers(self.smallest, self.largest + 1))
        return [rng.permutation(self.n_players)[:size]]


def make_sampler(n_players: int, settings: TsdsSettings) -> Sampler:
    """Returns the sampler of the settings' game.

    Raises:
        SettingsError: the subset sizes make no sense.
    """
    if settings.game == "secondary":
        return AntitheticPairs(n_players, settings.seed)
    low, high = settings.subset_fraction
    if not 0 < low <= high <= 1:
        raise SettingsError(
            f"must be two shares with 0 < smallest <= largest <= 1, is {low}, {high}",
            where="subset_fraction",
        )
    smallest = max(1, round(low * n_players))
    largest = max(smallest, round(high * n_players))
    return SubsetChains(n_players, smallest, largest, settings.seed)


def _generator(seed: int, index: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(index,)))
