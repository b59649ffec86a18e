"""A comparison in short, as Markdown: what the page of its run shows before anything else."""

from __future__ import annotations

from lipo_cli.comparison.digits import decimals
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
    digits = decimals(row.test_rmse for row in result.summary) + 1
    lines = [*_HEADER, *(_row(row, digits) for row in result.summary), ""]
    if result.left_out:
        lines += [f"A time budget left out: {'; '.join(result.left_out)}.", ""]
    lines += [f"- {with_minus(verdict.sentence())}" for verdict in result.verdicts]
    room = limit - len(_REST) - 2
    kept: list[str] = []
    for line in lines:
        room -= len(line) + 1
        if room < 0:
            break
        kept.append(line)
    return "\n".join([*kept, "", _REST])


def _row(row: SummaryRow, digits: int) -> str:
    values = [
        row.name,
        row.peft,
        row.chosen,
        "failed" if row.val_rmse is None else f"{row.val_rmse:.{digits}f}",
        "" if row.test_rmse is None else f"{row.test_rmse:.{digits}f}",
        interval_text(row.delta_none, row.delta_low, row.delta_high, digits),
    ]
    return f"| {' | '.join(values)} |"
