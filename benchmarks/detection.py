"""Do the values find labels that are known to be wrong?

A model is fine-tuned on part of Lipophilicity's train split. The rest of it is the pool: a share of
its labels is shuffled among themselves (or shifted by two standard deviations, up or down, or all
of them up: an offset), every method scores the pool, and its lowest values are taken for the wrong
labels. Two baselines stand beside the methods: chance, and the model's own error at each point,
which needs no valuation at all.

    python benchmarks/detection.py                  # 4 shares x 5 draws x every method
    python benchmarks/detection.py --quick --dry

F1 is given twice: of as many of the lowest values as there are wrong labels, so that it equals
precision and recall; and without knowing their number, of the lower of two clusters of the values
(2-means, as OpenDataVal does).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from report import add_output_options, provenance, settle_page, write_section
from sklearn.cluster import KMeans
from sklearn.metrics import f1_score, roc_auc_score
from valued import BASELINES, Floats, World, values_by_method

from lipo_cli.chem.datasets import load_dataset
from lipo_cli.chem.splits import make_split
from lipo_cli.model.regressor import Regressor
from lipo_cli.settings import DataSettings, TrainingSettings, build
from lipo_cli.training.examples import Examples
from lipo_cli.training.finetune import fit

SHARES = (0.05, 0.1, 0.2, 0.4)
KINDS = ("shuffled", "shifted", "offset")


@dataclass(frozen=True)
class Found:
    """How well one method found the wrong labels of one draw."""

    kind: str
    share: float
    seed: int
    method: str
    auroc: float
    f1: float
    f1_clusters: float


def make_world(arguments: argparse.Namespace) -> World:
    """Loads the data, fine-tunes the model, and embeds all molecules once."""
    settings = build(DataSettings, {"dataset": arguments.data} if arguments.data else {})
    primary = load_dataset(settings).primary
    split = make_split(primary, settings)
    order = np.random.default_rng(0).permutation(split.part("train"))
    rows = {"pool": order[: arguments.pool], "train": order[arguments.pool :]}
    rows["target"] = split.part("val")
    smiles = primary.smiles
    parts = {n: Examples([smiles[i] for i in p], primary.labels[p]) for n, p in rows.items()}
    given = {"model": arguments.model, "epochs": arguments.epochs}
    regressor = Regressor.from_base(arguments.peft, build(TrainingSettings, given), 0)
    fit(regressor, parts["train"], parts["target"], seed=0)
    return World.of(regressor, parts["train"], parts["target"], parts["pool"])


def corrupted(
    labels: Floats, kind: str, share: float, seed: int
) -> tuple[Floats, NDArray[np.bool_]]:
    """Returns labels of which a share is wrong, and which they are.

    Shuffled labels move among the chosen points, each to another one; shifted ones move by two
    standard deviations of all labels, up or down; those with an offset move up, all of them.
    """
    rng = np.random.default_rng([seed, round(share * 1000), KINDS.index(kind)])
    chosen = rng.permutation(len(labels))[: max(2, round(share * len(labels)))]
    changed = labels.copy()
    if kind == "shuffled":
        changed[chosen] = labels[np.roll(chosen, 1)]
    elif kind == "shifted":
        changed[chosen] += 2 * labels.std() * rng.choice([-1, 1], len(chosen))
    else:
        changed[chosen] += 2 * labels.std()
    return changed, changed != labels  # a shuffled label may meet its equal


def measure(world: World, arguments: argparse.Namespace) -> list[Found]:
    """Scores every draw of wrong labels by every method."""
    rows = []
    for kind in arguments.kind:
        for share in arguments.share:
            for seed in range(arguments.draws):
                labels, wrong = corrupted(world.pool.labels, kind, share, seed)
                valued = values_by_method(world, labels, arguments.parameters, seed)
                for method, each in valued.items():
                    rows.append(Found(kind, share, seed, method, *scores_of(each.values, wrong)))
                print(f"{kind}, {share:.0%}, draw {seed}", file=sys.stderr)
    return rows


def scores_of(values: Floats, wrong: NDArray[np.bool_]) -> tuple[float, float, float]:
    """Returns AUROC and F1 of taking the lowest values for the wrong labels.

    F1 comes twice: of as many as there are, and of the lower of two clusters of the values.
    """
    lowest = np.argsort(values, kind="stable")[: wrong.sum()]
    f1 = float(wrong[lowest].mean())  # as many taken as there are: precision = recall = F1
    clusters = KMeans(2, n_init=10, random_state=0).fit(values[:, None])
    lower = clusters.labels_ == int(clusters.cluster_centers_[:, 0].argmin())
    return float(roc_auc_score(wrong, -values)), f1, float(f1_score(wrong, lower))


def table(found: Sequence[Found], kind: str) -> list[str]:
    """Returns the table of one kind of wrong labels: means over draws of F1, F1 and AUROC."""
    shares = sorted({f.share for f in found})
    methods = list(dict.fromkeys(f.method for f in found))
    lines = [
        f"| labels {kind}: F1; F1 of clusters (AUROC) | "
        + " | ".join(f"{s:.0%}" for s in shares)
        + " |",
        "|---|" + "---:|" * len(shares),
    ]
    for method in methods:
        cells = []
        for share in shares:
            own = [f for f in found if (f.kind, f.share, f.method) == (kind, share, method)]
            f1 = [f.f1 for f in own]
            spread = f" ± {np.std(f1, ddof=1):.2f}" if len(f1) > 1 else ""
            clusters, auroc = np.mean([(f.f1_clusters, f.auroc) for f in own], axis=0)
            cells.append(f"{np.mean(f1):.2f}{spread}; {clusters:.2f} ({auroc:.2f})")
        lines.append(f"| {method} | {' | '.join(cells)} |")
    return lines


def draw(found: Sequence[Found], path: Path) -> None:
    """Draws F1 against the share of wrong labels, a panel for each kind."""
    kinds = list(dict.fromkeys(f.kind for f in found))
    figure = Figure(figsize=(5.2 * len(kinds), 4.2), layout="constrained")
    for axes, kind in zip(
        np.atleast_1d(figure.subplots(1, len(kinds), sharey=True)), kinds, strict=True
    ):
        _panel(axes.plot, [f for f in found if f.kind == kind])
        axes.set_title(f"labels {kind}")
        axes.set_xlabel("share of wrong labels")
        axes.set_ylim(0, 1)
        axes.grid(alpha=0.25)
    figure.axes[0].set_ylabel("F1 of the lowest values")
    handles, names = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside right upper", frameon=False, fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def _panel(plot: Callable[..., object], found: Sequence[Found]) -> None:
    shares = sorted({f.share for f in found})
    for method in dict.fromkeys(f.method for f in found):
        means = [
            np.mean([f.f1 for f in found if (f.method, f.share) == (method, s)]) for s in shares
        ]
        style = "--" if method in BASELINES else "-"
        plot(shares, means, style, marker="o", ms=3.5, label=method)


def report(found: Sequence[Found], world: World, arguments: argparse.Namespace) -> str:
    """Returns the section of the docs."""
    kinds = list(dict.fromkeys(f.kind for f in found))
    lines = [
        "## Planted noise: do the lowest values have the wrong labels?",
        "",
        f"A pool of {len(world.pool):,} molecules of {arguments.data or 'lipophilicity'} beside "
        f"{len(world.train):,} for training ({world.regressor.peft}, "
        f"`{Path(world.regressor.base['name']).name}`); target: "
        f"{len(world.target):,} validation rows.",
        f"Mean (± standard deviation) over {arguments.draws} draws of wrong labels. F1 takes as "
        "many of the lowest values as there are wrong labels; the second F1 knows nothing of their "
        "number and takes the lower of two clusters of the values (2-means).",
        "The error of the model is no valuation: it needs neither target rows nor values.",
        "",
    ]
    for kind in kinds:
        lines += [*table(found, kind), ""]
    lines += [
        f"![F1 by share of wrong labels](figures/{FIGURE})",
        "",
        *provenance("detection.py", ("lipo", "torch", "scikit-learn")),
    ]
    return "\n".join(lines)


FIGURE = "planted_noise.png"


def parse(given: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--data", metavar="NAME|CSV", help="default: lipophilicity, else demo")
    add("--model", default="small", help="checkpoint")
    add("--peft", default="full", help="how the model is fine-tuned")
    add("--epochs", type=int, default=10)
    add("--pool", type=int, default=1000, help="molecules whose labels may be wrong")
    add("--draws", type=int, default=5, help="draws of wrong labels for each share")
    add("--share", type=float, action="append", help="repeatable; default: 5, 10, 20, 40 %%")
    add("--kind", action="append", choices=KINDS, help="repeatable; default: all")
    add(
        "--parameters",
        action="append",
        choices=["all", "head", "output"],
        help="of influence; repeatable; default: output",
    )
    add_output_options(parser)
    arguments = parser.parse_args(given)
    if arguments.quick:
        arguments.epochs, arguments.pool, arguments.draws = 1, 40, 2
    arguments.share = arguments.share or list(SHARES)
    arguments.kind = arguments.kind or list(KINDS)
    arguments.parameters = arguments.parameters or ["output"]
    settle_page(arguments)
    return arguments


def main(given: Sequence[str] | None = None) -> int:
    """Runs the benchmark, prints its section and writes it."""
    arguments = parse(given)
    world = make_world(arguments)
    found = measure(world, arguments)
    text = report(found, world, arguments)
    print(text)
    if arguments.page is not None:
        draw(found, arguments.page.parent / "figures" / FIGURE)
        write_section("planted-noise", text, arguments.page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
