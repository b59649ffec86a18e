"""What a user must know about the data: which they are, and what of them the model cannot see."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lipo_cli.commands.console import say, warn

if TYPE_CHECKING:
    from lipo_cli.chem.audit import AuditReport
    from lipo_cli.chem.datasets import Dataset
    from lipo_cli.comparison.prepare import Prepared

_NAMED = 5
"""How many bad rows are named."""


def what_it_is(dataset: Dataset) -> str:
    """Says in a line which dataset is used, and how to get another."""
    hint = f"; {dataset.hint}" if dataset.hint else ""
    return f"dataset {dataset.name}: {dataset.description}{hint}"


def announce(prepared: Prepared, *, primary_only: bool = False) -> AuditReport | None:
    """Says on stderr which dataset is used, its split, its overlap and its audit in one line.

    Returns:
        The audit of the secondary set; None where there is nothing to audit.
    """
    from lipo_cli.chem.audit import audit_secondary

    dataset, split = prepared.dataset, prepared.split
    say(what_it_is(dataset))
    primary = dataset.primary
    pool = None if primary_only else prepared.pool
    for table in (primary, *([pool.table] if pool is not None else [])):
        if table.bad_rows:
            warn(f"{table.path.name}: {len(table.bad_rows)} of {table.n_rows_read:,} rows skipped")
            tell_rows(table.path, [(bad.line, bad.reason) for bad in table.bad_rows])
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
        return None
    say(pool.overlap.sentence())
    if pool.table.label_column != primary.label_column:
        say(
            f"labels: column {primary.label_column} of {primary.path.name}, "
            f"column {pool.table.label_column} of {pool.table.path.name}"
        )
    if len(pool.table) < 2:
        return None  # a single chosen molecule has nothing to be audited by
    report = audit_secondary(pool.table, primary, split)
    (say if report.level == "ok" else warn)(report.one_line)
    return report


def tell_rows(path: Path, rows: Sequence[tuple[int, str]], total: int | None = None) -> None:
    """Names the first of the rows that were left out, and says how many more there are.

    Args:
        path: Their file.
        rows: Lines and reasons; of very many the first.
        total: How many there are; None: those given.
    """
    for line, reason in rows[:_NAMED]:
        say(f"  {path}:{line}: {reason}")
    n = len(rows) if total is None else total
    if n > _NAMED:
        say(f"  and {n - _NAMED:,} more")


def tell_unread(
    which: str, n_truncated: int | None, n_unknown: int | None, max_length: int
) -> None:
    """Says on stderr how many molecules the model did not see whole, if there are any.

    Args:
        which: The molecules that were counted, such as "secondary".
        n_truncated: How many of them were cut; None where it was not counted.
        n_unknown: How many hold a token that the tokenizer does not know.
        max_length: The longest sequence that the model reads, in tokens.
    """
    if n_truncated or n_unknown:
        say(
            f"of the {which} molecules {n_truncated or 0} were cut at {max_length} tokens, "
            f"{n_unknown or 0} hold tokens the model does not know"
        )
