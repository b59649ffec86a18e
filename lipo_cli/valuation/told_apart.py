"""Whether scores can be told from zero: what every scoring says of its values at the end."""

from __future__ import annotations

import numpy as np
from scipy.stats import t as student

from lipo_cli.valuation.arrays import FloatArray

_LEVEL = 0.05


def told_from_zero(
    values: FloatArray,
    standard_error: FloatArray,
    freedom: int,
    errors_of: str,
    *,
    near_normal: bool = True,
) -> str:
    """Returns how many values differ from zero, and a warning where no single one holds.

    All values rest on the same target rows: by chance either hardly any or very many of them
    seem to differ at 5 %, so that their number alone shows nothing. Holm's correction (1979)
    holds whatever the dependence, as far as the p values hold: they are those of Student's t, far
    out in its tail, so that skewed rows let more pass than one scoring in twenty. Leave-one-out
    on Lipophilicity, its rows centred and drawn anew: 7 to 11 %. KNN-Shapley: 89 %, and so it is
    not asked.

    Args:
        values: [n] values.
        standard_error: [n] their standard errors.
        freedom: Degrees of freedom of these.
        errors_of: What the standard errors are of, for the reader.
        near_normal: Whether the values by row are near enough to normal for the correction.
    """
    n = len(values)
    sizes = np.abs(values)
    # A value without any spread differs if it is not zero itself.
    z = np.divide(
        sizes, standard_error, out=np.where(sizes > 0, np.inf, 0.0), where=standard_error > 0
    )
    p = np.sort(2 * student.sf(z, freedom))
    text = f"{int((p < _LEVEL).sum())} of {n} values differ from zero at 5 %"
    if not near_normal:
        return f"{text} ({errors_of})"
    held = p * np.arange(n, 0, -1) < _LEVEL
    n_held = n if held.all() else int(held.argmin())
    text = f"{text}, {n_held} of them by Holm's correction ({errors_of})"
    return text if n_held else f"{text}: no single value can be told from zero"
