"""TS-DShapley against pyDVL's permutation Shapley: the same game, at equal standard error.

Players are the points of the secondary set on top of primary train, the utility is minus the
validation error of a ridge fit on embeddings of the pretrained encoder. pyDVL (its
`ShapleyValuation` over `PermutationSampler`) refits the ridge for every marginal; ours reads all
marginals of a permutation off one factorisation. Each side draws permutations of its own; ours
goes on until its median standard error is no larger than pyDVL's.

    python3.11 -m venv /tmp/pydvl-env && /tmp/pydvl-env/bin/pip install pydvl==0.10.0
    python benchmarks/valuation.py --pydvl /tmp/pydvl-env/bin/python
    python benchmarks/valuation.py --pydvl PYTHON --quick       # seconds; prints only

pyDVL's KNN-Shapley knows classification alone, and there is no leave-one-out in closed form in it:
nothing to compare with.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
from report import DOCS, machine, write_section
from threadpoolctl import threadpool_limits
from valued import Floats

from lipo_cli.comparison.prepare import prepare
from lipo_cli.model.regressor import Regressor
from lipo_cli.settings import DataSettings, TrainingSettings, TsdsSettings, build
from lipo_cli.valuation.proxy import make_proxy
from lipo_cli.valuation.ridge_game import RidgeGame
from lipo_cli.valuation.tsds import ts_dshapley

_PYDVL = """
import json, resource, sys, time, warnings
warnings.simplefilter("ignore")
import numpy as np
from importlib.metadata import version
from sklearn.linear_model import Ridge
from pydvl.valuation import (
    Dataset, MinUpdates, ModelUtility, PermutationSampler, ShapleyValuation, SupervisedScorer,
)

data = np.load(sys.argv[1])
permutations = int(sys.argv[2])
base_z, base_y, ridge = data["base_z"], data["base_y"], float(data["ridge"])

class OnTop(Ridge):
    def __init__(self):
        super().__init__(alpha=ridge, fit_intercept=False)
    def fit(self, x, y):
        return super().fit(np.vstack([base_z, x]), np.concatenate([base_y, y]))

def score(model, x, y):
    return -float(np.mean((y - model.predict(x)) ** 2))

points = Dataset(data["players_z"], data["players_y"])
rows = Dataset(data["val_z"], data["val_y"])
nothing = OnTop().fit(np.empty((0, base_z.shape[1])), np.empty(0))
utility = ModelUtility(
    OnTop(), SupervisedScorer(score, rows, default=score(nothing, data["val_z"], data["val_y"]))
)
method = ShapleyValuation(utility, PermutationSampler(seed=0), MinUpdates(permutations))
start = time.perf_counter()
method.fit(points)
seconds = time.perf_counter() - start
result = method.result
order = np.argsort(result.names.astype(int))
print(json.dumps({
    "seconds": seconds,
    "values": np.asarray(result.values)[order].tolist(),
    "errors": (np.sqrt(np.asarray(result.variances) / np.asarray(result.counts)))[order].tolist(),
    "permutations": int(np.min(result.counts)),
    "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    "version": version("pydvl"),
}))
"""


@dataclass(frozen=True)
class Side:
    """What one side came to: seconds, permutations, values with their standard errors."""

    name: str
    seconds: float
    permutations: int
    values: Floats
    errors: Floats

    @property
    def error(self) -> float:
        """The median standard error."""
        return float(np.median(self.errors))


@dataclass(frozen=True)
class Problem:
    """The ridge game's data, features and labels centred by train."""

    base_z: Floats
    base_y: Floats
    players_z: Floats
    players_y: Floats
    val_z: Floats
    val_y: Floats
    ridge: float

    def game(self) -> RidgeGame:
        """Returns the game that ours samples."""
        parts = (self.base_z, self.base_y, self.players_z, self.players_y, self.val_z, self.val_y)
        return RidgeGame.on_top_of(*parts, ridge=self.ridge)


def make_problem(arguments: argparse.Namespace) -> Problem:
    """Embeds the molecules by the pretrained encoder and projects them as `lipo score` does."""
    data = {"dataset": arguments.data, "secondary": arguments.secondary}
    prepared = prepare(build(DataSettings, {k: v for k, v in data.items() if v is not None}))
    encoder = Regressor.from_base("full", build(TrainingSettings, {"model": arguments.model}), 0)
    train, target = prepared.train, prepared.validation
    pool = prepared.require_pool().examples.take(np.arange(len(prepared.require_pool())))
    if arguments.limit is not None:
        pool = pool.take(np.arange(min(arguments.limit, len(pool))))
    train_x, target_x, pool_x = (encoder.embed(p.smiles) for p in (train, target, pool))
    settings = TsdsSettings(components=arguments.components)
    proxy = make_proxy(
        train_x, train.labels, pool_x, pool.labels, target_x, target.labels, settings
    )
    base, mean = proxy.projection.transform(train_x), float(train.labels.mean())
    centre = base.mean(axis=0)
    return Problem(
        base - centre,
        train.labels - mean,
        proxy.players_z - centre,
        pool.labels - mean,
        proxy.val_z - centre,
        target.labels - mean,
        proxy.ridge,
    )


def run_pydvl(problem: Problem, python: Path, permutations: int) -> tuple[Side, str]:
    """Runs pyDVL in its environment, on one thread; returns its side and its version.

    Raises:
        SystemExit: it is not there, or fails.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "game.npz"
        np.savez(file, **vars(problem))
        command = [str(python), "-c", _PYDVL, str(file), str(permutations)]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, env=environment
            )
        except OSError as error:
            raise SystemExit(f"--pydvl {python}: {error.strerror}") from None
    if done.returncode != 0:
        raise SystemExit(f"--pydvl {python}: {(done.stderr.strip().splitlines() or ['?'])[-1]}")
    found = json.loads(done.stdout.splitlines()[-1])
    values, errors = np.array(found["values"]), np.array(found["errors"])
    side = Side("pyDVL", found["seconds"], found["permutations"], values, errors)
    return side, found["version"]


def run_ours(problem: Problem, target_error: float) -> Side:
    """Draws twice as many permutations until the median standard error is small enough."""
    permutations = 8
    while True:
        settings = TsdsSettings(
            min_permutations=permutations, max_permutations=permutations, seed=1
        )
        start = time.perf_counter()
        with threadpool_limits(1):
            result = ts_dshapley(problem.game(), settings)
        seconds = time.perf_counter() - start
        side = Side("ours", seconds, result.n_permutations, result.values, result.standard_error)
        if side.error <= target_error or permutations >= 65_536:
            return side
        permutations *= 2


def report(
    problem: Problem, peer: Side, ours: Side, peer_version: str, arguments: argparse.Namespace
) -> str:
    """Returns the section of the docs."""
    both = np.hypot(peer.errors, ours.errors)
    apart = float(np.mean(np.abs(peer.values - ours.values) <= 1.96 * both))
    lines = [
        "## TS-DShapley against pyDVL, at equal standard error",
        "",
        f"{len(problem.players_y):,} points on top of {len(problem.base_y):,} train rows, "
        f"{len(problem.val_y):,} validation rows, {problem.players_z.shape[1]} components of the "
        f"embeddings of `{arguments.model}`, ridge {problem.ridge:g}; one thread each.",
        "",
        "| | permutations | median standard error | seconds |",
        "|---|---:|---:|---:|",
        *(
            f"| {side.name} | {side.permutations:,} | {side.error:.2g} | {side.seconds:,.2f} |"
            for side in (peer, ours)
        ),
        "",
        f"pyDVL takes **{peer.seconds / ours.seconds:,.0f} times** as long. "
        f"{apart:.0%} of the values lie within 1.96 standard errors of each other; their rank "
        f"correlation is {_rank(peer.values, ours.values):.2f}.",
        "",
        f"Machine: {machine()}. Python {platform.python_version()}, "
        + ", ".join(f"{p} {version(p)}" for p in ("lipo", "numpy", "scikit-learn"))
        + f", pyDVL {peer_version}. Load average: {os.getloadavg()[0]:.1f}.",
        f"Command: `{' '.join(['python benchmarks/valuation.py', *sys.argv[1:]])}`",
    ]
    return "\n".join(lines)


def _rank(a: Floats, b: Floats) -> float:
    from scipy.stats import spearmanr

    return float(spearmanr(a, b).statistic)


def parse(given: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--pydvl", type=Path, metavar="PYTHON", required=True, help="python of its environment")
    add("--data", metavar="NAME|CSV", help="default: lipophilicity, else demo")
    add("--secondary", metavar="CSV", help="the points; default: the dataset's own")
    add("--model", default="small", help="checkpoint that embeds")
    add("--components", type=int, default=100)
    add("--permutations", type=int, default=30, help="of pyDVL")
    add("--limit", type=int, help="at most this many points")
    add("--quick", action="store_true", help="a smoke run of seconds; no number means anything")
    add("--dry", action="store_true", help="print only")
    add("--page", type=Path, metavar="FILE", help="write the section there")
    arguments = parser.parse_args(given)
    if arguments.quick:
        arguments.permutations, arguments.limit, arguments.components = 4, 12, 8
    if arguments.page is None and not (arguments.dry or arguments.quick):
        arguments.page = DOCS
    return arguments


def main(given: Sequence[str] | None = None) -> int:
    """Runs the benchmark, prints its section and writes it."""
    arguments = parse(given)
    problem = make_problem(arguments)
    peer, peer_version = run_pydvl(problem, arguments.pydvl, arguments.permutations)
    ours = run_ours(problem, peer.error)
    text = report(problem, peer, ours, peer_version, arguments)
    print(text)
    if arguments.page is not None:
        write_section("valuation", text, arguments.page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
