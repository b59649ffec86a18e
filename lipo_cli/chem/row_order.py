"""Does the order of the rows of a file say something that it should not?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FEWEST_ROWS = 40
N_BLOCKS = 10
N_PERMUTATIONS = 500


@dataclass(frozen=True)
class OrderTest:
    """What share of a quantity's variance the position in the file explains.

    Attributes:
        explained: Variance between ten consecutive blocks of rows over the whole (eta squared).
        p_value: Share of shuffles that explain as much.
        block_means: Mean of the quantity in each block.
    """

    explained: float
    p_value: float
    block_means: tuple[float, ...]


def row_order_test(values: npt.NDArray[np.float64], seed: int) -> OrderTest | None:
    """Tests by permutation whether consecutive rows are alike; None below 40 rows.

    Blocks are used, not a rank correlation: a file may hold blocks that neither rise nor fall.

    Args:
        values: The quantity in file order, shape [n].
        seed: Of the shuffles.
    """
    if len(values) < FEWEST_ROWS or np.ptp(values) == 0:
        return None
    block = np.arange(len(values)) * N_BLOCKS // len(values)
    rng = np.random.default_rng(seed)
    explained = _eta_squared(values, block)
    as_much = sum(
        _eta_squared(rng.permutation(values), block) >= explained for _ in range(N_PERMUTATIONS)
    )
    means = tuple(float(values[block == i].mean()) for i in range(N_BLOCKS))
    return OrderTest(explained, (as_much + 1) / (N_PERMUTATIONS + 1), means)


def _eta_squared(values: npt.NDArray[np.float64], block: npt.NDArray[np.int64]) -> float:
    counts = np.bincount(block, minlength=N_BLOCKS)
    means = np.bincount(block, weights=values, minlength=N_BLOCKS) / counts
    between = (counts * (means - values.mean()) ** 2).sum()
    return float(between / ((values - values.mean()) ** 2).sum())
