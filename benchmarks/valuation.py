"""TS-DShapley against pyDVL's permutation Shapley: the same game, at equal standard error.

Players are the points of the secondary set on top of primary train, the utility is minus the
validation error of a ridge fit on embeddings of the pretrained encoder. pyDVL calls a model for
every marginal; ours reads all marginals of a permutation off one factorisation. pyDVL is given the
game three ways: scikit-learn's `Ridge` refitted to train and players (what a user writes), the same
ridge from sums of products that are kept of train (what a user who knows better writes), and that
with pairs of a permutation and its reverse, which ours draws too.

Every way is run several times with other seeds: the standard error of a run is the standard
deviation over runs, not what a method says of itself. Times are compared at equal error, as seconds
times squared error.

    python3.11 -m venv ~/pydvl-env && ~/pydvl-env/bin/pip install pydvl==0.10.0
    python benchmarks/valuation.py --pydvl ~/pydvl-env/bin/python
    python benchmarks/valuation.py --pydvl PYTHON --quick       # seconds; prints only

pyDVL's KNN-Shapley knows classification alone, and there is no leave-one-out in closed form in it:
nothing to compare with.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from report import add_output_options, provenance, settle_page, write_section
from threadpoolctl import threadpool_limits
from valued import Floats

from lipo_cli.comparison.prepare import prepare
from lipo_cli.model.regressor import Regressor
from lipo_cli.settings import DataSettings, TrainingSettings, TsdsSettings, build
from lipo_cli.valuation.proxy import make_proxy
from lipo_cli.valuation.ridge_game import RidgeGame
from lipo_cli.valuation.tsds import ts_dshapley

_PYDVL = """
import json, sys, time, warnings
warnings.simplefilter("ignore")
import numpy as np
from importlib.metadata import version
from sklearn.base import BaseEstimator
from sklearn.linear_model import Ridge
from pydvl.valuation import (
    AntitheticPermutationSampler, Dataset, MinUpdates, ModelUtility, PermutationSampler,
    ShapleyValuation, SupervisedScorer,
)

data = np.load(sys.argv[1])
plan = json.loads(sys.argv[2])
base_z, base_y, ridge = data["base_z"], data["base_y"], float(data["ridge"])
width = base_z.shape[1]
with_one = lambda z: np.column_stack([z, np.ones(len(z))])
penalties = np.diag([ridge] * width + [0.0])  # the intercept is free
gram, right = with_one(base_z).T @ with_one(base_z) + penalties, with_one(base_z).T @ base_y

class Refit(Ridge):
    def __init__(self):
        super().__init__(alpha=ridge)
    def fit(self, x, y):
        return super().fit(np.vstack([base_z, x]), np.concatenate([base_y, y]))

class Sums(BaseEstimator):
    def fit(self, x, y):
        x = with_one(x)
        self.weights = np.linalg.solve(gram + x.T @ x, right + x.T @ y)
        return self
    def predict(self, x):
        return with_one(x) @ self.weights

def score(model, x, y):
    return -float(np.mean((y - model.predict(x)) ** 2))

points = Dataset(data["players_z"], data["players_y"])
rows = Dataset(data["val_z"], data["val_y"])
empty = score(Sums().fit(np.empty((0, width)), np.empty(0)), data["val_z"], data["val_y"])

def run(way, permutations, seed):
    model = Refit() if way == "refit" else Sums()
    paired = way == "sums, pairs"
    sampler = (AntitheticPermutationSampler if paired else PermutationSampler)(seed=seed)
    utility = ModelUtility(model, SupervisedScorer(score, rows, default=empty))
    method = ShapleyValuation(utility, sampler, MinUpdates(permutations))
    start = time.perf_counter()
    method.fit(points)
    seconds = time.perf_counter() - start
    result = method.result
    order = np.argsort(np.asarray(result.names).astype(int))
    return dict(
        seconds=seconds, permutations=int(np.min(result.counts)),
        values=np.asarray(result.values)[order].tolist(),
    )

found = {
    way: [run(way, permutations, seed) for seed in range(runs)]
    for way, (permutations, runs) in plan.items()
}
print(json.dumps(dict(version=version("pydvl"), empty=empty, found=found)))
"""
_WAYS = ("refit", "sums", "sums, pairs")


@dataclass(frozen=True)
class Side:
    """What several runs of one way came to.

    Attributes:
        name: The way.
        permutations: Of one run.
        seconds: Mean time of one run.
        values: [runs, n] values.
    """

    name: str
    permutations: int
    seconds: float
    values: Floats

    @property
    def error(self) -> float:
        """The standard error of a run: its deviation over runs, the median over points."""
        return float(np.median(self.values.std(axis=0, ddof=1)))

    def seconds_for(self, error: float) -> float:
        """Returns the time to reach a standard error, which falls with the root of the time."""
        return self.seconds * (self.error / error) ** 2


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


def run_pydvl(
    problem: Problem, python: Path, plan: Mapping[str, tuple[int, int]]
) -> tuple[list[Side], str]:
    """Runs pyDVL in its environment, on one thread; returns its sides and its version.

    Args:
        problem: The game.
        python: The environment's python.
        plan: For each way, permutations of a run and runs.

    Raises:
        SystemExit: it is not there, fails, or plays another game.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "game.npz"
        np.savez(file, **vars(problem))
        command = [str(python), "-c", _PYDVL, str(file), json.dumps(plan)]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, env=environment
            )
        except OSError as error:
            raise SystemExit(f"--pydvl {python}: {error.strerror}") from None
    if done.returncode != 0:
        raise SystemExit(f"--pydvl {python}: {(done.stderr.strip().splitlines() or ['?'])[-1]}")
    answer = json.loads(done.stdout.splitlines()[-1])
    if not np.isclose(answer["empty"], problem.game().utility([]), rtol=1e-8):
        raise SystemExit(f"--pydvl {python}: plays another game: U(empty) is {answer['empty']}")
    sides = [
        Side(
            f"pyDVL, {way}",
            runs[0]["permutations"],
            float(np.mean([run["seconds"] for run in runs])),
            np.array([run["values"] for run in runs]),
        )
        for way, runs in answer["found"].items()
    ]
    return sides, answer["version"]


def run_ours(problem: Problem, permutations: int, runs: int) -> Side:
    """Runs ours with several seeds, each from the data on."""
    values, seconds = [], []
    for seed in range(runs):
        settings = TsdsSettings(
            min_permutations=permutations, max_permutations=permutations, seed=seed
        )
        start = time.perf_counter()
        with threadpool_limits(1):
            result = ts_dshapley(problem.game(), settings)
        seconds.append(time.perf_counter() - start)
        values.append(result.values)
    return Side("ours", result.n_permutations, float(np.mean(seconds)), np.array(values))


def report(
    problem: Problem, sides: Sequence[Side], peer_version: str, arguments: argparse.Namespace
) -> str:
    """Returns the section of the docs; the last side is ours."""
    ours = sides[-1]
    mean = ours.values.mean(axis=0)
    wanted = 0.01 * float(mean.std())
    lines = [
        "## TS-DShapley against pyDVL, at equal standard error",
        "",
        f"{len(problem.players_y):,} points on top of {len(problem.base_y):,} train rows, "
        f"{len(problem.val_y):,} validation rows, {problem.players_z.shape[1]} components of the "
        f"embeddings of `{arguments.model}`, ridge {problem.ridge:g}; one thread each, "
        f"{len(ours.values)} runs of each way.",
        "The standard error of a run is its deviation over runs, the median over points. Time goes "
        "with the square of the error wanted: a hundredth of the values' spread.",
        "",
        "| | permutations a run | s a run | standard error of a run | s to 1 % of the spread "
        "| times ours | Spearman with ours |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for side in sides:
        needed = side.seconds_for(wanted)
        cells = [
            side.name,
            f"{side.permutations:,}",
            f"{side.seconds:,.2f}",
            f"{side.error:.2g}",
            f"{needed:,.3g}",
            f"{needed / ours.seconds_for(wanted):,.0f}",
            f"{_rank(side.values.mean(axis=0), mean):.3f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        "refit: scikit-learn's `Ridge` on train and players for every marginal; sums: the same "
        "ridge from kept sums of products; pairs: each permutation with its reverse, as ours.",
        "",
        *provenance("valuation.py", ("lipo", "numpy", "scikit-learn"), f", pyDVL {peer_version}"),
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
    add("--runs", type=int, default=6, help="of each way, with other seeds; at least 3")
    add("--refits", type=int, default=4, help="permutations of a run that refits")
    add("--permutations", type=int, default=20, help="of the other runs of pyDVL")
    add("--own", type=int, default=200, help="permutations of a run of ours")
    add("--limit", type=int, help="at most this many points")
    add_output_options(parser)
    arguments = parser.parse_args(given)
    if arguments.quick:
        arguments.limit, arguments.components, arguments.runs = 12, 8, 3
        arguments.refits = arguments.permutations = 4
    if arguments.runs < 3:
        parser.error("--runs must be 3 or more")
    settle_page(arguments)
    return arguments


def main(given: Sequence[str] | None = None) -> int:
    """Runs the benchmark, prints its section and writes it."""
    arguments = parse(given)
    problem = make_problem(arguments)
    counts = dict.fromkeys(_WAYS, arguments.permutations) | {"refit": arguments.refits}
    plan = {way: (count, arguments.runs) for way, count in counts.items()}
    sides, peer_version = run_pydvl(problem, arguments.pydvl, plan)
    ours = run_ours(problem, arguments.own, arguments.runs)
    text = report(problem, [*sides, ours], peer_version, arguments)
    print(text)
    if arguments.page is not None:
        write_section("valuation", text, arguments.page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
