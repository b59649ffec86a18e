"""How much faster the exact marginals are than refitting scikit-learn's Ridge for each.

Both sides compute the marginal contributions of the same permutation of 300 points on top of a base
of 3,000 rows, in one process, on one thread; their largest difference is part of the table.

    python benchmarks/tsds.py            # prints, and writes its section of docs/benchmarks.md
    python benchmarks/tsds.py --dry      # prints only
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
from dataclasses import dataclass

import numpy as np
import scipy
import sklearn
from report import machine, write_section
from sklearn.linear_model import Ridge
from threadpoolctl import threadpool_limits

from lipo_cli.settings import TsdsSettings
from lipo_cli.valuation.arrays import FloatArray, IntArray
from lipo_cli.valuation.ridge_game import RidgeGame

N_BASE, N_PLAYERS, N_VAL, RIDGE, N_FOLDS = 3_000, 300, 336, 10.0, 5
WIDTHS = (100, 256, 768)


@dataclass(frozen=True)
class Row:
    """One line of the table: seconds per permutation of either side, and their agreement."""

    d: int
    exact_s: float
    refit_s: float
    difference: float

    @property
    def speedup(self) -> float:
        """Refit time over exact time."""
        return self.refit_s / self.exact_s


def make_problem(d: int, seed: int = 0) -> tuple[FloatArray, ...]:
    """Returns train, player and validation features and labels of a noisy linear problem."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=d) / np.sqrt(d)
    parts: list[FloatArray] = []
    for n in (N_BASE, N_PLAYERS, N_VAL):
        z = rng.normal(size=(n, d))
        parts += [z, z @ truth + 0.5 * rng.normal(size=n)]
    return tuple(parts)


def refit_marginals(problem: tuple[FloatArray, ...], order: IntArray) -> FloatArray:
    """Returns [n] marginals by one scikit-learn fit for each leading set of the permutation."""
    train_z, train_y, players_z, players_y, val_z, val_y = problem
    z = np.vstack([train_z, players_z[order]])
    y = np.concatenate([train_y, players_y[order]])
    scores = np.empty(len(order) + 1)
    for k in range(len(scores)):
        size = len(train_z) + k
        fit = Ridge(alpha=RIDGE).fit(z[:size], y[:size])
        scores[k] = -np.mean((val_y - fit.predict(val_z)) ** 2)
    return np.diff(scores)


def measure(d: int, repeats: int) -> Row:
    """Times both sides on the same permutation, the exact side as the mean of many others too."""
    problem = make_problem(d)
    game = RidgeGame.on_top_of(*problem, ridge=RIDGE, n_folds=N_FOLDS)
    rng = np.random.default_rng(1)
    order = rng.permutation(N_PLAYERS)
    exact = game.marginals(order).sum(axis=1)
    orders = [rng.permutation(N_PLAYERS) for _ in range(repeats)]
    start = time.perf_counter()
    for other in orders:
        game.marginals(other)
    exact_s = (time.perf_counter() - start) / repeats
    start = time.perf_counter()
    refitted = refit_marginals(problem, order)
    refit_s = time.perf_counter() - start
    return Row(d, exact_s, refit_s, float(np.abs(exact - refitted).max()))


def report(rows: list[Row]) -> str:
    """Returns the section of the docs: what was measured, where, and the table."""
    lines = [
        "## TS-DShapley: exact marginals against refits",
        "",
        f"All {N_PLAYERS} marginal contributions of one permutation, {N_PLAYERS} points on a base "
        f"of {N_BASE:,} rows,",
        f"{N_VAL} validation rows in {N_FOLDS} folds, synthetic data, float64, one thread. "
        "Refits: scikit-learn's",
        f"`Ridge(alpha)`, {N_PLAYERS + 1} fits. Last column: the largest difference of a marginal.",
        "A refit costs O(N d^2) and the exact path nothing in N: the wider the features, the "
        f"larger the gain. lipo takes {TsdsSettings().components} components unless told "
        "otherwise.",
        "",
        "| features d | exact, ms/permutation | refits, s/permutation | speed-up | difference |",
        "|---:|---:|---:|---:|---:|",
        *(
            f"| {r.d} | {r.exact_s * 1e3:.2f} | {r.refit_s:.2f} | {r.speedup:,.0f}x "
            f"| {r.difference:.0e} |"
            for r in rows
        ),
        "",
        f"Machine: {machine()}. Python {platform.python_version()}, numpy {np.__version__}, "
        f"scipy {scipy.__version__}, scikit-learn {sklearn.__version__}.",
        "Command: `python benchmarks/tsds.py`",
    ]
    return "\n".join(lines)


def main() -> int:
    """Runs the benchmark; exits with 1 where the two sides disagree."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dry", action="store_true", help="print only")
    parser.add_argument("--repeats", type=int, default=200, help="permutations of the exact side")
    arguments = parser.parse_args()
    with threadpool_limits(1):
        rows = [measure(d, arguments.repeats) for d in WIDTHS]
    text = report(rows)
    print(text)
    if not arguments.dry:
        write_section("tsds", text)
    return int(max(row.difference for row in rows) > 1e-10)


if __name__ == "__main__":
    sys.exit(main())
