"""The report of a comparison as plain data: what its page says, in reading order."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import fmean
from typing import Any

from lipo_cli.comparison import report_text as text
from lipo_cli.comparison.cell_result import CellResult
from lipo_cli.comparison.report_champion import champion_facts
from lipo_cli.comparison.report_figures import Picture, pictures_of
from lipo_cli.comparison.report_molecules import Scoring, scorings_of
from lipo_cli.comparison.report_reading import how_to_read
from lipo_cli.comparison.report_record import Material
from lipo_cli.comparison.report_verdicts import (
    SelectionVerdicts,
    headline,
    interval_text,
    selection_verdicts,
)
from lipo_cli.comparison.summary import Overlap, SummaryRow
from lipo_cli.settings import Peft


@dataclass(frozen=True)
class GridCell:
    """A selection with one method in the grid.

    Attributes:
        row: Its means over seeds.
        difference: Mean difference to the control `none`, with its interval; empty for the control.
        lowest: Whether no row of this method with as many finished cells has a lower mean test
            RMSE: the easiest split, or the best seed, is no merit of a selection.
    """

    row: SummaryRow
    difference: str
    lowest: bool


@dataclass(frozen=True)
class GridRow:
    """A selection in the grid: one cell per method, None where none was planned."""

    label: str
    role: str
    cells: Sequence[GridCell | None]


@dataclass(frozen=True)
class MethodTime:
    """What a fine-tuning method costs; times in seconds per cell."""

    name: str
    n_cells: int
    mean: float
    shortest: float
    longest: float
    total: float
    parameters: int | None


@dataclass(frozen=True)
class Fact:
    """A name and what there is to say about it."""

    name: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class ReportData:
    """Everything that the page shows; numbers are in the unit of the labels.

    Attributes:
        decimals: Digits after the point that this comparison's RMSEs deserve.
        warnings: What a reader must know before the verdict.
        methods: The names of the columns of the grid.
        settings: Every setting, by group; the note says which were changed.
    """

    title: str
    made: str
    run_id: str
    label: str
    decimals: int
    question: str
    warnings: Sequence[str]
    verdicts: Sequence[SelectionVerdicts]
    headline: str
    verdict_note: str
    data: Sequence[Fact]
    audit: Mapping[str, Any] | None
    methods: Sequence[str]
    grid: Sequence[GridRow]
    summary: Sequence[GridCell]
    cells: Sequence[CellResult]
    several_models: bool
    several_splits: bool
    pictures: Sequence[Picture]
    scorings: Sequence[Scoring]
    overlaps: Sequence[Overlap]
    times: Sequence[MethodTime]
    champion: Sequence[Fact]
    failed: Sequence[CellResult]
    settings: Sequence[tuple[str, Sequence[Fact]]]
    came_to: Sequence[Fact]
    environment: Sequence[Fact]
    command: str
    reading: Sequence[Fact]


def build_report(material: Material) -> ReportData:
    """Returns the report of a comparison whose files were read."""
    record = material.record
    summary = _grid_cells(material)
    return ReportData(
        title=text.title(material),
        made=record["made"],
        run_id=material.run_id,
        label=record["label"],
        decimals=material.decimals,
        question=text.question(material),
        warnings=text.warnings_of(material),
        verdicts=selection_verdicts(material),
        headline=headline(material),
        verdict_note=text.verdict_note(material),
        data=[Fact(name, value) for name, value in text.data_facts(material)],
        audit=record["audit"],
        methods=[text.PEFT_NAMES[peft] for peft in _methods(material.summary)],
        grid=_grid(summary, _methods(material.summary)),
        summary=summary,
        cells=material.cells,
        several_models=any(row.model is not None for row in material.summary),
        several_splits=any(cell.split is not None for cell in material.cells),
        pictures=pictures_of(material),
        scorings=scorings_of(material),
        overlaps=[o for o in material.overlaps if {o.first, o.second}.isdisjoint({"all", "none"})],
        times=_times(material.cells),
        champion=[Fact(name, value) for name, value in champion_facts(material)],
        failed=[cell for cell in material.cells if cell.status == "failed"],
        settings=_settings(material),
        came_to=[Fact(name, value) for name, value in text.came_to_facts(material)],
        environment=[Fact(name, value) for name, value in record["environment"].items()],
        command=record["command"],
        reading=[Fact(name, value) for name, value in how_to_read(material)],
    )


def _methods(summary: Sequence[SummaryRow]) -> list[Peft]:
    return list(dict.fromkeys(row.peft for row in summary))


def _grid_cells(material: Material) -> list[GridCell]:
    lowest: dict[Peft, float] = {}
    most: dict[Peft, int] = {}
    for row in material.summary:
        most[row.peft] = max(row.n_seeds, most.get(row.peft, 0))
    for row in material.summary:
        if row.test_rmse is not None and row.n_seeds == most[row.peft]:
            lowest[row.peft] = min(row.test_rmse, lowest.get(row.peft, math.inf))
    digits = material.decimals
    return [
        GridCell(
            row=row,
            difference=interval_text(row.delta_none, row.delta_low, row.delta_high, digits),
            lowest=row.test_rmse is not None
            and row.n_seeds == most[row.peft]
            and row.test_rmse == lowest[row.peft],
        )
        for row in material.summary
    ]


def _grid(cells: Sequence[GridCell], methods: Sequence[Peft]) -> list[GridRow]:
    rows: dict[str, dict[Peft, GridCell]] = {}
    for cell in cells:
        rows.setdefault(cell.row.label, {})[cell.row.peft] = cell
    return [
        GridRow(
            # Where a cell failed, methods differ in their splits: the table of all rows says it.
            label=_shared({cell.row.name for cell in found.values()}) or label,
            role=next(iter(found.values())).row.role,
            cells=[found.get(peft) for peft in methods],
        )
        for label, found in rows.items()
    ]


def _shared(names: Collection[str]) -> str | None:
    return next(iter(names)) if len(names) == 1 else None


def _times(cells: Sequence[CellResult]) -> list[MethodTime]:
    times = []
    for peft in dict.fromkeys(cell.peft for cell in cells):
        own = [cell for cell in cells if cell.peft == peft and cell.seconds is not None]
        # Selections of the same points share a run: its time was spent once.
        done = [*{cell.run_id or i: cell for i, cell in enumerate(own)}.values()]
        seconds = [cell.seconds for cell in done if cell.seconds is not None]
        if seconds:
            name, total = text.PEFT_NAMES[peft], sum(seconds)
            low, high, size = min(seconds), max(seconds), done[0].trainable_parameters
            times.append(
                MethodTime(name, len(seconds), fmean(seconds), low, high, total, size),
            )
    return times


def _settings(material: Material) -> list[tuple[str, list[Fact]]]:
    changed = set(material.record["changed"])
    facts = [
        (group, Fact(name, value, "changed" if name in changed else "default"))
        for group, name, value in text.setting_lines(material.settings)
    ]
    return [
        (group, [fact for _, fact in members])
        for group, members in groupby(sorted(facts, key=lambda f: f[0]), key=lambda f: f[0])
    ]
