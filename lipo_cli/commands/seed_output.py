"""How published tables and our reruns of them look in the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.table import Table
from rich.text import Text

from lipo_cli.commands.console import emit_json, out
from lipo_cli.comparison.costs import Costs, seconds_of
from lipo_cli.comparison.estimate import measure_rates
from lipo_cli.comparison.plan import make_plan
from lipo_cli.comparison.prepare import Prepared
from lipo_cli.comparison.seed_tables import Published, SideBySide
from lipo_cli.settings import CompareSettings, Peft, PretrainSettings


def show_tables(
    published: Published, cells: Sequence[SideBySide], differences: Sequence[str]
) -> None:
    """Prints every table, theirs and ours side by side, and what must be said with them."""
    for task, table in published.tables.items():
        own = [cell for cell in cells if cell.task == task]
        out.print(Text(table.title, style="bold"))
        out.print(_table(own))
        for cell in own:
            if cell.error is not None:
                out.print(Text(f"failed: {cell.label} / {cell.peft}: {cell.error}"), soft_wrap=True)
        out.print()
    for sentence in differences:
        out.print(Text(f"- {sentence}"), soft_wrap=True)


def _table(cells: Sequence[SideBySide]) -> Table:
    shown = Table(box=None, header_style="bold", pad_edge=False)
    shown.add_column("training data", no_wrap=True)
    shown.add_column("method", no_wrap=True)
    timed = any(cell.minutes_reference is not None for cell in cells)
    names = ["chosen, theirs", "ours", "test RMSE, theirs", "ours", "difference", "epochs"]
    for name in [*names, *(["minutes, theirs (T4)"] if timed else []), "minutes, ours"]:
        shown.add_column(name, justify="right")
    for cell in cells:
        test = "failed" if cell.error is not None else ""
        if cell.test_rmse is not None:
            spread = f" ± {cell.test_rmse_sd:.4f}" if cell.test_rmse_sd is not None else ""
            test = f"{cell.test_rmse:.4f}{spread}"
        shown.add_row(
            cell.label,
            cell.peft,
            _number(cell.chosen_reference, "d"),
            _number(cell.chosen, "d"),
            f"{cell.test_rmse_reference:.4f}",
            test,
            _number(cell.difference, "+.4f"),
            _number(cell.epochs, ".3g"),
            *([_number(cell.minutes_reference, ".0f")] if timed else []),
            _number(cell.minutes, ".1f"),
        )
    return shown


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def show_tables_plan(
    asked: Mapping[str, CompareSettings],
    published: Published,
    prepared: Prepared,
    adaptation: PretrainSettings,
    differences: Sequence[str],
    *,
    as_json: bool,
) -> None:
    """Prints the tables to come, and the time that they will take here.

    Args:
        asked: The comparisons by task.
        published: Their tables.
        prepared: The data.
        adaptation: How the adapted model is made.
        differences: What must be said with the tables.
        as_json: Print JSON.

    Raises:
        SettingsError: a selection wants more points than the pool holds.
    """
    n_pool = len(prepared.require_pool())
    plans = {}
    for task, settings in asked.items():
        make_plan(settings).check(n_pool)
        adapts = published.tables[task].compares_adapted
        plans[task] = _plan(settings, published.tables[task].title, prepared, adapts, adaptation)
    total = sum(plan.seconds + plan.seconds_adapting for plan in plans.values())
    if as_json:
        tables = {task: plan.as_dict() for task, plan in plans.items()}
        adapt = adaptation.model_dump(mode="json")
        emit_json({"tables": tables, "adapt": adapt, "seconds": total, "differences": differences})
        return
    shown: dict[str, str] = {}
    for plan in plans.values():
        out.print(Text(plan.title, style="bold"))
        values = plan.settings.flat()
        for name, value in sorted(values.items()):
            if shown.get(name) != value:
                out.print(f"  {name} = {value}", style="dim", markup=False)
        shown = values
        out.print(Text(plan.sentence()), soft_wrap=True)
        out.print()
    for sentence in differences:
        out.print(Text(f"- {sentence}"), soft_wrap=True)
    n_cells = sum(plan.n_cells for plan in plans.values())
    out.print(
        f"{n_cells} cells in {len(plans)} tables: about {total / 3600:.1f} hours here at most; "
        "cells that stop early make it shorter",
        style="bold",
    )


@dataclass(frozen=True)
class _TablePlan:
    """A table to come, with its time in seconds."""

    title: str
    settings: CompareSettings
    n_cells: int
    seconds: float
    seconds_adapting: float
    rates: dict[Peft, float]

    def sentence(self) -> str:
        minutes = f"about {self.seconds / 60:.1f} minutes"
        if self.seconds_adapting:
            minutes += f", and {self.seconds_adapting / 60:.1f} of masked-token adaptation"
        return (
            f"{self.n_cells} cells, at most {self.settings.training.epochs} epochs each: {minutes}"
        )

    def as_dict(self) -> dict[str, object]:
        return {
            "title": self.title,
            "n_cells": self.n_cells,
            "seconds": self.seconds,
            "seconds_adapting": self.seconds_adapting,
            "molecules_per_second": self.rates,
            "settings": self.settings.model_dump(mode="json"),
        }


def _plan(
    settings: CompareSettings,
    title: str,
    prepared: Prepared,
    adapts: bool,
    adaptation: PretrainSettings,
) -> _TablePlan:
    rates = measure_rates(make_plan(settings), prepared, settings.training)
    costs = Costs(prepared, settings.training, rates)
    n_pool = len(prepared.pool) if prepared.pool is not None else 0
    n_cells = make_plan(settings).n_expected(n_pool)
    n_models = 2 if adapts else 1
    molecules = len(prepared.train) + len(prepared.validation)
    # A step of masked tokens costs what a step of full fine-tuning does.
    adapting = (adaptation.epochs or 1) * molecules / rates["full"] if adapts else 0.0
    return _TablePlan(
        title=title,
        settings=settings,
        n_cells=n_models * n_cells,
        seconds=n_models * seconds_of(settings, prepared, costs)[0],
        seconds_adapting=adapting,
        rates=rates,
    )
