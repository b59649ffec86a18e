"""The pictures of published tables beside our reruns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from lipo_cli.comparison.figures import COLOURS, STYLE, new_panels, save
from lipo_cli.comparison.seed_tables import SideBySide

_THEIRS, _OURS = COLOURS[1], COLOURS[2]


def draw_tables(cells: Sequence[SideBySide], folder: Path, label: str) -> list[Path]:
    """Draws test RMSE and training time, theirs beside ours, as far as there are numbers.

    Args:
        cells: The paired cells.
        folder: Where the PNG files go.
        label: The property and its unit, for axes.

    Returns:
        The files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    drawn: list[tuple[str, Figure]] = []
    with mpl.rc_context(STYLE):
        if any(cell.test_rmse is not None for cell in cells):
            drawn.append(("test_rmse_beside_reference", rmse_beside(cells, label)))
        timed = [cell for cell in cells if cell.minutes_reference is not None]
        if any(cell.minutes is not None for cell in timed):
            drawn.append(("training_time_beside_reference", time_beside(timed)))
        return save(drawn, folder)


def rmse_beside(cells: Sequence[SideBySide], label: str) -> Figure:
    """Draws a pair of dots per cell, joined: test RMSE there and here; a bar is our deviation."""
    names = [f"{cell.task}: {cell.label} / {cell.peft}" for cell in cells]
    figure, (axes,) = new_panels(1, 8.0, 1.2 + 0.32 * len(cells))
    for place, cell in enumerate(cells):
        axes.plot(cell.test_rmse_reference, place, "D", color=_THEIRS, zorder=3)
        if cell.test_rmse is None:
            continue
        axes.plot([cell.test_rmse_reference, cell.test_rmse], [place] * 2, color="0.7", zorder=1)
        axes.errorbar(cell.test_rmse, place, xerr=cell.test_rmse_sd, fmt="o", color=_OURS, zorder=3)
    _key(axes)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlabel(f"test RMSE ({label})")
    return figure


def time_beside(cells: Sequence[SideBySide]) -> Figure:
    """Draws two bars per method: minutes of training there (one T4) and here."""
    figure, (axes,) = new_panels(1, 6.4, 1.4 + 0.6 * len(cells))
    places = np.arange(len(cells))
    theirs = [cell.minutes_reference or 0.0 for cell in cells]
    ours = [math.nan if cell.minutes is None else cell.minutes for cell in cells]
    for offset, minutes, colour in ((-0.2, theirs, _THEIRS), (0.2, ours, _OURS)):
        bars = axes.barh(places + offset, minutes, height=0.36, color=colour)
        named = [f"{each:.1f}" if math.isfinite(each) else "not trained" for each in minutes]
        axes.bar_label(bars, named, padding=3, fontsize=8)
    axes.set_yticks(places, [cell.peft for cell in cells])
    axes.invert_yaxis()
    axes.margins(x=0.12)
    _key(axes)
    axes.set_xlabel(
        f"minutes of training, {cells[0].label}: theirs on one T4, ours on this machine"
    )
    return figure


def _key(axes: mpl.axes.Axes) -> None:
    """Names the two colours."""
    axes.plot([], [], "s", color=_THEIRS, label="reference")
    axes.plot([], [], "s", color=_OURS, label="lipo")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
