"""The molecules of a report: of each scoring those of the highest and of the lowest values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from lipo_cli.chem.drawing import draw_svg
from lipo_cli.comparison.figures import VALUE_NAMES
from lipo_cli.comparison.report_record import Material
from lipo_cli.comparison.report_verdicts import with_minus
from lipo_cli.settings import ScoringMethod

AT_EACH_END = 6
"""Molecules drawn of the highest and of the lowest values."""


@dataclass(frozen=True)
class Molecule:
    """A point of the pool as it is drawn.

    Attributes:
        svg: Its drawing; None for what RDKit cannot read.
        kept: Whether the removal curve keeps it; None where there is no such choice.
        chosen_by: The selections that take it.
    """

    svg: str | None
    smiles: str
    data_row: int
    rank: int
    value: float
    standard_error: float
    label: float
    kept: bool | None
    chosen_by: Sequence[str]


@dataclass(frozen=True)
class Scoring:
    """What a scoring method said of the pool."""

    method: ScoringMethod
    value_name: str
    sentences: Sequence[str]
    n: int
    highest: Sequence[Molecule]
    lowest: Sequence[Molecule]


def scorings_of(material: Material) -> list[Scoring]:
    """Returns each scoring with the molecules of its highest and lowest values."""
    return [_scoring(method, table, material) for method, table in material.values.items()]


def _scoring(method: ScoringMethod, table: pd.DataFrame, material: Material) -> Scoring:
    ordered = table.sort_values("rank")
    n = min(AT_EACH_END, len(ordered) // 2) or len(ordered)
    said = material.scores[method]
    sentences = [_sentence(said[name]) for name in ("optimal", "reason") if said.get(name)]
    chosen = {
        name: set(rows)
        for name, rows in material.record["chosen"].items()
        if name.partition(":")[0] == method
    }
    highest = ordered.head(n).to_dict("records")
    # Worst first, and of a pool of one nothing twice.
    lowest = ordered.tail(min(n, len(ordered) - n)).to_dict("records")[::-1]
    return Scoring(
        method=method,
        value_name=VALUE_NAMES[method],
        sentences=sentences,
        n=len(ordered),
        highest=[_molecule(point, method, chosen) for point in highest],
        lowest=[_molecule(point, method, chosen) for point in lowest],
    )


def _molecule(
    point: dict[Any, Any], method: ScoringMethod, chosen: dict[str, set[int]]
) -> Molecule:
    return Molecule(
        svg=draw_svg(str(point["smiles"])),
        smiles=str(point["smiles"]),
        data_row=int(point["row"]),
        rank=int(point["rank"]),
        value=float(point["value"]),
        standard_error=float(point["standard_error"]),
        label=float(point["label"]),
        kept=None if method == "uncertain" else bool(point["selected"]),
        chosen_by=[name for name, rows in chosen.items() if int(point["row"]) in rows],
    )


def _sentence(text: str) -> str:
    """Returns a text as a sentence of its own."""
    text = with_minus(text.strip())
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")
