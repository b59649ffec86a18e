"""Morgan fingerprints and how far two sets of molecules are apart in them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from rdkit.Chem import rdFingerprintGenerator
from scipy import sparse

from lipo_cli.chem.molecules import read

RADIUS = 2
N_BITS = 2048
_GENERATOR = rdFingerprintGenerator.GetMorganGenerator(radius=RADIUS, fpSize=N_BITS)


def morgan_bits(smiles: Sequence[str]) -> sparse.csr_matrix:
    """Returns Morgan fingerprints of radius 2 on 2,048 bits, sparse int32 of shape [n, 2048].

    Rogers & Hahn, J. Chem. Inf. Model. 50 (2010) 742. Stereochemistry does not count.

    Raises:
        DataError: a SMILES is not a molecule.
    """
    on_bits = [_on_bits(text) for text in smiles]
    ends = np.cumsum([0, *(len(bits) for bits in on_bits)])
    columns = np.fromiter((bit for bits in on_bits for bit in bits), dtype=np.int32)
    ones = np.ones(len(columns), dtype=np.int32)
    return sparse.csr_matrix((ones, columns, ends), shape=(len(smiles), N_BITS))


@lru_cache(maxsize=10_000)  # 20 MB: an audit and a scoring's figures ask for the same molecules
def _on_bits(smiles: str) -> tuple[int, ...]:
    return tuple(_GENERATOR.GetFingerprint(read(smiles)).GetOnBits())


_ROWS_AT_ONCE = 1000
"""Bounds the memory of a product with the rows of a large set."""


def squared_distances(a: sparse.csr_matrix, b: sparse.csr_matrix) -> npt.NDArray[np.int64]:
    """Returns squared Euclidean distances of fingerprints, exact integers of shape [n_a, n_b]."""
    common, size_a, size_b = _counts(a, b)
    return np.asarray(size_a[:, None] + size_b[None, :] - 2 * common, dtype=np.int64)


def tanimoto(a: sparse.csr_matrix, b: sparse.csr_matrix) -> npt.NDArray[np.float64]:
    """Returns Tanimoto similarities of fingerprints, shape [n_a, n_b]; 0 of two empty ones."""
    common, size_a, size_b = _counts(a, b)
    return np.asarray(common / np.maximum(size_a[:, None] + size_b[None, :] - common, 1))


def highest_tanimoto(a: sparse.csr_matrix, b: sparse.csr_matrix) -> npt.NDArray[np.float64]:
    """Returns for each row of `a` its highest Tanimoto similarity to a row of `b`, shape [n_a]."""
    highest = np.empty(a.shape[0])
    for start in range(0, a.shape[0], _ROWS_AT_ONCE):
        some = slice(start, start + _ROWS_AT_ONCE)
        highest[some] = tanimoto(a[some], b).max(axis=1)
    return highest


def _counts(
    a: sparse.csr_matrix, b: sparse.csr_matrix
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    common = (a @ b.T).toarray().astype(np.int64)
    size_a = np.asarray(a.sum(axis=1), dtype=np.int64).ravel()
    size_b = np.asarray(b.sum(axis=1), dtype=np.int64).ravel()
    return common, size_a, size_b
