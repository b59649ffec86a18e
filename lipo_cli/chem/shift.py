"""How far two sets of molecules are apart as distributions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Features = npt.NDArray[np.float64]

MOST_ROWS = 500
N_PERMUTATIONS = 300


@dataclass(frozen=True)
class ShiftTest:
    """The maximum mean discrepancy of two samples.

    Attributes:
        mmd: Its value (not squared).
        ratio: `mmd` over its mean after shuffling which row belongs to which set.
        p_value: Share of shuffles that give as much.
    """

    mmd: float
    ratio: float
    p_value: float


def mmd_test(a: Features, b: Features, seed: int) -> ShiftTest:
    """Compares two samples by their maximum mean discrepancy, with a permutation test.

    Gretton et al., JMLR 13 (2012) 723, eq. 5: MMD^2 = mean k(a,a') - 2 mean k(a,b) + mean k(b,b'),
    with a Gaussian kernel at the median distance. At most 500 rows of each set are drawn.

    Args:
        a: Features, [n_a, d].
        b: Features, [n_b, d], on the same scale.
        seed: Of the draws and shuffles.
    """
    rng = np.random.default_rng(seed)
    a, b = _drawn(a, rng), _drawn(b, rng)
    kernel = _gaussian_kernel(np.concatenate([a, b]))
    signs = np.concatenate([np.full(len(a), 1 / len(a)), np.full(len(b), -1 / len(b))])
    shuffled = np.stack([rng.permutation(signs) for _ in range(N_PERMUTATIONS)], axis=1)
    columns = np.column_stack([signs, shuffled])
    squared = np.maximum((columns * (kernel @ columns)).sum(axis=0), 0.0)
    mmd, null = float(np.sqrt(squared[0])), np.sqrt(squared[1:])
    p_value = (int((null >= mmd).sum()) + 1) / (N_PERMUTATIONS + 1)
    return ShiftTest(mmd, mmd / max(float(null.mean()), 1e-12), p_value)


def standardised(values: Features, reference: Features) -> Features:
    """Returns `values` in standard deviations from the mean of `reference`, clipped at 10."""
    spread = reference.std(axis=0)
    centred = (values - reference.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    # One polysaccharide must not set the scale of the kernel.
    return np.asarray(np.clip(centred, -10.0, 10.0), dtype=np.float64)


def _drawn(values: Features, rng: np.random.Generator) -> Features:
    if len(values) <= MOST_ROWS:
        return values
    return values[rng.choice(len(values), MOST_ROWS, replace=False)]


def _gaussian_kernel(values: Features) -> Features:
    squares = (values**2).sum(axis=1)
    distances = np.maximum(squares[:, None] + squares[None, :] - 2 * values @ values.T, 0.0)
    median = float(np.median(distances[np.triu_indices(len(values), k=1)]))
    return np.asarray(np.exp(-distances / max(median, 1e-12)), dtype=np.float64)
