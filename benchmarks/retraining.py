"""Do the values foresee what retraining does? The linear datamodelling score (Park et al. 2023).

The regression head is retrained on train and a random half of the pool, many times, on the frozen
encoder of the fitted model. A method foresees the fall of the target loss as the sum of its values
over the half; its score is the rank correlation of what it foresees with what is observed: on the
very target rows that set the values, and on rows that did not.

    python benchmarks/retraining.py                       # Lipophilicity and its secondary set
    python benchmarks/retraining.py --secondary FILE.csv
    python benchmarks/retraining.py --quick --dry

The retraining knows no method: full batches by Adam from one random start for a fixed number of
steps, so that two halves differ in nothing but their molecules. All of it is repeated on several
fitted models, since what holds on one may be that one's.
"""

from __future__ import annotations

import argparse
import copy
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from report import add_output_options, provenance, settle_page, write_section
from scipy.stats import rankdata, spearmanr
from valued import BASELINES, Floats, Valued, World, proxies_of, values_by_method

from lipo_cli.comparison.intervals import holm
from lipo_cli.comparison.prepare import prepare
from lipo_cli.model.regressor import Regressor
from lipo_cli.settings import PEFT_METHODS, DataSettings, TrainingSettings, build
from lipo_cli.training.finetune import fit

N_DRAWS = 500
N_CHANCE = 2_000
LEARNING_RATE = 1e-3
FIGURE = "retraining.png"
Rows = NDArray[np.bool_]


@dataclass(frozen=True)
class Truth:
    """What retraining showed.

    Attributes:
        members: [k, n] which points each of the k halves holds.
        squares: [starts, 1 + k, m] squared error of each target row, first without the pool.
        seconds: Of one retraining.
    """

    members: Floats
    squares: Floats
    seconds: float

    def by_start(self, rows: Rows | None = None) -> Floats:
        """Returns [starts, k] falls of the mean squared error of some target rows, or of all."""
        squares = self.squares if rows is None else self.squares[:, :, rows]
        losses: Floats = squares.mean(axis=2)
        return losses[:, :1] - losses[:, 1:]

    def gains(self, rows: Rows | None = None) -> Floats:
        """Returns [k] the same, mean over starts."""
        return np.asarray(self.by_start(rows).mean(axis=0))

    def ceiling(self) -> float | None:
        """Returns what a method that knew the truth would score on gains as noisy as these.

        From the mean rank correlation r of two starts: the mean of k starts has the reliability
        k r / (1 + (k - 1) r) (Spearman 1910; Brown 1910), and correlates with the truth by its
        root. None of one start; 0 where starts do not agree.
        """
        by_start = self.by_start()
        k = len(by_start)
        if k < 2:
            return None
        pairs = combinations(by_start, 2)
        r = max(float(np.mean([spearmanr(a, b).statistic for a, b in pairs])), 0.0)
        return float(np.sqrt(k * r / (1 + (k - 1) * r)))


@dataclass(frozen=True)
class Model:
    """A fitted model, what the methods say beside it, and what retraining showed.

    Attributes:
        values: By method.
        truth: What was observed.
        fold_of: [m] the fold of each target row.
    """

    values: Mapping[str, Valued]
    truth: Truth
    fold_of: NDArray[np.int64]

    def splits(self) -> list[tuple[list[int], Rows]]:
        """Returns folds that set the values, and the target rows of all others, both ways round."""
        folds = range(int(self.fold_of.max()) + 1)
        pairs = [list(pair) for pair in combinations(folds, max(1, len(folds) // 2))]
        setting = [*pairs, *([f for f in folds if f not in pair] for pair in pairs)]
        return [(some, ~np.isin(self.fold_of, some)) for some in setting]

    def judged(self, method: str, *, others: bool) -> list[tuple[Floats, Floats]]:
        """Returns values [n] and the falls [k] by which they are judged.

        Args:
            method: Whose values. A baseline looks at no target row, so that all its say is of
                every row.
            others: For every split, the values of some folds and the falls on the others; else all
                values and the falls on the very rows that set them.
        """
        valued = self.values[method]
        if not others:
            return [(valued.values, self.truth.gains())]
        parts = valued.fold_values
        return [
            (
                valued.values if parts is None else parts[:, some].sum(axis=1),
                self.truth.gains(rows),
            )
            for some, rows in self.splits()
        ]

    def same_rows(self, method: str) -> list[tuple[Floats, Floats]]:
        """Returns what is foreseen and observed [k], of the rows that set the values."""
        return self._foreseen(method, others=False)

    def other_rows(self, method: str) -> list[tuple[Floats, Floats]]:
        """Returns both for every split: foreseen from some folds, observed on the others."""
        return self._foreseen(method, others=True)

    def _foreseen(self, method: str, *, others: bool) -> list[tuple[Floats, Floats]]:
        judged = self.judged(method, others=others)
        return [(self.truth.members @ values, gains) for values, gains in judged]

    def agreement_of_rows(self) -> float:
        """Returns the rank correlation of the true falls of some rows with those of the others."""
        truth = self.truth
        pairs = [(truth.gains(~rows), truth.gains(rows)) for _, rows in self.splits()]
        return float(rank_correlations(*_stacked(pairs)).mean())


def make_world(arguments: argparse.Namespace, seed: int = 0) -> World:
    """Loads the data and fine-tunes the model on primary train."""
    given = {"dataset": arguments.data, "secondary": arguments.secondary}
    prepared = prepare(build(DataSettings, {k: v for k, v in given.items() if v is not None}))
    training = build(TrainingSettings, {"model": arguments.model, "epochs": arguments.epochs})
    regressor = Regressor.from_base(arguments.peft, training, seed)
    fit(regressor, prepared.train, prepared.validation, seed=seed)
    return World.of(
        regressor, prepared.train, prepared.validation, prepared.require_pool().examples
    )


def retrained_squares(
    head: torch.nn.Module, x: Floats, y: Floats, target_x: Floats, target_y: Floats, steps: int
) -> Floats:
    """Returns the [m] squared errors of a head trained from where it is, by full batches of Adam.

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
    return error.double().square().numpy()


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
    squares = np.empty((n_starts, n_subsets + 1, len(world.target)))
    began = time.perf_counter()
    for start in range(n_starts):
        fresh = _fresh_head(world.regressor, start)
        for i, row in enumerate([np.zeros(n), *members]):
            joined = row.astype(bool)
            squares[start, i] = retrained_squares(
                copy.deepcopy(fresh),
                np.concatenate([train_x, pool_x[joined]]),
                np.concatenate([world.train.labels, world.pool.labels[joined]]),
                target_x,
                world.target.labels,
                steps,
            )
        print(f"start {start}: {n_subsets} halves retrained", file=sys.stderr)
    seconds = (time.perf_counter() - began) / (n_starts * (n_subsets + 1))
    return Truth(members, squares, seconds)


def _fresh_head(regressor: Regressor, seed: int) -> torch.nn.Module:
    """Returns a head drawn from a seed, in evaluation mode: without dropout."""
    other = Regressor.from_base("full", regressor.settings, seed)
    head = other.head().eval()
    own = dict(regressor.head().named_buffers())
    for name, buffer in head.named_buffers():
        buffer.copy_(own[name])
    return head


def rank_correlations(a: Floats, b: Floats) -> Floats:
    """Returns Spearman's rank correlation along the last axis; 0 where one side is constant."""
    ranks = [rankdata(each, axis=-1) for each in (a, b)]
    ranks = [each - each.mean(axis=-1, keepdims=True) for each in ranks]
    norms = [np.sqrt(np.square(each).sum(axis=-1)) for each in ranks]
    product = np.asarray(norms[0] * norms[1])
    inner = np.asarray((ranks[0] * ranks[1]).sum(axis=-1))
    return np.divide(inner, product, out=np.zeros_like(inner), where=product > 0)


def _stacked(pairs: Sequence[tuple[Floats, Floats]]) -> tuple[Floats, Floats]:
    return np.stack([a for a, _ in pairs]), np.stack([b for _, b in pairs])


def ranks_of(pairs: Sequence[Sequence[tuple[Floats, Floats]]]) -> list[float]:
    """Returns each model's rank correlation, the mean over its pairs of foreseen and observed."""
    return [float(rank_correlations(*_stacked(own)).mean()) for own in pairs]


@dataclass(frozen=True)
class Score:
    """A method's rank correlation: the mean over models, its 95 % interval, and each model's.

    The interval is over halves, drawn with replacement, the models' together; values and models
    are given.
    """

    mean: float
    low: float
    high: float
    each: tuple[float, ...]

    @classmethod
    def of(cls, pairs: Sequence[Sequence[tuple[Floats, Floats]]]) -> Score:
        """Scores the pairs of foreseen and observed [k] of every model, the mean of a model's."""
        stacked = [_stacked(own) for own in pairs]
        each = ranks_of(pairs)
        k = stacked[0][0].shape[1]
        drawn = np.random.default_rng(0).integers(k, size=(N_DRAWS, k))
        means = [
            rank_correlations(foreseen[:, drawn], observed[:, drawn]).mean(axis=0)
            for foreseen, observed in stacked
        ]
        low, high = np.nanquantile(np.mean(means, axis=0), (0.025, 0.975))
        return cls(float(np.mean(each)), float(low), float(high), tuple(each))

    def text(self) -> str:
        """Returns it for a table."""
        each = f" ({', '.join(f'{value:.2f}' for value in self.each)})" if self.each[1:] else ""
        return f"{self.mean:.2f} [{self.low:.2f}, {self.high:.2f}]{each}"


def permuted_ranks(models: Sequence[Model], method: str, *, others: bool) -> Floats:
    """Returns [N_CHANCE] scores of a method's own values, dealt to the points at random.

    One deal holds for all folds and all models: values of one fold resemble those of another, and
    those beside one model those beside the next, so that deals of their own would average away
    what is one accident.

    Args:
        models: The models.
        method: Whose values.
        others: Whether the score is that of other rows.
    """
    n = models[0].truth.members.shape[1]
    rng = np.random.default_rng(1)
    deals = np.stack([rng.permutation(n) for _ in range(N_CHANCE)])
    by_model = []
    for model in models:
        members = model.truth.members
        ranks = [
            rank_correlations(values[deals] @ members.T, gains[None])
            for values, gains in model.judged(method, others=others)
        ]
        by_model.append(np.mean(ranks, axis=0))
    return np.asarray(np.mean(by_model, axis=0))


def report(world: World, models: Sequence[Model], arguments: argparse.Namespace) -> str:
    """Returns the section of the docs."""
    truths = [model.truth for model in models]
    gains = np.array([truth.gains() for truth in truths])
    without = np.mean([truth.squares[:, 0].mean() for truth in truths])
    many = f"{len(models)} models" if len(models) > 1 else "a model"
    lines = [
        f"## Retraining truth{f' ({_named(arguments)})' if arguments.secondary else ''}: "
        "do the values foresee what a half of the pool does?",
        "",
        f"{gains.shape[1]} random halves of {len(world.pool):,} points beside {len(world.train):,} "
        f"train molecules; encoders of {many} fine-tuned by {world.regressor.peft} "
        f"({arguments.epochs} epochs, `{Path(world.regressor.base['name']).name}`); target: "
        f"{len(world.target):,} validation rows.",
        f"The head is retrained by {arguments.steps} full-batch steps of Adam from "
        f"{arguments.starts} random starts, {np.mean([t.seconds for t in truths]):.1f} s each. "
        f"Target MSE without the pool {without:.4f}; it falls by {gains.mean():.4f} ± "
        f"{gains.std(axis=1).mean():.4f} (mean ± standard deviation over halves).",
        "Same rows: values and falls are of the same validation rows, so that a high number shows "
        "a right account of that very loss. Other rows: values of some of five folds against falls "
        "on the rest (the mean of all 20 ways to part them), which is what a choice is for.",
    ]
    ceilings = [found for truth in truths if (found := truth.ceiling()) is not None]
    if ceilings:
        lines.append(
            "From how far starts agree, a method that knew the truth would score about "
            f"{np.mean(ceilings):.2f} on the same rows (Spearman-Brown); the true falls of some "
            "folds and of the rest, which no method is told, correlate by "
            f"{np.mean([model.agreement_of_rows() for model in models]):.2f}."
        )
    lines += [
        f"p: of {N_CHANCE:,} deals of a method's own values to the points, the share that foresees "
        "as much, either way (one deal for all folds and models); in brackets "
        f"by Holm over the column.{' Behind a score: each model alone.' if models[1:] else ''}",
        "",
        *_table(models),
        "",
        f"![Foreseen against observed](figures/{_figure(arguments)})",
        "",
        *provenance("retraining.py", ("lipo", "torch", "scikit-learn")),
    ]
    return "\n".join(lines)


def _table(models: Sequence[Model]) -> list[str]:
    methods = [name for name in models[0].values if name != "chance"]
    found = [
        [Score.of([model.same_rows(method) for model in models]) for method in methods],
        [Score.of([model.other_rows(method) for model in models]) for method in methods],
    ]
    null = [
        [permuted_ranks(models, method, others=others) for method in methods]
        for others in (False, True)
    ]
    # Two-sided, against values without content: an interval over halves has these values fixed.
    p = [
        [
            float((1 + np.sum(abs(dealt) >= abs(score.mean))) / (1 + N_CHANCE))
            for dealt, score in zip(nulls, scores, strict=True)
        ]
        for nulls, scores in zip(null, found, strict=True)
    ]
    middle = [np.mean([np.quantile(n, (0.025, 0.975)) for n in nulls], axis=0) for nulls in null]
    lines = [
        "| method | same rows: rank correlation with the fall [95 %] | p (Holm) "
        "| other rows [95 %] | p (Holm) |",
        "|---|---:|---:|---:|---:|",
        "| values dealt at random, 95 % of deals | "
        + " | ".join(f"[{low:.2f}, {high:.2f}] | " for low, high in middle)
        + "|",
    ]
    corrected = [holm(own) for own in p]
    for i, method in enumerate(methods):
        cells = [
            f"{scores[i].text()} | {alone[i]:.2g} ({held[i]:.2g})"
            for scores, alone, held in zip(found, p, corrected, strict=True)
        ]
        lines.append(f"| {method} | {' | '.join(cells)} |")
    return lines


def _named(arguments: argparse.Namespace) -> str:
    return Path(arguments.secondary).stem if arguments.secondary else ""


def _figure(arguments: argparse.Namespace) -> str:
    name = _named(arguments)
    return f"retraining_{name}.png" if name else FIGURE


def draw(models: Sequence[Model], path: Path) -> None:
    """Draws what each method foresees against what was observed, a panel for each method."""
    shown = [name for name in models[0].values if name not in BASELINES]
    columns = min(3, len(shown))
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(3.4 * columns, 3.1 * rows), layout="constrained")
    panels = np.atleast_1d(figure.subplots(rows, columns, sharey=True)).ravel()
    for axes, name in zip(panels, shown, strict=False):
        for number, model in enumerate(models):
            ((foreseen, observed),) = model.same_rows(name)
            axes.scatter(foreseen, observed, s=9, alpha=0.6, linewidths=0, label=f"model {number}")
        same, other = (
            np.mean(ranks_of([pairs(model, name) for model in models]))
            for pairs in (Model.same_rows, Model.other_rows)
        )
        axes.set_title(f"{name}: {same:.2f} (other rows {other:.2f})", fontsize=9)
        axes.ticklabel_format(scilimits=(-3, 3))
        axes.grid(alpha=0.25)
    for axes in panels[len(shown) :]:
        axes.set_axis_off()
    if len(models) > 1:
        panels[0].legend(fontsize=7, frameon=False)
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
    add("--models", type=int, default=3, help="fitted models, by their seeds from 0")
    add("--starts", type=int, default=2, help="random starts of the head")
    add("--steps", type=int, default=200, help="of Adam")
    add(
        "--parameters",
        action="append",
        choices=["all", "head", "output"],
        help="of influence; repeatable; default: all, head",
    )
    add("--keep", type=Path, metavar="NPZ", help="leave values and observed errors there")
    add_output_options(parser)
    arguments = parser.parse_args(given)
    if arguments.quick:
        arguments.epochs, arguments.subsets, arguments.steps, arguments.models = 1, 8, 5, 2
    if arguments.subsets < 3:
        parser.error("--subsets must be 3 or more")
    arguments.parameters = arguments.parameters or ["all", "head"]
    settle_page(arguments)
    return arguments


def _keep(models: Sequence[Model], path: Path) -> None:
    """Leaves what was measured so far, so that it can be looked at again."""
    kept: dict[str, Floats | NDArray[np.int64]] = {"fold_of": models[0].fold_of}
    for number, model in enumerate(models):
        kept |= {f"{number}:members": model.truth.members, f"{number}:squares": model.truth.squares}
        for method, valued in model.values.items():
            kept[f"{number}:{method}"] = valued.values
            if valued.fold_values is not None:
                kept[f"{number}:{method}:folds"] = valued.fold_values
    np.savez(path, **kept)  # type: ignore[arg-type]


def main(given: Sequence[str] | None = None) -> int:
    """Runs the benchmark, prints its section and writes it."""
    arguments = parse(given)
    models: list[Model] = []
    for seed in range(arguments.models):
        world = make_world(arguments, seed)
        labels = world.pool.labels
        proxies = proxies_of(world, labels, seed=0)
        values = values_by_method(world, labels, arguments.parameters, seed=0, proxies=proxies)
        fold_of = proxies["secondary"].game.fold_of
        truth = measure_truth(world, arguments.subsets, arguments.starts, arguments.steps)
        models.append(Model(values, truth, fold_of))
        if arguments.keep is not None:
            _keep(models, arguments.keep)
    text = report(world, models, arguments)
    print(text)
    if arguments.page is not None:
        draw(models, arguments.page.parent / "figures" / _figure(arguments))
        name = _named(arguments)
        write_section(f"retraining-{name}" if name else "retraining", text, arguments.page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
