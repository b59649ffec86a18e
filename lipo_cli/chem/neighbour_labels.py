"""Does a nearest-neighbour rule over the primary set reproduce the labels of a secondary set?

Such labels are not measurements: they are smoothed primary labels, those of the test rows included.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import binom

Distances = npt.NDArray[np.int64]
Labels = npt.NDArray[np.float64]

LARGEST_K = 10
MOST_TIED = 1000
"""Beyond so many tied neighbours any label can be composed of them."""
N_SHUFFLES = 100
MOST_DECIMALS = 6


@dataclass(frozen=True)
class NeighbourRule:
    """The rule "mean label of the k nearest" that fits a secondary set best.

    Attributes:
        k: Number of neighbours.
        n_rows: Rows of the secondary set.
        n_unambiguous: Rows whose k nearest are not tied with the next one.
        n_matched: Those of them whose label the rule gives, to the last digit.
        n_ambiguous_matched: Other rows whose label some choice among the tied neighbours gives.
        chance: Share of unambiguous rows that match after shuffling the labels.
        p_value: Of so many matches if each row matched with that chance (binomial), corrected
            for the number of k tried.
        test_rows: Fewest and most rows, over the choices among ties, that use a test label.
        val_rows: The same of validation.
    """

    k: int
    n_rows: int
    n_unambiguous: int
    n_matched: int
    n_ambiguous_matched: int
    chance: float
    p_value: float
    test_rows: tuple[int, int]
    val_rows: tuple[int, int]

    @property
    def share(self) -> float:
        """Share of the unambiguous rows that match."""
        return self.n_matched / self.n_unambiguous if self.n_unambiguous else 0.0


def find_neighbour_rule(
    distances: Distances,
    labels: Labels,
    primary_labels: Labels,
    *,
    in_val: npt.NDArray[np.bool_],
    in_test: npt.NDArray[np.bool_],
    seed: int,
) -> NeighbourRule | None:
    """Looks for the k in 1..10 whose rule matches most labels; None where no row is unambiguous.

    Args:
        distances: Squared distances, [n_secondary, n_primary].
        labels: Secondary labels, [n_secondary].
        primary_labels: Primary labels, [n_primary].
        in_val: Which primary rows validate, [n_primary].
        in_test: Which primary rows test, [n_primary].
        seed: Of the shuffles.
    """
    tolerance = 0.5 * 10.0 ** -decimals(labels) + 1e-9
    rng = np.random.default_rng(seed)
    order = np.argsort(distances, axis=1, kind="stable")[:, : LARGEST_K + 1]
    tries = range(1, min(LARGEST_K, distances.shape[1] - 1) + 1)
    best: tuple[float, int, int, npt.NDArray[np.bool_], float] | None = None
    for k in tries:
        clear = _unambiguous(distances, order, k)
        if not clear.any():
            continue
        means = primary_labels[order[clear, :k]].mean(axis=1)
        matched = int((np.abs(means - labels[clear]) <= tolerance).sum())
        chance = _chance(means, labels, tolerance, rng)
        log_p = float(binom.logsf(matched - 1, int(clear.sum()), chance))
        if best is None or log_p < best[0]:
            best = (log_p, k, matched, clear, chance)
    if best is None:
        return None
    log_p, k, matched, clear, chance = best
    return NeighbourRule(
        k=k,
        n_rows=len(labels),
        n_unambiguous=int(clear.sum()),
        n_matched=matched,
        n_ambiguous_matched=_count_ambiguous(distances, labels, primary_labels, k, clear),
        chance=chance,
        p_value=min(1.0, len(tries) * float(np.exp(log_p))),
        test_rows=rows_that_use(distances, in_test, k),
        val_rows=rows_that_use(distances, in_val, k),
    )


def _unambiguous(
    distances: Distances, order: npt.NDArray[np.int64], k: int
) -> npt.NDArray[np.bool_]:
    """Tells rows whose k nearest are strictly nearer than the next.

    For k = 1 a neighbour at distance 0 does not count: that a molecule has its own label is no
    rule.
    """
    last = np.take_along_axis(distances, order[:, k - 1 : k], axis=1)[:, 0]
    following = np.take_along_axis(distances, order[:, k : k + 1], axis=1)[:, 0]
    return (last < following) & ((k > 1) | (last > 0))


def _chance(means: Labels, labels: Labels, tolerance: float, rng: np.random.Generator) -> float:
    """Share of matches by luck, never below one in the number of shuffled pairs tried."""
    hits = 0
    for _ in range(N_SHUFFLES):
        drawn = rng.choice(labels, size=len(means))
        hits += int((np.abs(drawn - means) <= tolerance).sum())
    return min(1.0, max(hits, 1) / (N_SHUFFLES * len(means)))


def rows_that_use(distances: Distances, marked: npt.NDArray[np.bool_], k: int) -> tuple[int, int]:
    """Counts rows that have a marked primary row among their k nearest.

    Returns:
        The fewest and the most such rows over all choices among tied neighbours.
    """
    kth = np.partition(distances, k - 1, axis=1)[:, k - 1 : k]
    nearer, tied = distances < kth, distances == kth
    certain = (nearer & marked).any(axis=1)
    wanted = k - nearer.sum(axis=1)
    # With fewer unmarked ties than places left, every choice takes a marked one.
    forced = (tied & ~marked).sum(axis=1) < wanted
    possible = (tied & marked).any(axis=1)
    return int((certain | forced).sum()), int((certain | possible).sum())


MOST_BITS = 1_000_000
"""Of a set of sums."""


def _count_ambiguous(
    distances: Distances,
    labels: Labels,
    primary_labels: Labels,
    k: int,
    clear: npt.NDArray[np.bool_],
) -> int:
    places = decimals(primary_labels)
    if places >= MOST_DECIMALS:
        return 0  # sums of measured numbers without a common step are not countable
    scale = 10**places
    known = np.rint((primary_labels - primary_labels.min()) * scale).astype(np.int64)
    if k * int(known.max()) > MOST_BITS:
        return 0  # so many sums are possible that a match would say little, and take minutes
    offset = float(primary_labels.min()) * scale
    half = 0.5 * 10 ** (places - decimals(labels))
    found = 0
    for row in np.flatnonzero(~clear):
        kth = np.partition(distances[row], k - 1)[k - 1]
        nearer, tied = distances[row] < kth, distances[row] == kth
        if not 0 < tied.sum() <= MOST_TIED:
            continue
        n_wanted = k - int(nearer.sum())
        target = k * (float(labels[row]) * scale - offset) - float(known[nearer].sum())
        sums = reachable_sums([int(value) for value in known[tied]], n_wanted)
        first = max(0, int(np.ceil(target - k * half - 1e-6)))
        last = int(np.floor(target + k * half + 1e-6))
        # The bits first..last of the set of sums.
        if last >= first and (sums >> first) & ((1 << (last - first + 1)) - 1):
            found += 1
    return found


def reachable_sums(values: list[int], n: int) -> int:
    """Returns the sums of `n` of the non-negative `values`, as a number with those bits set."""
    sums = [1] + [0] * n
    for value in values:
        for count in range(n, 0, -1):
            sums[count] |= sums[count - 1] << value
    return sums[n]


def decimals(values: Labels) -> int:
    """Returns how many decimals the values are written with, at most 6."""
    for places in range(MOST_DECIMALS):
        if np.all(np.abs(values - np.round(values, places)) < 1e-9):
            return places
    return MOST_DECIMALS


def neighbour_rmse(distances: Distances, labels: Labels, primary_labels: Labels, k: int) -> float:
    """Returns the RMSE of the rule against the labels; ties go to the first row."""
    order = np.argsort(distances, axis=1, kind="stable")[:, :k]
    return float(np.sqrt(np.mean((primary_labels[order].mean(axis=1) - labels) ** 2)))
