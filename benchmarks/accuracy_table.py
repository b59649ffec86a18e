"""From kept predictions to the rows of the accuracy tables: nothing here trains.

Every number is in raw label units and computed by the same functions as the product's own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from kept_runs import KERNEL, PEER, Run
from numpy.typing import NDArray

from lipo_cli.comparison.uncertainty import calibration_of, measured_numbers
from lipo_cli.model.calibration import Calibration
from lipo_cli.model.ensemble import kernel_share, spread
from lipo_cli.model.enumeration import view_weights

Floats = NDArray[np.float64]
N_DRAWS = 2000
WITH_KERNEL = " + kernel"


@dataclass(frozen=True)
class Row:
    """One method on one split.

    Attributes:
        split: The split.
        method: The method.
        views: SMILES of a molecule whose predictions are averaged.
        n_seeds: Models trained.
        seconds: Mean training time of one; None where one was measured elsewhere.
        val_rmse: Mean over the models.
        test_rmse: Of each model.
        test_mae: Mean over the models.
        members: Models in an ensemble.
        ensembles: Numbers of each ensemble; no model is in two.
        errors: Test errors [n_seeds, n] of the models.
        ensemble_errors: Test errors [ensembles, n].
    """

    split: str
    method: str
    views: int
    n_seeds: int
    seconds: float | None
    val_rmse: float
    test_rmse: tuple[float, ...]
    test_mae: float
    members: int
    ensembles: tuple[dict[str, float], ...]
    errors: Floats
    ensemble_errors: Floats

    def of_ensembles(self, name: str) -> float | None:
        """Returns the mean of a number over the ensembles, None where one of them lacks it."""
        values = [numbers[name] for numbers in self.ensembles if name in numbers]
        whole = bool(values) and len(values) == len(self.ensembles)
        return float(np.mean(values)) if whole else None


def rows_of(runs: Sequence[Run], members: int, views: int) -> list[Row]:
    """Returns a row for each split, method and number of SMILES, in the order of the runs.

    Args:
        runs: All of them.
        members: Models in an ensemble: the first of the seeds, then the next ones.
        views: SMILES of a molecule that the second row of our methods averages; 1: no such row.
    """
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        groups.setdefault((run.split, run.method), []).append(run)
    rows = []
    for (split, method), group in groups.items():
        counts = [1] if method == PEER or views == 1 else [1, views]
        rows += [_row(group, members, count) for count in counts]
        if method != KERNEL:
            # The peer, too: else the kernel's part in a ratio would look like the network's.
            kernels = groups.get((split, KERNEL), [])
            rows += [_row(group, members, count, k) for k in kernels for count in counts]
    return rows


def _row(runs: Sequence[Run], members: int, views: int, kernel: Run | None = None) -> Row:
    single = [_predictions([run], views, kernel) for run in runs]
    numbers = [_numbers(frame, None) for frame in single]
    members = min(members, len(runs))  # the kernel readout has no seeds
    together = [
        _predictions(runs[i : i + members], views, kernel)
        for i in range(0, len(runs) - members + 1, members)
    ]
    return Row(
        split=runs[0].split,
        method=f"{runs[0].method}{WITH_KERNEL}" if kernel else runs[0].method,
        views=views,
        n_seeds=len(runs),
        seconds=_seconds(runs, kernel),
        val_rmse=float(np.mean([n["val_rmse"] for n in numbers])),
        test_rmse=tuple(n["test_rmse"] for n in numbers),
        test_mae=float(np.mean([n["test_mae"] for n in numbers])),
        members=members,
        ensembles=tuple(_numbers(frame, calibration_of(frame)) for frame in together),
        errors=np.stack([_test_errors(frame) for frame in single]),
        ensemble_errors=np.stack([_test_errors(frame) for frame in together]),
    )


def _seconds(runs: Sequence[Run], kernel: Run | None) -> float | None:
    """Returns the mean time of a run; None where one was measured on another machine."""
    if any(run.elsewhere for run in ([*runs, kernel] if kernel else runs)):
        return None
    return float(np.mean([run.seconds for run in runs])) + (kernel.seconds if kernel else 0)


def _predictions(runs: Sequence[Run], n_views: int, kernel: Run | None) -> pd.DataFrame:
    """Returns the mean and the spread of some models' predictions beside what was measured.

    A model's SMILES weigh as the product weighs them, and so does a kernel readout; the peer has
    one SMILES.
    """
    rows = runs[0].rows
    share = _share(runs, n_views, kernel) if kernel else 0.0
    kernel = kernel if share > 0 else None  # as in the product: else it is no member
    networks = (1 - share) / len(runs)
    joined = [(run, networks) for run in runs] + ([(kernel, share)] if kernel else [])
    own = [run.views[:, :n_views] for run, _ in joined]
    randomise = [run.about.get("settings", {}).get("randomise", 1.0) for run, _ in joined]
    weights = np.concatenate(
        [
            share * view_weights(n_views, random)
            for (_, share), random in zip(joined, randomise, strict=True)
        ]
    )
    views = np.concatenate(own, axis=1)
    return pd.DataFrame(
        {
            "part": rows["split"],
            "measured": rows["label"],
            "predicted": views @ weights,
            "spread": spread(views, weights),
        }
    )


def _share(runs: Sequence[Run], n_views: int, kernel: Run) -> float:
    """Returns the kernel readout's share, chosen on validation as the product chooses it."""
    alone = _predictions(runs, n_views, None)
    val = (alone["part"] == "val").to_numpy()
    own, measured = (alone[name].to_numpy(np.float64)[val] for name in ("predicted", "measured"))
    return kernel_share(own, kernel.views[val, 0], measured)


def _numbers(frame: pd.DataFrame, calibration: Calibration | None) -> dict[str, float]:
    """Returns what could be measured; nothing stands for what is not defined."""
    found = measured_numbers(frame, calibration)
    return {name: value for name, value in found.items() if value is not None}


def _test_errors(frame: pd.DataFrame) -> Floats:
    test = frame[frame["part"] == "test"]
    return (test["predicted"] - test["measured"]).to_numpy(np.float64)


def deviation(values: Sequence[float]) -> float | None:
    """Returns the sample standard deviation, None of fewer than two."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def ratio_with_interval(ours: Floats, theirs: Floats) -> tuple[float, float, float]:
    """Returns the ratio of mean RMSEs and its 95 % bootstrap interval over the test molecules.

    The molecules are drawn with replacement, the same ones for both sides (Efron 1979); seeds are
    not, as there are few: what retraining adds stands in the tables as a standard deviation.

    Args:
        ours: Test errors [k, n].
        theirs: Test errors [m, n] of the same molecules.
    """
    n = ours.shape[1]
    draws = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=N_DRAWS)
    counts = draws.astype(np.float64)

    def mean_rmse(errors: Floats, weights: Floats) -> Floats:
        found: Floats = np.sqrt(weights @ (errors**2).T / n).mean(axis=1)
        return found

    whole = np.ones((1, n))
    ratio = float(mean_rmse(ours, whole)[0] / mean_rmse(theirs, whole)[0])
    drawn = mean_rmse(ours, counts) / mean_rmse(theirs, counts)
    low, high = np.quantile(drawn[np.isfinite(drawn)], (0.025, 0.975))
    return ratio, float(low), float(high)


def _number(value: float | None, digits: int = 3) -> str:
    return "" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def _title(row: Row) -> str:
    name = row.method.replace(PEER, "chemprop 2")
    name = name if row.method.startswith(PEER) else f"lipo {name}"
    return f"{name}, mean of {row.views} SMILES" if row.views > 1 else name


def accuracy_lines(rows: Sequence[Row]) -> list[str]:
    """Returns the table of errors; the ratios where chemprop ran on the same split.

    Like is compared with like: beside the kernel readout, chemprop beside the same readout.
    """
    peers = {
        (row.split, row.method.endswith(WITH_KERNEL)): row
        for row in rows
        if row.method.startswith(PEER)
    }
    lines = [
        "| split | method | seeds | validation RMSE | test RMSE | test MAE | ensemble RMSE "
        "| s per run | ours / chemprop | of ensembles |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        sd = deviation(row.test_rmse)
        peer = peers.get((row.split, row.method.endswith(WITH_KERNEL)))
        compared = peer is not None and not row.method.startswith(PEER)
        cells = [
            row.split,
            _title(row),
            str(row.n_seeds),
            _number(row.val_rmse),
            _number(float(np.mean(row.test_rmse))) + (f" ± {sd:.3f}" if sd is not None else ""),
            _number(row.test_mae),
            _number(row.of_ensembles("test_rmse")) if row.members > 1 else "",
            _seconds_cell(row.seconds),
            _ratio(row.errors, peer.errors) if compared and peer else "",
            _ratio(row.ensemble_errors, peer.ensemble_errors)
            if compared and peer and row.members > 1
            else "",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _seconds_cell(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds:,.0f}"


def _ratio(ours: Floats, theirs: Floats) -> str:
    ratio, low, high = ratio_with_interval(ours, theirs)
    return f"{ratio:.3f} [{low:.3f}, {high:.3f}]"


def uncertainty_lines(rows: Sequence[Row]) -> list[str]:
    """Returns the table of the ensembles' intervals; rows with nothing to vary are left out."""
    lines = [
        "| split | ensemble of | coverage of 90 % intervals | mean width "
        "| error, most / least uncertain fifth |",
        "|---|---|---:|---:|---:|",
    ]
    for row in rows:
        if row.members * row.views < 2 and not row.method.endswith(WITH_KERNEL):
            continue
        cells = [
            row.split,
            f"{row.members} x {_title(row)}",
            _number(row.of_ensembles("test_coverage")),
            _number(row.of_ensembles("test_interval"), 2),
            _number(row.of_ensembles("test_error_ratio"), 2),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines
