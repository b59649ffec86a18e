"""The curve of a pretraining run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

_TRAIN, _HELD_OUT = "#7f8fa6", "#c0392b"


def draw_curve(history: Sequence[dict[str, float]], unigram: float, file: Path) -> None:
    """Draws training and held-out loss, and held-out accuracy, over the steps.

    Args:
        history: Rows with `step`, `val_loss`, `val_accuracy` and, from the second on, `train_loss`.
        unigram: Held-out loss of predicting tokens by their frequency, in nats.
        file: The PNG to write.
    """
    figure = Figure(figsize=(9.0, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    loss, accuracy = figure.subplots(1, 2)
    steps = [row["step"] for row in history]
    seen = [row for row in history if "train_loss" in row]
    mark = "o" if len(history) <= 12 else ""
    loss.plot(
        [r["step"] for r in seen],
        [r["train_loss"] for r in seen],
        color=_TRAIN,
        marker=mark,
        markersize=3,
        label="training",
    )
    loss.plot(
        steps,
        [r["val_loss"] for r in history],
        color=_HELD_OUT,
        marker=mark,
        markersize=3,
        label="held out",
    )
    loss.axhline(unigram, color="0.5", linestyle=":", label="token frequencies alone")
    loss.set(xlabel="optimiser step", ylabel="masked-token loss (nats)", ylim=(0, None))
    loss.legend(frameon=False)
    accuracy.plot(
        steps,
        [100 * r["val_accuracy"] for r in history],
        color=_HELD_OUT,
        marker=mark,
        markersize=3,
    )
    accuracy.set(xlabel="optimiser step", ylabel="held-out tokens right (%)", ylim=(0, 100))
    for axes in (loss, accuracy):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    figure.savefig(file, dpi=150)
