"""Do points of high value help, and points of low value harm, on molecules that set no value?

The points of a pool join a ridge fit one after another, from the highest value down (best first) or
from the lowest up (worst first), and the error on the test rows is read after each (Ghorbani and
Zou 2019). A curve read backwards is a removal: best first removes the lowest value first, worst
first the highest. Random orders say what an order without content would do.

    python benchmarks/curves.py                  # the secondary pool, and a pool with wrong labels
    python benchmarks/curves.py --quick --dry

Two pools: Lipophilicity's secondary set beside train, as in `retraining.py`, and a part of train
with a fifth of its labels shuffled, as in `detection.py`. Values are set on the validation rows.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import detection
import numpy as np
import retraining
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from numpy.typing import NDArray
from report import add_output_options, provenance, settle_page, write_section
from valued import BASELINES, Floats, World, proxies_of, values_by_method

from lipo_cli.chem.datasets import load_dataset
from lipo_cli.chem.splits import make_split
from lipo_cli.comparison.intervals import holm
from lipo_cli.comparison.prepare import examples_of
from lipo_cli.settings import DataSettings, build
from lipo_cli.training.examples import Examples
from lipo_cli.valuation.game import RowGame
from lipo_cli.valuation.gradients import Part

SHARE = 0.2
GAMES = {"secondary": "on top of train", "empty": "from empty"}
DIRECTIONS = ("best first", "worst first")
LEVEL = 0.05
FIGURE = "curves.png"


@dataclass(frozen=True)
class Scene:
    """A pool whose points are valued and judged.

    Attributes:
        name: What the pool is.
        about: A sentence on model and molecules.
        world: The model and the molecules.
        labels: [n] labels of the pool, one for each draw of wrong ones.
        parameters: What influence counts, a method each.
    """

    name: str
    about: str
    world: World
    labels: list[Floats]
    parameters: Sequence[Part]


@dataclass(frozen=True)
class Standing:
    """Where a curve stands among those of random orders.

    Attributes:
        gap: Its mean less that of the mean random curve, squared label units.
        p: Two-sided: twice the share of random orders that lie as far out on the same side.
        corrected: p by Holm over the methods; None where it is not of them.
    """

    gap: float
    p: float
    corrected: float | None = None


@dataclass(frozen=True)
class Judged:
    """The curves of one draw of a pool in one game.

    Attributes:
        scene: The name of the pool.
        game: `secondary` or `empty`.
        random: [orders, n + 1] curves of random orders.
        curves: [n + 1] test MSE after 0..n points, by direction and method.
    """

    scene: str
    game: str
    random: Floats
    curves: dict[str, dict[str, Floats]]

    def standings(self, direction: str) -> dict[str, Standing]:
        """Returns how every method stands among the random orders.

        `chance` is one more random order, no method: the correction does not count it.
        """
        own = self.curves[direction]
        found = {method: standing(each, self.random) for method, each in own.items()}
        tested = [method for method in found if method != "chance"]
        corrected = dict(zip(tested, holm([found[m].p for m in tested]), strict=True))
        return {m: replace(each, corrected=corrected.get(m)) for m, each in found.items()}


def curve(game: RowGame, order: NDArray[np.int64]) -> Floats:
    """Returns [n + 1] the mean squared error over rows after the first 0..n points of an order."""
    return np.asarray(game.squared_errors(order).mean(axis=1))


def random_curves(game: RowGame, n_orders: int, seed: int) -> Floats:
    """Returns [n_orders, n + 1] curves of random orders."""
    rng = np.random.default_rng([seed, n_orders])  # apart from the stream of `chance`
    found = np.empty((n_orders, game.n_players + 1))
    for row in found:  # averaged over rows at once: [n + 1, m] is held of one order only
        row[:] = curve(game, rng.permutation(game.n_players))
    return found


def level(curves: Floats) -> Floats:
    """Returns the mean of [..., n + 1] curves over 1..n-1 points: all orders share their ends."""
    return np.asarray(curves[..., 1:-1].mean(axis=-1))


def standing(own: Floats, random: Floats) -> Standing:
    """Returns where a curve stands among random ones.

    By the smaller tail, doubled: random orders are not symmetric where a few of them go far wrong
    at their start (from empty).

    Args:
        own: [n + 1] the curve.
        random: [orders, n + 1] curves of random orders.
    """
    levels = level(random)
    mine = level(own)
    beyond = min(int(np.sum(levels <= mine)), int(np.sum(levels >= mine)))
    p = min(1.0, 2 * (1 + beyond) / (1 + len(levels)))
    return Standing(float(mine - levels.mean()), p)


def judge(game: RowGame, values: Mapping[str, Floats]) -> dict[str, dict[str, Floats]]:
    """Returns the curves of every method, by direction."""
    orders = {method: np.argsort(-each, kind="stable") for method, each in values.items()}
    return {
        "best first": {method: curve(game, order) for method, order in orders.items()},
        "worst first": {method: curve(game, order[::-1]) for method, order in orders.items()},
    }


def scenes(arguments: argparse.Namespace) -> Iterator[Scene]:
    """Fine-tunes the model of each pool, one after another."""
    given = vars(arguments)
    world = retraining.make_world(argparse.Namespace(**given, peft="lora"))
    chosen = arguments.parameters or ["all", "head"]
    about = _about(world, arguments.epochs)
    yield Scene("Secondary pool", about, world, [world.pool.labels], chosen)
    world = detection.make_world(argparse.Namespace(**given, peft="full"))
    labels = [
        detection.corrupted(world.pool.labels, "shuffled", SHARE, seed)[0]
        for seed in range(arguments.draws)
    ]
    name = f"Part of train, {SHARE:.0%} of its labels shuffled"
    about = f"{_about(world, arguments.epochs)} {arguments.draws} draws of wrong labels."
    yield Scene(name, about, world, labels, arguments.parameters or ["output"])


def _about(world: World, epochs: int) -> str:
    model = f"`{Path(world.regressor.base['name']).name}`, {epochs} epochs"
    return (
        f"{len(world.pool):,} points beside {len(world.train):,} train molecules; model "
        f"fine-tuned by {world.regressor.peft} ({model})."
    )


def test_rows(arguments: argparse.Namespace) -> Examples:
    """Returns the test molecules of the split that both pools are made of."""
    settings = build(DataSettings, {"dataset": arguments.data} if arguments.data else {})
    primary = load_dataset(settings).primary
    return examples_of(primary, make_split(primary, settings).test)


def measure(scene: Scene, test: Examples, n_orders: int) -> list[Judged]:
    """Values every draw of a pool on the validation rows, and judges the orders on the test rows.

    Args:
        scene: The pool.
        test: The test rows.
        n_orders: Random orders of each draw and game.
    """
    world = scene.world
    train_x, _, pool_x = world.embedded
    embedded = (train_x, world.regressor.embed(test.smiles), pool_x)
    on_test = replace(world, target=test, embedded=embedded)
    found = []
    for seed, labels in enumerate(scene.labels):
        valued = values_by_method(world, labels, scene.parameters, seed)
        values = {method: each.values for method, each in valued.items()}
        # The valuation's own proxies but for their rows: projection and penalty are train's.
        for name, proxy in proxies_of(on_test, labels, seed).items():
            random = random_curves(proxy.game, n_orders, seed)
            found.append(Judged(scene.name, name, random, judge(proxy.game, values)))
        print(f"{scene.name}, draw {seed}", file=sys.stderr)
    return found


def table(judged: Sequence[Judged]) -> list[str]:
    """Returns the table of one pool in one game, over its draws."""
    several = len(judged) > 1
    test = f"p < {LEVEL} (Holm), of {len(judged)} draws" if several else "p (Holm)"
    spread = [level(j.random) - level(j.random).mean() for j in judged]
    low, high = np.mean([np.quantile(s, (0.025, 0.975)) for s in spread], axis=0)
    lines = [
        "| method | " + " | ".join(f"{d}, less random | {test}" for d in DIRECTIONS) + " |",
        "|---|" + "---:|---:|" * len(DIRECTIONS),
        "| random orders, 95 % of them |" + f" [{low:+.4f}, {high:+.4f}] | |" * len(DIRECTIONS),
    ]
    standings = {d: [j.standings(d) for j in judged] for d in DIRECTIONS}
    for method in judged[0].curves[DIRECTIONS[0]]:
        cells = [c for d in DIRECTIONS for c in _cells([s[method] for s in standings[d]])]
        lines.append(f"| {method} | {' | '.join(cells)} |")
    return lines


def _cells(draws: Sequence[Standing]) -> tuple[str, str]:
    """Returns the gap and the verdict of one method: of its one draw, or over several."""
    gaps = [s.gap for s in draws]
    corrected = [s.corrected for s in draws if s.corrected is not None]
    if len(draws) == 1:
        bracket = f" ({corrected[0]:.2g})" if corrected else ""
        return f"{gaps[0]:+.4f}", f"{draws[0].p:.2g}{bracket}"
    bracket = f" ({sum(p < LEVEL for p in corrected)})" if corrected else ""
    below = sum(s.p < LEVEL for s in draws)
    return f"{np.mean(gaps):+.4f} ± {np.std(gaps, ddof=1):.4f}", f"{below}{bracket}"


def _ends(judged: Sequence[Judged]) -> str:
    """Says what all orders share: the error without the pool and with all of it."""
    without, random, whole = np.mean(
        [(j.random[0, 0], level(j.random).mean(), j.random[0, -1]) for j in judged], axis=0
    )
    return (
        f"Ridge {GAMES[judged[0].game]}: test MSE {without:.4f} without the pool, {whole:.4f} "
        f"with all of it, {random:.4f} over the mean random curve."
    )


def report(
    judged: Sequence[Judged], about: Mapping[str, str], test: Examples, n_target: int, n_orders: int
) -> str:
    """Returns the section of the docs.

    Args:
        judged: The curves of all pools, games and draws.
        about: What each pool and its model are.
        test: The test rows.
        n_target: Validation rows that set the values.
        n_orders: Random orders of each draw and game.
    """
    lines = [
        "## Addition and removal curves: does the order of the values beat random orders?",
        "",
        f"Values are set on {n_target:,} validation rows. The points then join a ridge fit in the "
        f"order of their values, and its squared error is read on {len(test):,} test rows, which "
        "set no value.",
        "Best first adds from the highest value down; read backwards it removes the lowest first. "
        "Worst first adds from the lowest up, which is to remove the highest first.",
        "A curve's figure is its mean over 1 to n - 1 points less that of the mean of "
        f"{n_orders:,} random orders, squared logD: good values are below 0 best "
        "first and above 0 worst first.",
        "p, two-sided: twice the share of random orders as far out; in brackets by Holm over "
        "the methods of a column, `chance` left out. It holds for these test rows and this model: "
        "both are given.",
        "",
    ]
    for scene, each in about.items():
        lines += [f"### {scene}", "", each, ""]
        for game in GAMES:
            own = [j for j in judged if (j.scene, j.game) == (scene, game)]
            lines += [_ends(own), "", *table(own), ""]
    lines += [
        f"![Test MSE by points kept, best and worst first](figures/{FIGURE})",
        "",
        *provenance("curves.py", ("lipo", "torch", "scikit-learn")),
    ]
    return "\n".join(lines)


def draw(judged: Sequence[Judged], path: Path) -> None:
    """Draws the curves, means over draws: a row of panels for each pool, a column for each game."""
    names = list(dict.fromkeys(j.scene for j in judged))
    methods = list(dict.fromkeys(m for j in judged for m in j.curves["best first"]))
    colours = {m: f"C{i}" for i, m in enumerate(m for m in methods if m not in BASELINES)}
    colours |= dict(zip(BASELINES, ("black", "saddlebrown"), strict=True))
    figure = Figure(figsize=(12.5, 4.6 * len(names)), layout="constrained")
    panels = figure.subplots(len(names), len(GAMES), squeeze=False)
    handles: dict[str, Artist] = {}
    for row, name in zip(panels, names, strict=True):
        for axes, game in zip(row, GAMES, strict=True):
            _panel(axes, [j for j in judged if (j.scene, j.game) == (name, game)], colours)
            axes.set_title(f"{name}\nridge {GAMES[game]}", fontsize=10)
            handles |= {str(h.get_label()): h for h in axes.get_legend_handles_labels()[0]}
    figure.supxlabel("points kept (added from the left, removed from the right)", fontsize=10)
    figure.supylabel("test MSE (squared logD)", fontsize=10)
    figure.legend(
        list(handles.values()),
        list(handles),
        loc="outside right upper",
        frameon=False,
        title="solid: best first\ndashed: worst first",
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def _panel(axes: Axes, judged: Sequence[Judged], colours: Mapping[str, str]) -> None:
    kept = np.arange(judged[0].random.shape[1])
    low, high = np.mean([np.quantile(j.random, (0.025, 0.975), axis=0) for j in judged], axis=0)
    axes.fill_between(kept, low, high, color="0.8", lw=0, label="random, 95 %")
    mean = np.mean([j.random.mean(axis=0) for j in judged], axis=0)
    axes.plot(kept, mean, color="0.45", lw=1.6, label="random, mean")
    for method in judged[0].curves["best first"]:
        for direction, style in zip(DIRECTIONS, ("-", "--"), strict=True):
            own = np.mean([j.curves[direction][method] for j in judged], axis=0)
            best = style == "-"
            axes.plot(
                kept,
                own,
                style,
                color=colours[method],
                lw=1.3 if best else 0.8,
                alpha=1 if best else 0.6,
                label=method if best else None,
            )
    axes.set_xlim(0, kept[-1])
    if judged[0].game == "empty":  # the first few points alone may be off by many times the rest
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.grid(alpha=0.25)


def parse(given: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--data", metavar="NAME|CSV", help="default: lipophilicity, else demo")
    add("--secondary", metavar="CSV", help="the first pool; default: the dataset's own")
    add("--model", default="small", help="checkpoint")
    add("--epochs", type=int, default=10)
    add("--pool", type=int, default=1000, help="molecules whose labels may be wrong")
    add("--draws", type=int, default=5, help="draws of wrong labels")
    add("--orders", type=int, default=1000, help="random orders of each draw and game")
    add(
        "--parameters",
        action="append",
        choices=["all", "head", "output"],
        help="of influence; repeatable; default: all and head, of wrong labels output",
    )
    add_output_options(parser)
    arguments = parser.parse_args(given)
    if arguments.quick:
        arguments.epochs, arguments.pool, arguments.draws, arguments.orders = 1, 40, 2, 20
    settle_page(arguments)
    return arguments


def main(given: Sequence[str] | None = None) -> int:
    """Runs the benchmark, prints its section and writes it."""
    arguments = parse(given)
    test = test_rows(arguments)
    judged: list[Judged] = []
    about: dict[str, str] = {}
    for scene in scenes(arguments):
        judged += measure(scene, test, arguments.orders)
        about[scene.name] = scene.about
        n_target = len(scene.world.target)
    text = report(judged, about, test, n_target, arguments.orders)
    print(text)
    if arguments.page is not None:
        draw(judged, arguments.page.parent / "figures" / FIGURE)
        write_section("curves", text, arguments.page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
