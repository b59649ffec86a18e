"""What a comparison prints: the plan before it, the tables and sentences after it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Literal

from rich.console import Console
from rich.table import Table

from lipo_cli.commands.console import emit_json, out, say, warn
from lipo_cli.commands.dataset_lines import tell_unread
from lipo_cli.comparison.budget import Budgeted
from lipo_cli.comparison.cell_result import CellResult
from lipo_cli.comparison.constant import constant_line, hardly_beaten, warning_line
from lipo_cli.comparison.costs import Costs, seconds_of
from lipo_cli.comparison.digits import decimals, difference_text
from lipo_cli.comparison.estimate import measure_rates
from lipo_cli.comparison.plan import cell_name, make_plan
from lipo_cli.comparison.prepare import Prepared
from lipo_cli.comparison.report_reading import FEWER_VIEWS, MORE_STEPS
from lipo_cli.comparison.result import Comparison
from lipo_cli.comparison.summary import SummaryRow, seeds_text
from lipo_cli.comparison.tuning_methods import tuned_cells, tuning_seconds
from lipo_cli.comparison.verdict import family_size
from lipo_cli.settings import CompareSettings, TrainingSettings

_ANY_WIDTH = 10_000


def show_plan(
    settings: CompareSettings,
    prepared: Prepared,
    budgeted: Budgeted | None = None,
    *,
    as_json: bool,
) -> None:
    """Prints the settings, then the cells to come, and last the time they will take here.

    Raises:
        SettingsError: a selection wants more points than the pool holds.
    """
    plan = make_plan(settings)
    n_pool = len(prepared.require_pool()) if plan.needs_pool else 0
    plan.check(n_pool)
    if budgeted is not None:
        costs = budgeted.costs
    else:
        rates = measure_rates(plan, prepared, settings.training)
        costs = Costs(prepared, settings.training, rates)
    rates = dict(costs.rates)
    n_cells = plan.n_expected(n_pool) * settings.splits
    n_tuned = len(tuned_cells(plan, settings)) * settings.splits
    trials = tuning_seconds(plan, settings, prepared, rates)
    trained, _ = seconds_of(settings, prepared, costs)
    seconds = (trained + trials) * settings.splits
    if as_json:
        cells = [
            {"selection": c.choice.name, "peft": c.peft, "seed": c.seed, "model": c.model}
            for c in plan.cells()
        ]
        emit_json(
            {
                "plan": cells,
                "n_cells": n_cells,
                "n_trials": n_tuned * (settings.tuning.trials or 0),
                "seconds": seconds,
                "molecules_per_second": rates,
                "settings": settings.model_dump(mode="json"),
                **({} if budgeted is None else {"budget": budgeted.as_dict()}),
            }
        )
        return
    for name, value in sorted(settings.flat().items()):
        out.print(f"  {name} = {value}", style="dim", markup=False)
    out.print()
    if settings.splits > 1:
        first = settings.data.split_seed
        out.print(f"on {settings.splits} splits, of seeds {first} to {first + settings.splits - 1}")
    table = Table("selection", "role", "methods", "seeds", box=None, header_style="bold")
    for choice in plan.choices:
        seeds = ", ".join(str(seed) for seed in plan.seeds)
        table.add_row(
            choice.name, choice.role, ", ".join(plan.peft), f"{len(plan.seeds)} ({seeds})"
        )
    if plan.with_random and plan.needs_scores:
        table.add_row("random, as many as chosen", "control", ", ".join(plan.peft), "")
    out.print(table)
    each = ", ".join(f"{name} {rate:.0f}/s" for name, rate in rates.items())
    added = f", and {settings.tuning.trials} trials for each of {n_tuned}" if n_tuned else ""
    out.print(
        f"{n_cells} cells on a pool of {n_pool}{added}, {settings.training.epochs} "
        f"epochs each: about {seconds / 60:.1f} minutes here (training molecules {each})",
        style="bold",
    )


def tell_notes(result: Comparison, settings: CompareSettings) -> None:
    """Says beside machine-readable output what a reader of the tables is told about them."""
    _tell_constant(result)
    _tell_failed(result.cells)
    _tell_training(result.cells, settings.training)


def show_result(result: Comparison, settings: CompareSettings) -> None:
    """Prints the summary, the verdicts, the overlaps and the champion."""
    print_whole(lambda left_out: _summary_table(result.summary, left_out), _LEFT_OUT_FIRST)
    _tell_constant(result)
    for tuned in result.tunings.found.values():
        out.print(tuned.sentence(), markup=False, soft_wrap=True)
    _tell_failed(result.cells)
    _show_verdicts(result, settings)
    _tell_training(result.cells, settings.training)
    for overlap in result.overlaps:
        if {overlap.first, overlap.second}.isdisjoint({"all", "none"}):
            out.print(
                f"{overlap.first} and {overlap.second} share {overlap.jaccard:.0%} of their points "
                "(Jaccard)",
                markup=False,
            )
    if result.champion is not None:
        champion = result.champion
        state = "is now" if champion["replaced"] else "stays"
        is_best = result.best is not None and result.best.run_id == champion["run_id"]
        several = is_best and len({cell.seed for cell in result.cells}) > 1
        why = ": of the row with the lowest mean validation RMSE its best seed" if several else ""
        of_cell = [
            f" ({cell_name(cell.label, cell.peft, cell.seed, cell.split)}{why})"
            for cell in result.cells
            if cell.run_id == champion["run_id"]
        ]
        out.print(
            f"models:/{champion['model']}@champion {state} version {champion['version']}"
            f"{''.join(of_cell[:1])}: {champion['reason']}",
            markup=False,
            soft_wrap=True,
        )


_LEFT_OUT_FIRST = ("parameters", "seconds", "train", "chosen")
"""Columns that a narrow terminal does without."""


def print_whole(make: Callable[[Collection[str]], Table], droppable: Sequence[str]) -> None:
    """Prints a table of which no number is cut: rather without some columns, rather wrapped.

    Args:
        make: Returns the table without the columns of these names.
        droppable: Columns that a narrow terminal does without, the first one first.
    """
    for n in range(len(droppable) + 1):
        table = make(droppable[:n])
        needed = out.measure(table, options=out.options.update(max_width=_ANY_WIDTH)).maximum
        if needed <= out.width:
            break
    if needed > out.width:  # a console cuts what is wider than it, a terminal wraps it
        Console(file=out.file, width=needed, highlight=False).print(table)
    else:
        out.print(table)


def _summary_table(summary: Sequence[SummaryRow], left_out: Collection[str] = ()) -> Table:
    several = any(row.model is not None for row in summary)
    digits = decimals(row.test_rmse for row in summary) + 1
    columns: dict[str, Callable[[SummaryRow], str]] = {
        "selection": lambda row: row.name,
        "method": lambda row: row.peft,
        "chosen": lambda row: row.chosen,
        "train": lambda row: row.trained,
        "parameters": lambda row: _whole(row.trainable_parameters),
        "seconds": lambda row: f"{row.seconds:.0f}" if row.seconds is not None else "",
        "val RMSE": lambda row: "failed" if row.val_rmse is None else f"{row.val_rmse:.{digits}f}",
        "test RMSE": lambda row: _spread(row, digits),
        "vs none": lambda row: difference_text(
            row.delta_none, row.delta_low, row.delta_high, digits
        ),
        "vs random": lambda row: difference_text(row.delta_random, None, None, digits),
    }
    if several:
        columns["vs first model"] = lambda row: difference_text(
            row.delta_model, row.delta_model_low, row.delta_model_high, digits
        )
    shown = {name: text for name, text in columns.items() if name not in left_out}
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in shown:
        justify: Literal["left", "right"] = "left" if name in ("selection", "method") else "right"
        table.add_column(name, justify=justify, no_wrap=True)
    for row in summary:
        table.add_row(*(text(row) for text in shown.values()))
    return table


def _tell_failed(cells: Sequence[CellResult]) -> None:
    for cell in cells:
        if cell.status == "failed":
            name = cell_name(cell.label, cell.peft, cell.seed, cell.split)
            say(f"failed: {name}: {cell.error}")


def _tell_constant(result: Comparison) -> None:
    """Says how far off the mean label is, and warns where no cell is much better."""
    if not result.constants or all(cell.val_rmse is None for cell in result.cells):
        return
    if little := hardly_beaten(result.constants, result.cells):
        warn(f"{warning_line(little, len(result.constants))}: give --epochs more")
    else:
        say(constant_line(result.constants))


def _tell_training(cells: Sequence[CellResult], training: TrainingSettings) -> None:
    """Says what the cells' training leaves open: too few epochs, rows seldom seen, tokens cut."""
    done = [cell for cell in cells if cell.status == "finished"]
    late = sum(cell.best_epoch == len(cell.history) for cell in done)
    added = any(cell.n_selected for cell in done)
    if late and training.epochs > 1:
        more = FEWER_VIEWS if training.equal_steps else MORE_STEPS
        say(
            f"{late} of {len(done)} cells were best in their last epoch, still falling"
            f"{f'; {more}' if added else ''}: give --epochs more"
        )
    if training.equal_steps:
        _tell_views(done, training.epochs)
    elif added:
        say("epochs of all rows: a cell with more of them takes more steps, which speaks for it")
    cut = max((cell.n_truncated or 0 for cell in cells), default=0)
    unknown = max((cell.n_unknown or 0 for cell in cells), default=0)
    tell_unread("training and validation", cut, unknown, training.max_length)


def _tell_views(cells: Sequence[CellResult], epochs: int) -> None:
    """Says what equal steps mean for the cells with the most rows, and warns of rows not seen."""
    most = max(cells, key=lambda cell: cell.n_train or 0, default=None)
    if most is None or most.n_train is None or not most.n_selected:
        return
    size = most.n_train - most.n_selected
    views = epochs * size / most.n_train
    say(
        f"equal steps: epochs of {size:,} rows; {most.label} sees each of its {most.n_train:,} "
        f"{views:.1f} times, the control none {epochs} times"
    )
    if views < 1:
        warn(
            f"{1 - views:.0%} of the rows of {most.label} were never seen: give --epochs more, or "
            "--no-equal-steps"
        )


def _show_verdicts(result: Comparison, settings: CompareSettings) -> None:
    """Prints a sentence per verdict, and what its interval covers."""
    if settings.seeds == 1 and settings.splits == 1:
        say(
            "one seed: differences of some per cent of the RMSE are within the noise of "
            "retraining; --seeds 3 gives intervals"
        )
        return
    for verdict in result.verdicts:
        out.print(verdict.sentence(), markup=False, highlight=False, soft_wrap=True)
    tested = family_size(result.verdicts)
    if not tested:
        return
    tests = "test" if tested == 1 else "tests"
    n_splits = max(verdict.of_splits for verdict in result.verdicts)
    if n_splits > 1:
        covers = (
            f"over {n_splits} splits, whose training rows overlap (Nadeau and Bengio), where the "
            "table's ± is the spread over splits and seeds"
        )
    else:
        covers = (
            f"over {seeds_text(result.summary)} training seeds and the test molecules, on one "
            "split and one scoring: another split may differ by more"
        )
        if len(settings.models) < 2:
            covers += "; the noise of seeds is pooled over a method's selections, so that others "
            covers += "beside them move the intervals"
    say(f"95 % intervals {covers}; Holm's correction over {tested} distinct {tests}")


def _whole(value: int | None) -> str:
    return f"{value:,}" if value is not None else ""


def _spread(row: SummaryRow, digits: int) -> str:
    if row.test_rmse is None:
        return ""
    spread = f" ± {row.test_rmse_sd:.{digits}f}" if row.test_rmse_sd else ""
    return f"{row.test_rmse:.{digits}f}{spread}"
