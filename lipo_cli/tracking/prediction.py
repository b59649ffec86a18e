"""From what a user calls a molecule to a number: the one way, for the command and for MLflow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from lipo_cli.chem.molecules import canonical_smiles
from lipo_cli.errors import DataError, ModelError


class Predictor(Protocol):
    """What a fitted regressor offers."""

    def predict(self, smiles: Sequence[str], *, batch_size: int = 256) -> NDArray[np.float64]:
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


def predict_canonical(regressor: Predictor, smiles: Sequence[str | None]) -> NDArray[np.float64]:
    """Predicts canonical SMILES, [n] float64 in raw units; NaN where there is None.

    Raises:
        ModelError: the model returns something that is not a number.
    """
    found = np.full(len(smiles), np.nan)
    readable = [i for i, molecule in enumerate(smiles) if molecule is not None]
    if readable:
        values = np.asarray(regressor.predict([str(smiles[i]) for i in readable]), float)
        if values.shape != (len(readable),) or not np.isfinite(values).all():
            raise ModelError("the model's predictions are not all finite numbers")
        found[readable] = values
    return found
