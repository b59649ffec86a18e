"""What a comparison leaves behind: the tables on stdout, and the folder of its result."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from lipo_cli.commands.console import emit_json, json_ready, out, say, warn
from lipo_cli.commands.dataset_lines import tell_unread
from lipo_cli.commands.select_source import write_source
from lipo_cli.comparison.budget import Budgeted
from lipo_cli.comparison.cell_result import CellResult
from lipo_cli.comparison.estimate import estimate
from lipo_cli.comparison.figures import draw_all
from lipo_cli.comparison.plan import cell_name, make_plan
from lipo_cli.comparison.prepare import Prepared
from lipo_cli.comparison.report_reading import FEWER_VIEWS, MORE_STEPS
from lipo_cli.comparison.result import Comparison, cells_table
from lipo_cli.comparison.summary import SummaryRow
from lipo_cli.comparison.tuning_figures import draw_tuning
from lipo_cli.comparison.tuning_methods import tuned_cells, tuning_seconds
from lipo_cli.settings import CompareSettings
from lipo_cli.valuation.table import write_values


def as_dict(result: Comparison) -> dict[str, Any]:
    """Returns the comparison as JSON: dataset, cells, summary, overlaps, champion."""
    prepared = result.prepared
    pool = prepared.pool
    return {
        "dataset": {
            "name": prepared.dataset.name,
            "description": prepared.dataset.description,
            "sha256": prepared.dataset.primary.sha256,
            "split": prepared.split.name,
            "n_train": len(prepared.split.train),
            "n_val": len(prepared.split.val),
            "n_test": len(prepared.split.test),
            "secondary_sha256": pool.table.sha256 if pool else None,
            "n_secondary": len(pool) if pool else 0,
            "overlap": pool.overlap.as_dict() if pool else None,
        },
        "run_id": result.run_id,
        "cells": [cell.as_dict() for cell in result.cells],
        "summary": [row.as_dict() for row in result.summary],
        "verdicts": [verdict.as_dict() for verdict in result.verdicts],
        "overlaps": [vars(overlap) for overlap in result.overlaps],
        "scores": {
            method: {**scored.figures, "reason": scored.reason, "optimal": scored.sentence}
            for method, scored in result.scored.items()
        },
        "champion": result.champion,
        "tuning": [tuned.as_dict() for tuned in result.tunings.found.values()],
        "left_out": result.left_out,
    }


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
    expected = estimate(plan, prepared, settings.training).times(settings.splits)
    n_tuned = len(tuned_cells(plan, settings)) * settings.splits
    trials = tuning_seconds(plan, settings, prepared, expected.rates) * settings.splits
    seconds = expected.seconds + trials
    if as_json:
        emit_json(
            {
                "plan": [
                    {
                        "selection": c.choice.name,
                        "peft": c.peft,
                        "seed": c.seed,
                        "model": c.model,
                    }
                    for c in plan.cells()
                ],
                "n_cells": expected.n_cells,
                "n_trials": n_tuned * (settings.tuning.trials or 0),
                "seconds": seconds,
                "molecules_per_second": expected.rates,
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
        table.add_row(choice.name, choice.role, ", ".join(plan.peft), seeds)
    if plan.with_random and plan.needs_scores:
        table.add_row("random, as many as chosen", "control", ", ".join(plan.peft), "")
    out.print(table)
    rates = ", ".join(f"{name} {rate:.0f}/s" for name, rate in expected.rates.items())
    added = f", and {settings.tuning.trials} trials for each of {n_tuned}" if n_tuned else ""
    out.print(
        f"{expected.n_cells} cells on a pool of {n_pool}{added}, {settings.training.epochs} "
        f"epochs each: about {seconds / 60:.1f} minutes here (training molecules {rates})",
        style="bold",
    )


def show_result(result: Comparison, settings: CompareSettings) -> None:
    """Prints the summary, the overlaps and the champion."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("selection", no_wrap=True)
    table.add_column("method", no_wrap=True)
    several = any(row.model is not None for row in result.summary)
    numbers = ("chosen", "train", "parameters", "seconds", "val RMSE", "test RMSE")
    for name in (*numbers, "vs none", "vs random", *(["vs first model"] if several else [])):
        table.add_column(name, justify="right", no_wrap=True)
    for row in result.summary:
        table.add_row(
            row.label,
            row.peft,
            _whole(row.n_selected),
            _whole(row.n_train),
            _whole(row.trainable_parameters),
            f"{row.seconds:.0f}" if row.seconds is not None else "",
            f"{row.val_rmse:.4f}" if row.val_rmse is not None else "failed",
            _spread(row),
            _difference(row.delta_none, row.delta_low, row.delta_high),
            f"{row.delta_random:+.4f}" if row.delta_random is not None else "",
            *(
                [_difference(row.delta_model, row.delta_model_low, row.delta_model_high)]
                if several
                else []
            ),
        )
    out.print(table)
    for tuned in result.tunings.found.values():
        out.print(tuned.sentence(), markup=False, soft_wrap=True)
    for cell in result.cells:
        if cell.status == "failed":
            name = cell_name(cell.label, cell.peft, cell.seed, cell.split)
            say(f"failed: {name}: {cell.error}")
    _show_verdicts(result, settings)
    done = [cell for cell in result.cells if cell.status == "finished"]
    late = sum(cell.best_epoch == len(cell.history) for cell in done)
    if late:
        more = FEWER_VIEWS if settings.training.equal_steps else MORE_STEPS
        say(
            f"{late} of {len(done)} cells were best in their last epoch, still falling; {more}: "
            "give --epochs more"
        )
    if settings.training.equal_steps:
        _tell_views(done, settings.training.epochs)
    cut = max((cell.n_truncated or 0 for cell in result.cells), default=0)
    unknown = max((cell.n_unknown or 0 for cell in result.cells), default=0)
    tell_unread("training and validation", cut, unknown, settings.training.max_length)
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
        out.print(
            f"models:/{champion['model']}@champion {state} version {champion['version']}: "
            f"{champion['reason']}",
            markup=False,
            soft_wrap=True,
        )


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
            "one seed: differences of some hundredths are within the noise of retraining; "
            "--seeds 3 gives intervals"
        )
        return
    for verdict in result.verdicts:
        out.print(verdict.sentence(), markup=False, highlight=False, soft_wrap=True)
    if settings.splits > 1:
        covers = f"over {settings.splits} splits, whose training rows overlap (Nadeau and Bengio)"
    else:
        covers = (
            f"over {settings.seeds} training seeds and the test molecules, on one split and one "
            "scoring: another split may differ by more"
        )
    tested = sum(verdict.p is not None for verdict in result.verdicts)
    say(f"95 % intervals {covers}; Holm's correction over the {tested} tests of this table")


def _whole(value: int | None) -> str:
    return f"{value:,}" if value is not None else ""


def _spread(row: SummaryRow) -> str:
    if row.test_rmse is None:
        return ""
    return f"{row.test_rmse:.4f}" + (f" ± {row.test_rmse_sd:.4f}" if row.test_rmse_sd else "")


def _difference(delta: float | None, low: float | None, high: float | None) -> str:
    if delta is None:
        return ""
    if low is None or high is None:
        return f"{delta:+.4f}"
    return f"{delta:+.4f} [{low:+.4f}, {high:+.4f}]"


def write_result(result: Comparison, settings: CompareSettings, folder: Path) -> list[Path]:
    """Writes result.json, settings.json, tables, values and figures; returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    result_file, settings_file = folder / "result.json", folder / "settings.json"
    content = json.dumps(json_ready(as_dict(result)), indent=1, allow_nan=False, default=str)
    result_file.write_text(content + "\n", encoding="utf-8")
    settings_file.write_text(settings.model_dump_json(indent=1) + "\n", encoding="utf-8")
    cells_file = folder / "cells.csv"
    cells_table(result.cells).to_csv(cells_file, index=False)
    paths = [result_file, settings_file, cells_file]
    for method, scored in result.scored.items():
        inside = folder / "values" / method
        paths += write_values(inside, scored.table, scored.curve)
        prepared = result.prepared
        paths.append(write_source(inside, prepared.require_pool().table, method, prepared.scope()))
    label = result.prepared.dataset.label_name()
    several = len(result.tunings.found) > len({key[0] for key in result.tunings.found})
    for number, tuned in enumerate(result.tunings.found.values(), start=1):
        ending = f"_{tuned.cell.peft}" + (f"_{number}" if several else "")
        paths += draw_tuning(tuned, folder / "figures", label, ending)
    return paths + draw_all(result, folder / "figures", label)
