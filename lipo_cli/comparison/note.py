"""A comparison in short, as Markdown: what the page of its run shows before anything else."""

from __future__ import annotations

from lipo_cli.comparison.report_verdicts import interval_text, with_minus
from lipo_cli.comparison.result import Comparison
from lipo_cli.comparison.summary import SummaryRow

_HEADER = (
    "| selection | method | chosen | val RMSE | test RMSE | vs none |",
    "|---|---|---:|---:|---:|---:|",
)
_REST = "The whole of it: `report.html` under Artifacts."


def note_of(result: Comparison, limit: int) -> str:
    """Returns the table and the verdicts, as many of them as fit.

    Args:
        result: The comparison.
        limit: Characters that the text may have.
    """
    lines = [*_HEADER, *(_row(row) for row in result.summary), ""]
    lines += [f"- {with_minus(verdict.sentence())}" for verdict in result.verdicts]
    room = limit - len(_REST) - 2
    kept: list[str] = []
    for line in lines:
        room -= len(line) + 1
        if room < 0:
            break
        kept.append(line)
    return "\n".join([*kept, "", _REST])


def _row(row: SummaryRow) -> str:
    values = [
        row.label,
        row.peft,
        "" if row.n_selected is None else f"{row.n_selected:,}",
        "failed" if row.val_rmse is None else f"{row.val_rmse:.4f}",
        "" if row.test_rmse is None else f"{row.test_rmse:.4f}",
        interval_text(row.delta_none, row.delta_low, row.delta_high, 4),
    ]
    return f"| {' | '.join(values)} |"
