"""How `lipo data` shows its results in the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from lipo_cli.commands.console import out

if TYPE_CHECKING:
    from lipo_cli.chem.audit import AuditReport
    from lipo_cli.chem.description import TableDescription
    from lipo_cli.chem.overlap import OverlapReport
    from lipo_cli.chem.splits import Split

BAR_WIDTH = 40
COLOURS = {"ok": "green", "warn": "yellow", "fail": "bold red"}


def show_overview(
    tables: Mapping[str, TableDescription], split: Split, overlap: OverlapReport | None
) -> None:
    """Prints the counts, histograms and token lengths of each table, the split and the overlap."""
    for name, table in tables.items():
        out.print(_counts(name, table))
        _print_histogram(table)
        out.print(Text(_tokens(table)), soft_wrap=True)
        out.print()
    out.print(
        Text(
            f"split {split.name}: {len(split.train):,} train, {len(split.val):,} validation,"
            f" {len(split.test):,} test (fingerprint {split.fingerprint()})"
        ),
        soft_wrap=True,
    )
    if overlap is not None:
        out.print(Text(overlap.sentence()), soft_wrap=True)


def show_audit(report: AuditReport) -> None:
    """Prints one row per finding, then what they mean, then the verdict."""
    table = Table(show_header=True, header_style="bold", expand=False)
    table.add_column("question")
    table.add_column("")
    table.add_column("answer", overflow="fold")
    for finding in report.findings:
        level = Text(finding.level, style=COLOURS[finding.level])
        table.add_row(Text(finding.name), level, Text(finding.value))
    out.print(table)
    for finding in report.findings:
        if finding.level != "ok":
            note = Text(f"{finding.name}: ", style=COLOURS[finding.level])
            out.print(note.append(finding.explanation, style="default"), soft_wrap=True)
    out.print(Text(report.verdict, style=COLOURS[report.level]), soft_wrap=True)


def _counts(name: str, table: TableDescription) -> Table:
    shown = Table(title=f"{name}: {table.path}", title_justify="left", show_header=False)
    shown.add_row("rows read", f"{table.n_rows_read:,}")
    shown.add_row("rows left out", f"{table.n_bad_rows:,}")
    merged = f"{table.n_merged_rows:,}"
    if table.n_merged_rows:
        merged += f" (labels differ by {table.largest_label_spread:.2f} at most)"
    shown.add_row("rows merged into another", merged)
    shown.add_row("molecules", f"{table.n_molecules:,}")
    shown.add_row(
        "ignoring stereochemistry",
        f"{table.n_skeletons:,} ({table.n_stereo_groups:,} groups differ by it only)",
    )
    shown.add_row(
        "labels",
        f"{table.label_mean:.3f} \N{PLUS-MINUS SIGN} {table.label_sd:.3f},"
        f" {table.label_min:.2f} to {table.label_max:.2f}",
    )
    shown.add_row("sha256", table.sha256[:16])
    return shown


def _print_histogram(table: TableDescription) -> None:
    most = max((count for _, _, count in table.histogram), default=1)
    for low, high, count in table.histogram:
        bar = "\N{FULL BLOCK}" * round(BAR_WIDTH * count / most)
        bar = bar or ("\N{LEFT ONE EIGHTH BLOCK}" if count else "")
        out.print(Text(f"{low:7.2f} to {high:6.2f} {count:6,} {bar}"), soft_wrap=True)


def _tokens(table: TableDescription) -> str:
    tokens = table.tokens
    share = tokens.n_truncated / max(table.n_molecules, 1)
    text = (
        f"tokens with <bos> and <eos>: mean {tokens.mean:.1f}, median {tokens.median:.0f},"
        f" 99 % under {tokens.p99:.0f}, longest {tokens.longest}; {tokens.distinct} distinct;"
        f" {tokens.n_truncated:,} ({share:.2%}) are cut at {tokens.max_length}"
    )
    if tokens.n_unmatched:
        text += f"; {tokens.n_unmatched:,} have characters that no token covers"
    return text
