"""The value tables that a selection reads: one, or one of each method for the same points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lipo_cli.commands.select_source import Origin, origin_of
from lipo_cli.errors import DataError, SettingsError
from lipo_cli.valuation.selection import LEAKING

if TYPE_CHECKING:
    import pandas as pd

    from lipo_cli.valuation.selection import PointScores, Selection


@dataclass(frozen=True)
class Valued:
    """One value table, where it lies, and what gave its values."""

    path: Path
    table: pd.DataFrame
    origin: Origin

    @property
    def method(self) -> str:
        """Names the table for people."""
        return self.origin.method or str(self.path)

    @property
    def leaks(self) -> bool:
        """Whether the target of the values was the test split."""
        reasons = self.table["reason"].astype(str)
        return self.origin.leaks or bool(reasons.str.startswith(LEAKING).any())

    def scores(self, *, with_curve: bool = True) -> PointScores:
        """Returns what a selection reads.

        Args:
            with_curve: Whether it reads the peak of the removal curve, where one lies beside the
                values.

        Raises:
            DataError: the curve is damaged, or that of another pool.
        """
        from lipo_cli.valuation.removal import peak_of
        from lipo_cli.valuation.selection import PointScores
        from lipo_cli.valuation.table import read_curve

        folder = self.path if self.path.is_dir() else self.path.parent
        curve, peak = folder / "removal_curve.csv", None
        if with_curve and curve.is_file():
            peak = peak_of(read_curve(curve, len(self.table)))
        return PointScores(
            self.table["value"].to_numpy(),
            self.table["standard_error"].to_numpy(),
            peak,
            self.table["smiles"].tolist(),
        )


def read_tables(paths: Sequence[Path]) -> list[Valued]:
    """Reads value tables; several must be of different methods and of the same points.

    Raises:
        DataError: a table cannot be read, or holds other points than the first.
        SettingsError: two are of one method, or of one it is not written down which.
    """
    from lipo_cli.valuation.table import read_chosen_on, read_values

    tables = []
    for path in paths:
        table, origin = read_values(path), origin_of(path)
        if origin.scope is None:  # rows chosen once may be chosen from again
            origin = replace(origin, scope=read_chosen_on(path))
        tables.append(Valued(path, table, origin))
    first, known = tables[0], set[str]()
    for each in tables if len(tables) > 1 else ():
        if each.origin.method is None:
            raise SettingsError(
                "nothing says which method gave these values",
                where=str(each.path),
                hint="several tables must be the folders that lipo score --out wrote",
            )
        if each.method in known:
            raise SettingsError(f"a second table of '{each.method}'", where=str(each.path))
        known.add(each.method)
        points = ["row", "smiles", "label"]
        if not each.table[points].equals(first.table[points]):
            raise DataError(f"holds other points than {first.path}", where=each.path)
        if each.origin.scope != first.origin.scope:
            raise DataError(
                f"was scored on another primary set or split than {first.path}", where=each.path
            )
    return tables


def table_for(text: str, rule: Selection, tables: Sequence[Valued]) -> Valued:
    """Returns the table whose values a selection reads; the first where it reads none.

    Raises:
        SettingsError: no table is of its method.
    """
    if not rule.needs_scores or (len(tables) == 1 and tables[0].origin.method is None):
        return tables[0]
    for each in tables:
        if each.method == rule.method:
            return each
    there = " and ".join(f"'{each.method}'" for each in tables)
    own = tables[0].method
    write = str(rule).replace(rule.method, own, 1)
    if own == "uncertain" and rule.rule in ("optimal", "positive"):
        write = "uncertain:top=K"  # a spread is no value
    raise SettingsError(
        f"these values are of the method {there}",
        where=f"--selection {text}",
        hint=f"write {write}, or score with {rule.method}",
    )


def rank_correlations(tables: Sequence[Valued]) -> list[dict[str, Any]]:
    """Returns Spearman's rank correlation of the values of every two tables, None of equal ones."""
    from lipo_cli.errors import ValuationError
    from lipo_cli.valuation.agreement import spearman

    found = []
    for a, b in combinations(tables, 2):
        try:
            rank: float | None = spearman(a.table["value"], b.table["value"])
        except ValuationError:
            rank = None
        found.append({"first": a.method, "second": b.method, "spearman": rank})
    return found
