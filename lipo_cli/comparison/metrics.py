"""How far predictions are from measurements, in raw label units."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr


def regression_metrics(
    predicted: NDArray[np.float64], measured: NDArray[np.float64]
) -> dict[str, float | None]:
    """Returns rmse, mae, r2 and spearman of n predictions.

    r2 is 1 - SSE / SST about the mean of `measured`; r2 and spearman are None where they are not
    defined (constant labels or predictions).
    """
    error = predicted - measured
    total = float(np.sum((measured - measured.mean()) ** 2))
    varied = total > 0 and float(np.ptp(predicted)) > 0
    return {
        "rmse": float(np.sqrt(np.mean(error**2))),
        "mae": float(np.mean(np.abs(error))),
        "r2": 1.0 - float(np.sum(error**2)) / total if total > 0 else None,
        "spearman": float(spearmanr(predicted, measured).statistic) if varied else None,
    }
