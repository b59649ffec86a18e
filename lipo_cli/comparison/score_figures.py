"""The pictures of a scoring: values, what they go with, and the molecules at either end."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from scipy.stats import spearmanr

from lipo_cli.chem.drawing import draw_grid
from lipo_cli.comparison.figures import (
    COLOURS,
    STYLE,
    VALUE_NAMES,
    new_panels,
    plain_log,
    removal_figure,
    save,
    values_figure,
)
from lipo_cli.comparison.scoring import Scored

SCORE_FIGURES = ("values", "removal_curve", "diagnostics", "residuals", "molecules")
"""Those that a scoring may have, in reading order; only a series of products has residuals."""
_AT_EACH_END = 8


def draw_scores(scored: Scored, folder: Path, label: str) -> list[Path]:
    """Draws what a scoring has data for.

    Args:
        scored: Values that were computed now, with what is known of their points.
        folder: Where the PNG files go.
        label: The property and its unit, for axes, such as "logD".

    Returns:
        The files, in reading order.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(STYLE):
        drawn = [
            ("values", values_figure(scored)),
            ("removal_curve", removal_figure(scored, label)),
            ("diagnostics", diagnostics(scored, label)),
        ]
        if len(scored.residuals) > 2:
            drawn.append(("residuals", residual_figure(scored)))
        paths = save(drawn, folder)
    molecules = folder / "molecules.png"
    molecules.write_bytes(extremes(scored))
    return [*paths, molecules]


def diagnostics(scored: Scored, label: str) -> Figure:
    """Draws the values' distribution, and the values against model error and similarity."""
    values = scored.table["value"].to_numpy()
    figure, (first, second, third) = new_panels(3, 4.2, 3.8)
    wide = np.ptp(values) > 1e-9 * np.abs(values).max()  # else there is no room for bins
    bins = min(40, max(10, len(values) // 8)) if wide else 1
    first.hist(values if wide else np.full_like(values, values[0]), bins=bins, color=COLOURS[2])
    first.axvline(0, color="0.4", lw=1)
    first.set_xlabel(VALUE_NAMES[scored.method])
    first.set_ylabel("secondary points")
    error = float(np.median(scored.table["standard_error"]))
    first.set_title(f"median standard error {error:.2g}", fontsize=9)
    for axes, name, text in (
        (second, "model_error", f"|prediction - label| of the model ({label})"),
        (third, "similarity", "highest Tanimoto similarity to train"),
    ):
        known = scored.points[name].notna().to_numpy()
        x, y = scored.points[name].to_numpy()[known], values[known]
        axes.plot(x, y, ".", ms=4, alpha=0.6, color=COLOURS[2])
        axes.axhline(0, color="0.4", lw=1)
        axes.set_xlabel(text)
        if np.ptp(x) > 0 and np.ptp(y) > 0:
            of_some = "" if known.all() else f" ({known.sum():,} of {len(known):,} points)"
            axes.set_title(f"Spearman {spearmanr(x, y).statistic:+.2f}{of_some}", fontsize=9)
    second.set_ylabel(VALUE_NAMES[scored.method])
    return figure


def residual_figure(scored: Scored) -> Figure:
    """Draws the residual of the system that was solved, product by product."""
    figure, (axes,) = new_panels(1, 6.4, 3.8)
    axes.semilogy(np.arange(len(scored.residuals)), scored.residuals, color=COLOURS[2])
    plain_log(axes.yaxis)
    axes.set_xlabel("products with the curvature")
    axes.set_ylabel("relative residual")
    return figure


def extremes(scored: Scored) -> bytes:
    """Draws the molecules of the highest and of the lowest values, as a PNG file."""
    table = scored.table.sort_values("rank")
    n = min(_AT_EACH_END, len(table) // 2) or len(table)
    ends = [*table.head(n).itertuples(), *table.tail(n).itertuples()]
    legends = [
        f"rank {point.rank}: {f'{point.value:+#.2g}'.rstrip('.')}, label {point.label:.2f}"
        for point in ends
    ]
    return draw_grid([str(point.smiles) for point in ends], legends)
