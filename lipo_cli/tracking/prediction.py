"""From what a user calls a molecule to a number: the one way, for the command and for MLflow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from lipo_cli.chem.molecules import canonical_smiles
from lipo_cli.errors import DataError, ModelError

SLICE = 512
"""Molecules per call of the model: between two calls progress is reported."""


class Predictor(Protocol):
    """What a fitted regressor offers."""

    def predict(self, smiles: Sequence[str]) -> NDArray[np.float64]:
        """Returns one prediction per SMILES, in raw units and in the same order."""


def predict_molecules(
    regressor: Predictor, smiles: Sequence[object], *, on_invalid: str = "error"
) -> NDArray[np.float64]:
    """Canonicalises as in training, predicts, and keeps the order.

    Args:
        regressor: The fitted regressor.
        smiles: Molecules as given; anything that is not text is invalid.
        on_invalid: "error", or "nan" for NaN in the rows that cannot be read.

    Returns:
        [n] float64 in raw units.

    Raises:
        DataError: a molecule cannot be read, and `on_invalid` is "error".
    """
    canonical = [canonical_smiles(s) if isinstance(s, str) and s.strip() else None for s in smiles]
    if on_invalid != "nan" and None in canonical:
        row = canonical.index(None)
        raise DataError(
            f"not a molecule: {smiles[row]!r}", where=f"row {row + 1}", hint="on_invalid='nan'"
        )
    return predict_canonical(regressor, canonical)


def predict_canonical(
    regressor: Predictor,
    smiles: Sequence[str | None],
    *,
    on_done: Callable[[int], None] | None = None,
) -> NDArray[np.float64]:
    """Predicts canonical SMILES, [n] float64 in raw units; see `predict_columns`."""
    return predict_columns(lambda part: regressor.predict(part)[:, None], smiles, on_done=on_done)[
        :, 0
    ]


def predict_columns(
    compute: Callable[[list[str]], NDArray[np.float64]],
    smiles: Sequence[str | None],
    *,
    n_columns: int = 1,
    on_done: Callable[[int], None] | None = None,
) -> NDArray[np.float64]:
    """Predicts canonical SMILES slice by slice, those of like length together.

    Args:
        compute: Returns the columns [n, n_columns] of some molecules.
        smiles: Canonical SMILES; None where there is no molecule.
        n_columns: How many columns there are.
        on_done: Told after every slice how many molecules it held.

    Returns:
        [n, n_columns] float64, in the order given; NaN where there is None.

    Raises:
        ModelError: the model returns something that is not a number.
    """
    found = np.full((len(smiles), n_columns), np.nan)
    readable = [(i, molecule) for i, molecule in enumerate(smiles) if molecule is not None]
    # A batch is padded to its longest molecule: sorted here, as each call sees its slice alone.
    readable.sort(key=lambda pair: len(pair[1]))
    for start in range(0, len(readable), SLICE):
        part = readable[start : start + SLICE]
        values = np.asarray(compute([molecule for _, molecule in part]), float)
        if values.shape != (len(part), n_columns) or not np.isfinite(values).all():
            raise ModelError("the model's predictions are not all finite numbers")
        found[[i for i, _ in part]] = values
        if on_done is not None:
            on_done(len(part))
    return found
