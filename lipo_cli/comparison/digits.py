"""How many digits an error deserves: labels may be of any size, and so are their RMSEs."""

from __future__ import annotations

import math
from collections.abc import Iterable

USUAL = 3
"""Where nothing is known: what an RMSE from 0.1 to 10 deserves."""


def decimals(errors: Iterable[float | None]) -> int:
    """Returns how many decimals show about a thousandth of the median of some errors."""
    known = sorted(abs(error) for error in errors if error and math.isfinite(error))
    if not known:
        return USUAL
    median = known[len(known) // 2]
    if 0.1 <= median < 10:
        return USUAL
    return min(12, max(0, round(3 - math.log10(median))))


def rmse_text(error: float | None) -> str:
    """Returns an error with a digit more than comparing it needs: 0.6123; "" of None."""
    if error is None:
        return ""
    return f"{error:.{decimals([error]) + 1}f}"


def difference_text(delta: float | None, low: float | None, high: float | None, digits: int) -> str:
    """Returns a difference with its interval where it has one; empty without a difference."""
    if delta is None:
        return ""
    if low is None or high is None:
        return f"{delta:+.{digits}f}"
    return f"{delta:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]"
