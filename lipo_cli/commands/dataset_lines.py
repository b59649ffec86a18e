"""The first lines a user reads: which data these are, and what must be known about them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lipo_cli.commands.console import say, warn

if TYPE_CHECKING:
    from lipo_cli.comparison.prepare import Prepared


def announce(prepared: Prepared, *, primary_only: bool = False) -> bool:
    """Says on stderr which dataset is used, its split, its overlap and its audit in one line.

    Returns:
        False when the audit of the secondary set failed, True otherwise.
    """
    from lipo_cli.chem.audit import audit_secondary

    dataset, split = prepared.dataset, prepared.split
    hint = f"; {dataset.hint}" if dataset.hint else ""
    say(f"dataset {dataset.name}: {dataset.description}{hint}")
    primary = dataset.primary
    pool = None if primary_only else prepared.pool
    for table in (primary, *([pool.table] if pool is not None else [])):
        if table.bad_rows:
            first = table.bad_rows[0]
            warn(
                f"{table.path.name}: {len(table.bad_rows)} of {table.n_rows_read:,} rows skipped, "
                f"the first is line {first.line}: {first.reason}"
            )
        if table.n_merged_rows:
            say(
                f"{table.path.name}: {table.n_merged_rows} rows merged into others of the same "
                f"molecule; labels differ by up to {table.frame['label_spread'].max():.2f}"
            )
    say(
        f"split {split.name}: {len(split.train):,} train, {len(split.val):,} validation, "
        f"{len(split.test):,} test"
    )
    if pool is None:
        return True
    say(pool.overlap.sentence())
    if pool.table.label_column != primary.label_column:
        say(
            f"labels: column {primary.label_column} of {primary.path.name}, "
            f"column {pool.table.label_column} of {pool.table.path.name}"
        )
    report = audit_secondary(pool.table, primary, split)
    (say if report.level == "ok" else warn)(report.one_line)
    return report.level != "fail"
