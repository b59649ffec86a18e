"""Do the values foresee what retraining does? The linear datamodelling score (Park et al. 2023).

The regression head is retrained on train and a random half of the pool, many times, on the frozen
encoder of the fitted model. A method foresees the fall of the target loss as the sum of its values
over the half; its score is the rank correlation of what it foresees with what is observed.

    python benchmarks/retraining.py                       # Lipophilicity and its secondary set
    python benchmarks/retraining.py --secondary FILE.csv
    python benchmarks/retraining.py --quick --dry

The retraining knows no method: full batches by Adam from one random start for a fixed number of
steps, so that two halves differ in nothing but their molecules.
"""

from __future__ import annotations

import argparse
import copy
import os
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from report import add_output_options, machine, settle_page, write_section
from scipy.stats import rankdata, spearmanr
from valued import BASELINES, Floats, World, values_by_method

from lipo_cli.comparison.intervals import holm
from lipo_cli.comparison.prepare import prepare
from lipo_cli.model.regressor import Regressor
from lipo_cli.settings import PEFT_METHODS, DataSettings, TrainingSettings, build
from lipo_cli.training.finetune import fit

N_DRAWS = 2000
N_CHANCE = 10_000
LEARNING_RATE = 1e-3
FIGURE = "retraining.png"


@dataclass(frozen=True)
class Truth:
    """What retraining showed.

    Attributes:
        members: [k, n] which points each of the k halves holds.
        gains: [k] fall of the target loss against training without the pool, mean over starts.
        by_start: [starts, k] the same of each random start.
        loss_without: Target loss without the pool, mean over starts.
        seconds: Of one retraining.
    """

    members: Floats
    gains: Floats
    by_start: Floats
    loss_without: float
    seconds: float

    def ceiling(self) -> float | None:
        """Returns what a method that knew the truth would score on gains as noisy as these.

        From the mean rank correlation r of two starts: the mean of k starts has the reliability
        k r / (1 + (k - 1) r) (Spearman 1910; Brown 1910), and correlates with the truth by its
        root. None of one start; 0 where starts do not agree.
        """
        k = len(self.by_start)
        if k < 2:
            return None
        pairs = combinations(self.by_start, 2)
        r = max(float(np.mean([spearmanr(a, b).statistic for a, b in pairs])), 0.0)
        return float(np.sqrt(k * r / (1 + (k - 1) * r)))


def make_world(arguments: argparse.Namespace) -> World:
    """Loads the data and fine-tunes the model on primary train."""
    given = {"dataset": arguments.data, "secondary": arguments.secondary}
    prepared = prepare(build(DataSettings, {k: v for k, v in given.items() if v is not None}))
    training = build(TrainingSettings, {"model": arguments.model, "epochs": arguments.epochs})
    regressor = Regressor.from_base(arguments.peft, training, 0)
    fit(regressor, prepared.train, prepared.validation, seed=0)
    return World.of(
        regressor, prepared.train, prepared.validation, prepared.require_pool().examples
    )


def retrained_loss(
    head: torch.nn.Module, x: Floats, y: Floats, target_x: Floats, target_y: Floats, steps: int
) -> float:
    """Returns the target loss of a head trained from where it is, by full batches of Adam.

    Args:
        head: A fresh head; it is changed.
        x: [n, d] embeddings to train on.
        y: [n] labels, raw units.
        target_x: [m, d] embeddings of the target rows.
        target_y: [m] their labels.
        steps: Of Adam.
    """
    inputs, labels = _tensor(x), _tensor(y)
    optimizer = torch.optim.Adam(head.parameters(), lr=LEARNING_RATE)
    for _ in range(steps):
        optimizer.zero_grad()
        (head(inputs)[:, 0] - labels).square().mean().backward()
        optimizer.step()
    with torch.inference_mode():
        error = head(_tensor(target_x))[:, 0] - _tensor(target_y)
    return float(error.double().square().mean())


def _tensor(values: Floats) -> torch.Tensor:
    return torch.from_numpy(values).float()


def measure_truth(world: World, n_subsets: int, n_starts: int, steps: int) -> Truth:
    """Retrains the head on random halves of the pool, every time from the same starts."""
    train_x, target_x, pool_x = world.embedded
    n = len(world.pool)
    rng = np.random.default_rng(0)
    members = np.zeros((n_subsets, n))
    for row in members:
        row[rng.choice(n, n // 2, replace=False)] = 1
    losses = np.empty((n_starts, n_subsets + 1))
    began = time.perf_counter()
    for start in range(n_starts):
        fresh = _fresh_head(world.regressor, start)
        for i, row in enumerate([np.zeros(n), *members]):
            joined = row.astype(bool)
            losses[start, i] = retrained_loss(
                copy.deepcopy(fresh),
                np.concatenate([train_x, pool_x[joined]]),
                np.concatenate([world.train.labels, world.pool.labels[joined]]),
                target_x,
                world.target.labels,
                steps,
            )
        print(f"start {start}: {n_subsets} halves retrained", file=sys.stderr)
    by_start = losses[:, :1] - losses[:, 1:]
    seconds = (time.perf_counter() - began) / losses.size
    return Truth(members, by_start.mean(axis=0), by_start, float(losses[:, 0].mean()), seconds)


def _fresh_head(regressor: Regressor, seed: int) -> torch.nn.Module:
    """Returns a head drawn from a seed, in evaluation mode: without dropout."""
    other = Regressor.from_base("full", regressor.settings, seed)
    head = other.head().eval()
    own = dict(regressor.head().named_buffers())
    for name, buffer in head.named_buffers():
        buffer.copy_(own[name])
    return head


def scores(truth: Truth, values: Floats) -> tuple[float, float, float, float]:
    """Returns the rank correlation, its 95 % bootstrap interval over subsets, and Pearson's r."""
    foreseen = truth.members @ values
    rng = np.random.default_rng(0)
    drawn = rng.integers(len(foreseen), size=(N_DRAWS, len(foreseen)))
    ranks = [spearmanr(foreseen[i], truth.gains[i]).statistic for i in drawn]
    low, high = np.quantile(ranks, (0.025, 0.975))
    rank = float(spearmanr(foreseen, truth.gains).statistic)
    return rank, float(low), float(high), float(np.corrcoef(foreseen, truth.gains)[0, 1])


def chance_ranks(truth: Truth) -> Floats:
    """Returns [N_CHANCE] rank correlations of random values: one draw of them may look good."""
    random = np.random.default_rng(1).normal(size=(truth.members.shape[1], N_CHANCE))
    foreseen = rankdata(truth.members @ random, axis=0)
    observed = rankdata(truth.gains)
    foreseen -= foreseen.mean(axis=0)
    observed -= observed.mean()
    norms = np.linalg.norm(foreseen, axis=0) * np.linalg.norm(observed)
    return np.asarray(observed @ foreseen / norms)


def report(
    world: World, truth: Truth, values: Mapping[str, Floats], arguments: argparse.Namespace
) -> str:
    """Returns the section of the docs."""
    gains = truth.gains
    lines = [
        f"## Retraining truth{f' ({_named(arguments)})' if arguments.secondary else ''}: "
        "do the values foresee what a half of the pool does?",
        "",
        f"{len(gains)} random halves of {len(world.pool):,} points beside {len(world.train):,} "
        f"train molecules; encoder of a model fine-tuned by {world.regressor.peft} "
        f"({arguments.epochs} epochs, `{Path(world.regressor.base['name']).name}`); target: "
        f"{len(world.target):,} validation rows.",
        f"The head is retrained by {arguments.steps} full-batch steps of Adam from "
        f"{arguments.starts} random starts, {truth.seconds:.1f} s each. Target MSE without the "
        f"pool {truth.loss_without:.4f}; it falls by {gains.mean():.4f} ± {gains.std():.4f} "
        "(mean ± standard deviation over halves).",
    ]
    if (ceiling := truth.ceiling()) is not None:
        lines.append(
            "From how far starts agree, a method that knew the truth would score about "
            f"{ceiling:.2f} here (Spearman-Brown)."
        )
    chance = chance_ranks(truth)
    found = {name: scores(truth, each) for name, each in values.items() if name != "chance"}
    # Two-sided, against values without content: an interval over halves has these values fixed.
    p = [float((1 + np.sum(abs(chance) >= abs(f[0]))) / (1 + N_CHANCE)) for f in found.values()]
    low, high = np.quantile(chance, (0.025, 0.975))
    lines += [
        f"p: the share of {N_CHANCE:,} random values that foresee as much, either way; in brackets "
        "by Holm over the table.",
        "",
        "| method | rank correlation with the fall [95 %] | Pearson | p (Holm) |",
        "|---|---:|---:|---:|",
        f"| random values, 95 % of them | {chance.mean():.2f} [{low:.2f}, {high:.2f}] | | |",
    ]
    for (method, figures), alone, corrected in zip(found.items(), p, holm(p), strict=True):
        rank, low, high, pearson = figures
        lines.append(
            f"| {method} | {rank:.2f} [{low:.2f}, {high:.2f}] | {pearson:.2f} "
            f"| {alone:.2g} ({corrected:.2g}) |"
        )
    lines += [
        "",
        f"![Foreseen against observed](figures/{_figure(arguments)})",
        "",
        f"Machine: {machine()}. Python {platform.python_version()}, "
        + ", ".join(f"{p} {version(p)}" for p in ("lipo", "torch", "scikit-learn"))
        + f". Load average: {os.getloadavg()[0]:.1f}.",
        f"Command: `{' '.join(['python benchmarks/retraining.py', *sys.argv[1:]])}`",
    ]
    return "\n".join(lines)


def _named(arguments: argparse.Namespace) -> str:
    return Path(arguments.secondary).stem if arguments.secondary else ""


def _figure(arguments: argparse.Namespace) -> str:
    name = _named(arguments)
    return f"retraining_{name}.png" if name else FIGURE


def draw(truth: Truth, values: Mapping[str, Floats], path: Path) -> None:
    """Draws what each method foresees against what was observed, a panel for each."""
    shown = [name for name in values if name not in BASELINES]
    columns = min(3, len(shown))
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(3.4 * columns, 3.1 * rows), layout="constrained")
    panels = np.atleast_1d(figure.subplots(rows, columns, sharey=True)).ravel()
    for axes, name in zip(panels, shown, strict=False):
        axes.scatter(truth.members @ values[name], truth.gains, s=9, alpha=0.6, linewidths=0)
        axes.set_title(f"{name}: {scores(truth, values[name])[0]:.2f}", fontsize=10)
        axes.ticklabel_format(scilimits=(-3, 3))
        axes.grid(alpha=0.25)
    for axes in panels[len(shown) :]:
        axes.set_axis_off()
    figure.supxlabel("sum of the values of a half")
    figure.supylabel("observed fall of the target MSE")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def parse(given: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--data", metavar="NAME|CSV", help="default: lipophilicity, else demo")
    add("--secondary", metavar="CSV", help="the pool; default: the dataset's own")
    add("--model", default="small", help="checkpoint")
    add("--peft", default="lora", choices=PEFT_METHODS)
    add("--epochs", type=int, default=10)
    add("--subsets", type=int, default=60, help="random halves of the pool; at least 3")
    add("--starts", type=int, default=2, help="random starts of the head")
    add("--steps", type=int, default=200, help="of Adam")
    add(
        "--parameters",
        action="append",
        choices=["all", "head", "output"],
        help="of influence; repeatable; default: all, head",
    )
    add("--keep", type=Path, metavar="NPZ", help="leave values and observed falls there")
    add_output_options(parser)
    arguments = parser.parse_args(given)
    if arguments.quick:
        arguments.epochs, arguments.subsets, arguments.steps = 1, 8, 5
    if arguments.subsets < 3:
        parser.error("--subsets must be 3 or more")
    arguments.parameters = arguments.parameters or ["all", "head"]
    settle_page(arguments)
    return arguments


def main(given: Sequence[str] | None = None) -> int:
    """Runs the benchmark, prints its section and writes it."""
    arguments = parse(given)
    world = make_world(arguments)
    values = values_by_method(world, world.pool.labels, arguments.parameters, seed=0)
    truth = measure_truth(world, arguments.subsets, arguments.starts, arguments.steps)
    if arguments.keep is not None:
        np.savez(arguments.keep, members=truth.members, by_start=truth.by_start, **values)
    text = report(world, truth, values, arguments)
    print(text)
    if arguments.page is not None:
        draw(truth, values, arguments.page.parent / "figures" / _figure(arguments))
        name = _named(arguments)
        write_section(f"retraining-{name}" if name else "retraining", text, arguments.page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
