"""The pictures of a comparison, as PNG files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter, MaxNLocator

from lipo_cli.comparison.cell_result import CellResult
from lipo_cli.comparison.digits import decimals
from lipo_cli.comparison.metrics import regression_metrics
from lipo_cli.comparison.plan import on_splits
from lipo_cli.comparison.scoring import Scored
from lipo_cli.comparison.variation import mean_by_split
from lipo_cli.settings import ScoringMethod

if TYPE_CHECKING:
    from lipo_cli.comparison.result import Comparison

# Okabe and Ito 2008: told apart by colour-blind readers, and in grey by their order of lightness.
COLOURS = ("#000000", "#D55E00", "#0072B2", "#999999", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "text.parse_math": False,  # a label column may be called "cost_$"
}
_DPI = 150
_OVER_LINES = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1.0}


VALUE_NAMES: dict[ScoringMethod, str] = {
    "tsds": "TS-DShapley value",
    "influence": "influence",
    "knn": "KNN-Shapley value",
    "loo": "leave-one-out value",
    "uncertain": "spread of the predictions",
}


def draw_all(comparison: Comparison, folder: Path, label: str) -> list[Path]:
    """Draws every figure that the comparison has data for.

    Args:
        comparison: A finished comparison.
        folder: Where the PNG files go.
        label: The property and its unit, for axes, such as "logD".

    Returns:
        The files, in reading order.
    """
    folder.mkdir(parents=True, exist_ok=True)
    done = [cell for cell in comparison.cells if cell.status == "finished"]
    drawn: list[tuple[str, Figure]] = []
    with mpl.rc_context(STYLE):
        if done:
            drawn.append(("rmse_by_cell", rmse_by_cell(done, label)))
            drawn.append(("training_curves", training_curves(done, label)))
            drawn.append(("training_time", training_time(done)))
        if comparison.best is not None:
            figure = predicted_vs_measured(comparison.best, label)
            drawn.append(("predicted_vs_measured", figure))
        for method, scored in comparison.scored.items():
            # One method's figures bear plain names; those of several are told apart.
            ending = "" if len(comparison.scored) == 1 else f"_{method}"
            drawn.append((f"removal_curve{ending}", removal_figure(scored, label)))
            drawn.append((f"values{ending}", values_figure(scored)))
        return save(drawn, folder)


def save(drawn: Sequence[tuple[str, Figure]], folder: Path) -> list[Path]:
    """Writes figures as PNG files by their names; returns the files."""
    paths = []
    for name, figure in drawn:
        path = folder / f"{name}.png"
        figure.savefig(path, dpi=_DPI)
        paths.append(path)
    return paths


def new_panels(n: int, width: float, height: float, **kwargs: object) -> tuple[Figure, list[Axes]]:
    """Returns a figure and its axes side by side, each of this size in inches."""
    figure = Figure(figsize=(width * n, height), layout="constrained")
    axes = figure.subplots(1, n, squeeze=False, **kwargs)  # type: ignore[call-overload]
    return figure, list(axes[0])


def _distinct(values: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(values))


def rmse_by_cell(cells: Sequence[CellResult], label: str) -> Figure:
    """Draws test RMSE: a dot per seed, a bar at the mean, a line at the control `none`."""
    methods = _distinct([cell.peft for cell in cells])
    names = _distinct([cell.label for cell in cells])
    of_splits = len({cell.split for cell in cells})
    shown = [
        name + on_splits(len({cell.split for cell in cells if cell.label == name}), of_splits)
        for name in names
    ]
    figure, panels = new_panels(
        len(methods), max(3.2, 6.5 / len(methods)), 1.2 + 0.42 * len(names), sharey=True
    )
    for axes, method in zip(panels, methods, strict=True):
        for place, name in enumerate(names):
            found = [
                ((c.split, c.seed), c.test_rmse)
                for c in cells
                if (c.peft, c.label) == (method, name) and c.test_rmse
            ]
            if not found:
                continue
            values, (mean, _) = [value for _, value in found], mean_by_split(found)
            colour = COLOURS[place % len(COLOURS)]
            axes.plot(values, [place] * len(values), "o", color=colour, alpha=0.6, zorder=3)
            axes.plot([mean] * 2, [place - 0.3, place + 0.3], color=colour, lw=2.5)
            axes.annotate(
                f"{mean:.{decimals([mean])}f}",
                (mean, place - 0.32),
                ha="center",
                va="bottom",
                fontsize=8,
            )
            if name == names[0] and name.startswith("none"):
                axes.axvline(mean, color="0.5", ls="--", lw=1, zorder=1)
        axes.set_title(method)
        axes.set_xlabel(f"test RMSE ({label})")
        axes.margins(x=0.15)
        axes.set_yticks(range(len(names)), shown)
        axes.set_ylim(len(names) - 0.4, -0.7)
    return figure


def training_curves(cells: Sequence[CellResult], label: str) -> Figure:
    """Draws validation (solid) and training RMSE (dotted) by epoch, a colour per selection."""
    methods = _distinct([cell.peft for cell in cells])
    names = _distinct([cell.label for cell in cells])
    figure, panels = new_panels(len(methods), max(4.0, 7.0 / len(methods)), 3.8, sharey=True)
    for axes, method in zip(panels, methods, strict=True):
        for cell in cells:
            if cell.peft != method or not cell.history:
                continue
            colour = COLOURS[names.index(cell.label) % len(COLOURS)]
            epochs = [row["epoch"] for row in cell.history]
            first = (cell.split, cell.seed) == (cells[0].split, cells[0].seed)
            named = cell.label if first else None
            axes.plot(
                epochs, [r["val_rmse"] for r in cell.history], ".-", color=colour, label=named
            )
            axes.plot(
                epochs, [r["train_rmse"] for r in cell.history], ".:", color=colour, alpha=0.7
            )
        axes.set_title(f"{method}: validation solid, training dotted")
        axes.set_xlabel("epoch")
        # Of a single epoch the axis would have fractions.
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    panels[0].set_ylabel(f"RMSE ({label})")
    panels[0].legend(fontsize=8)
    return figure


def training_time(cells: Sequence[CellResult]) -> Figure:
    """Draws the training time of each method: a dot per cell, a bar at the mean."""
    methods = _distinct([cell.peft for cell in cells])
    figure, (axes,) = new_panels(1, 6.0, 1.2 + 0.5 * len(methods))
    longest = 0.0
    for place, method in enumerate(methods):
        seconds = [c.seconds for c in cells if c.peft == method and c.seconds is not None]
        longest = max([longest, *seconds])
        axes.barh(place, float(np.mean(seconds)), color=COLOURS[2], alpha=0.35, height=0.6)
        axes.plot(seconds, [place] * len(seconds), "o", color=COLOURS[2], ms=4)
        axes.annotate(
            f"  mean {np.mean(seconds):.0f} s", (max(seconds), place), va="center", fontsize=9
        )
    axes.set_yticks(range(len(methods)), methods)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.25 * longest)  # a mean is written behind the last dot
    axes.set_xlabel("seconds of training per cell")
    return figure


def predicted_vs_measured(cell: CellResult, label: str) -> Figure:
    """Draws a cell's test predictions against the measurements."""
    test = cell.predictions[cell.predictions["part"] == "test"]
    measured, predicted = test["measured"].to_numpy(), test["predicted"].to_numpy()
    numbers = regression_metrics(predicted, measured)
    figure, (axes,) = new_panels(1, 4.8, 4.8)
    low = float(min(measured.min(), predicted.min()))
    high = float(max(measured.max(), predicted.max()))
    margin = 0.03 * (high - low) or 0.2  # labels may be of any size
    low, high = low - margin, high + margin
    axes.plot([low, high], [low, high], color="0.5", lw=1)
    axes.scatter(measured, predicted, s=10, alpha=0.5, color=COLOURS[2], edgecolors="none")
    axes.set_xlim(low, high)
    axes.set_ylim(low, high)
    axes.set_aspect("equal")
    axes.set_xlabel(f"measured {label}")
    axes.set_ylabel(f"predicted {label}")
    axes.set_title(f"{cell.label} / {cell.peft} / seed {cell.seed}, test", fontsize=10)
    digits = decimals([numbers["rmse"]])
    lines = [
        f"n {len(test)}",
        f"RMSE {numbers['rmse']:.{digits}f}",
        f"MAE {numbers['mae']:.{digits}f}",
    ]
    lines += [f"R² {numbers['r2']:.3f}"] if numbers["r2"] is not None else []
    axes.text(0.04, 0.96, "\n".join(lines), transform=axes.transAxes, va="top", fontsize=9)
    return figure


def plain_log(axis: Axis) -> None:
    """Labels a logarithmic axis without mathematical text, which `STYLE` leaves unread."""
    axis.set_major_formatter(LogFormatter())
    axis.set_minor_formatter(LogFormatter(labelOnlyBase=False))


def removal_figure(scored: Scored, label: str) -> Figure:
    """Draws the proxy's held-out error while the lowest values are removed one by one."""
    curve = scored.curve.sort_values("n_removed")
    removed, error = curve["n_removed"].to_numpy(), -curve["utility"].to_numpy()
    # The error of the difference to keeping all: that of the level is the same molecules' noise.
    spread = curve["gain_over_all_error"].to_numpy()
    figure, (axes,) = new_panels(1, 6.4, 4.0)
    axes.fill_between(removed, error - spread, error + spread, color=COLOURS[2], alpha=0.2, lw=0)
    axes.plot(removed, error, color=COLOURS[2])
    kept = scored.scores.n_optimal
    if kept is not None:
        best = len(scored.table) - kept
        axes.axvline(best, color=COLOURS[1], lw=1.2)
        side = "right" if best > len(scored.table) / 2 else "left"
        axes.annotate(
            f" {kept} kept ",
            (best, float(error.max())),
            color=COLOURS[1],
            ha=side,
            va="top",
            bbox=_OVER_LINES,
        )
    axes.axhline(error[0], color="0.5", ls="--", lw=1)
    axes.annotate(
        "all kept", (0, error[0]), fontsize=8, va="bottom", color="0.35", bbox=_OVER_LINES
    )
    axes.set_xlabel("secondary points removed, lowest value first")
    axes.set_ylabel(f"proxy's mean squared error\non held-out validation rows ({label}²)")
    axes.set_title(
        f"{VALUE_NAMES[scored.method]}; band: one standard error of the difference to keeping all",
        fontsize=9,
    )
    return figure


def values_figure(scored: Scored) -> Figure:
    """Draws the sorted values with their standard errors, the selected points in colour."""
    table = scored.table.sort_values("rank")
    figure, (axes,) = new_panels(1, 6.4, 4.0)
    for taken, colour, name in ((True, COLOURS[2], "kept"), (False, COLOURS[1], "removed")):
        part = table[table["selected"] == taken]
        if len(part) == 0:
            continue
        axes.errorbar(
            part["rank"],
            part["value"],
            yerr=part["standard_error"],
            fmt=".",
            ms=4,
            lw=0.8,
            color=colour,
            label=f"{name} ({len(part)})",
        )
    axes.axhline(0, color="0.4", lw=1)
    axes.set_xlabel("rank")
    unsure = scored.method == "uncertain"
    meaning = "raw label units" if unsure else "> 0: lowers the validation error"
    axes.set_ylabel(f"{VALUE_NAMES[scored.method]} ± standard error\n({meaning})")
    axes.legend()
    return figure
