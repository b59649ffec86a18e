"""Whether scores can be told from zero: what every scoring says of its values at the end."""

from __future__ import annotations

import math

import numpy as np
from scipy.stats import t as student

from lipo_cli.valuation.arrays import FloatArray

_LEVEL = 0.05


def told_from_zero(
    values: FloatArray, standard_error: FloatArray, freedom: int, errors_of: str
) -> str:
    """Returns how many values differ from zero, and a warning where chance gives as many.

    Args:
        values: [n] values.
        standard_error: [n] their standard errors.
        freedom: Degrees of freedom of these.
        errors_of: What the standard errors are of, for the reader.
    """
    limit = float(student.ppf(1 - _LEVEL / 2, freedom))
    told = int((np.abs(values) > limit * standard_error).sum())
    text = f"{told} of {len(values)} values differ from zero at 5 % ({errors_of})"
    expected = math.ceil(_LEVEL * len(values))
    if told <= 2 * expected:
        text += f", and chance alone gives {expected}: these scores cannot be told from zero"
    return text
