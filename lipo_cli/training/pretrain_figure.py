"""The curve of a pretraining run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

_OBJECTIVES = (
    (
        "train_loss",
        "val_loss",
        "val_accuracy",
        "masked-token loss (nats)",
        "held-out tokens right (share)",
    ),
    (
        "train_descriptor_loss",
        "val_descriptor_loss",
        "val_descriptor_r2",
        "descriptor loss (smooth L1)",
        "held-out descriptors (mean R2)",
    ),
)
_TRAIN, _HELD_OUT = "#7f8fa6", "#c0392b"


def draw_curve(history: Sequence[dict[str, float]], unigram: float | None, file: Path) -> None:
    """Draws losses and held-out scores over the steps, a row of panels for each objective.

    Args:
        history: Rows with `step` and the columns of what was asked.
        unigram: Held-out loss of predicting tokens by their frequency, in nats.
        file: The PNG to write.
    """
    asked = [c for c in _OBJECTIVES if any(c[1] in row for row in history)]
    figure = Figure(figsize=(9.0, 3.4 * len(asked)), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(asked), 2, squeeze=False)
    for (loss, score), (train, held_out, kept, loss_label, score_label) in zip(
        grid, asked, strict=True
    ):
        _line(loss, history, train, _TRAIN, "training")
        _line(loss, history, held_out, _HELD_OUT, "held out")
        if held_out == "val_loss" and unigram is not None:
            loss.axhline(unigram, color="0.5", linestyle=":", label="token frequencies alone")
        loss.set(xlabel="optimiser step", ylabel=loss_label, ylim=(0, None))
        loss.legend(frameon=False)
        _line(score, history, kept, _HELD_OUT, "held out")
        low = min([0.0, *(row[kept] for row in history if kept in row)])
        score.set(xlabel="optimiser step", ylabel=score_label, ylim=(max(low, -1.0), 1))
        for axes in (loss, score):
            axes.spines[["top", "right"]].set_visible(False)
            axes.grid(alpha=0.25)
    figure.savefig(file, dpi=150)


def _line(
    axes: Axes, history: Sequence[dict[str, float]], column: str, color: str, label: str
) -> None:
    points = [(row["step"], row[column]) for row in history if column in row]
    mark = "o" if len(history) <= 12 else ""
    if points:
        steps, values = zip(*points, strict=True)
        axes.plot(steps, values, color=color, marker=mark, markersize=3, label=label)
