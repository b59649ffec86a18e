"""The pictures of a tuning, as PNG files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from lipo_cli.comparison.figures import COLOURS, STYLE, new_panels, plain_log, save
from lipo_cli.comparison.tuning_result import Tuned
from lipo_cli.comparison.tuning_space import NAMES

_COMPLETE, _PRUNED, _BEST = COLOURS[2], COLOURS[3], COLOURS[1]


def draw_tuning(tuned: Tuned, folder: Path, label: str, ending: str = "") -> list[Path]:
    """Draws what a tuning has data for.

    Importance is drawn only where there were trials enough to say something of it.

    Args:
        tuned: A tuning that is over.
        folder: Where the PNG files go.
        label: The property and its unit, for axes, such as "logD".
        ending: What tells the files of several tunings apart, such as "_lora".

    Returns:
        The files, in reading order.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(STYLE):
        drawn = [
            (f"tuning_history{ending}", history_figure(tuned, label)),
            (f"tuning_parameters{ending}", parameters_figure(tuned, label)),
        ]
        if tuned.importance:
            drawn.append((f"tuning_importance{ending}", importance_figure(tuned)))
        return save(drawn, folder)


def history_figure(tuned: Tuned, label: str) -> Figure:
    """Draws the validation RMSE of each trial and the best so far, against the first trial."""
    figure, (axes,) = new_panels(1, 6.4, 4.0)
    _points(axes, tuned, [t.ordinal + 1 for t in tuned.trials])
    best, so_far = np.inf, []
    for trial in tuned.trials:
        if trial.state == "complete" and trial.val_rmse is not None:
            best = min(best, trial.val_rmse)
        so_far.append(best if np.isfinite(best) else np.nan)
    axes.step(
        [t.ordinal + 1 for t in tuned.trials],
        so_far,
        where="post",
        color=_BEST,
        label="best so far",
    )
    if tuned.first.val_rmse is not None:
        axes.axhline(tuned.first.val_rmse, color="0.4", ls="--", lw=1, label="first trial")
    axes.set_xlabel("trial")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylabel(f"validation RMSE ({label})")
    axes.set_title(f"tuning {_name(tuned)}, {len(tuned.trials)} trials", fontsize=10)
    axes.legend(fontsize=8)
    return figure


def parameters_figure(tuned: Tuned, label: str) -> Figure:
    """Draws validation RMSE against each parameter, a panel each."""
    names = list(tuned.first.parameters)
    figure, panels = new_panels(len(names), max(3.6, 6.4 / len(names)), 3.8, sharey=True)
    for axes, name in zip(panels, names, strict=True):
        values = [t.parameters[name] for t in tuned.trials]
        if min(values) > 0 and max(values) > 5 * min(values):
            axes.set_xscale("log")
            plain_log(axes.xaxis)
            if min(values) >= 1:  # ranks and alphas read better as plain numbers
                ticks = [2**i for i in range(16) if min(values) / 2 < 2**i < 2 * max(values)]
                axes.set_xticks(ticks, [str(tick) for tick in ticks])
                axes.xaxis.set_minor_locator(NullLocator())
        _points(axes, tuned, values)
        best, lowest = tuned.best, tuned.best.val_rmse
        assert lowest is not None
        ring: dict[str, Any] = {"ms": 11, "mfc": "none", "mec": _BEST, "mew": 1.8}
        axes.plot([best.parameters[name]], [lowest], "o", label="best", **ring)
        axes.set_xlabel(NAMES[name])
    panels[0].set_ylabel(f"validation RMSE ({label})")
    panels[0].legend(fontsize=8)
    figure.suptitle(f"tuning {_name(tuned)}", fontsize=10)
    return figure


def importance_figure(tuned: Tuned) -> Figure:
    """Draws the share of each parameter in what makes a trial good."""
    shares = sorted(tuned.importance.items(), key=lambda item: item[1])
    figure, (axes,) = new_panels(1, 6.0, 1.3 + 0.45 * len(shares))
    axes.barh([NAMES[name] for name, _ in shares], [s for _, s in shares], color=_COMPLETE)
    for place, (_, share) in enumerate(shares):
        axes.annotate(f" {share:.0%}", (share, place), va="center", fontsize=9)
    axes.set_xlim(0, 1.12)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("share of importance (PED-ANOVA)")
    n = tuned.count("complete")
    axes.set_title(f"tuning {_name(tuned)}: {n} complete trials", fontsize=10)
    return figure


def _name(tuned: Tuned) -> str:
    return tuned.cell.peft if tuned.cell.model is None else f"{tuned.cell.peft} {tuned.cell.label}"


def _points(axes: Axes, tuned: Tuned, places: Sequence[float]) -> None:
    """Draws every trial: complete, pruned (at its last epoch), diverged (at the upper edge)."""
    kinds = (("complete", "o", _COMPLETE), ("pruned", "x", _PRUNED))
    for state, marker, colour in kinds:
        chosen = [
            (place, trial.val_rmse)
            for place, trial in zip(places, tuned.trials, strict=True)
            if trial.state == state and trial.val_rmse is not None
        ]
        if chosen:
            axes.plot(*zip(*chosen, strict=True), marker, color=colour, ms=5, label=state)
    lost = [p for p, t in zip(places, tuned.trials, strict=True) if t.state == "diverged"]
    if lost:
        at_edge = axes.get_xaxis_transform()
        axes.plot(lost, [0.98] * len(lost), "v", color=COLOURS[0], ms=5, transform=at_edge,
                  label="diverged")  # fmt: skip
