"""The comparison: one shared reference model, one scoring, then every cell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial, reduce
from itertools import groupby
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lipo_cli.comparison.cell_result import CellResult
from lipo_cli.comparison.cell_runs import Task, Workers, failed, run_cells
from lipo_cli.comparison.constant import Constant
from lipo_cli.comparison.ledger import Ledger, code_version
from lipo_cli.comparison.plan import NO_ROWS, Cell, Plan, ScoresByMethod, make_plan
from lipo_cli.comparison.prepare import Prepared, digest
from lipo_cli.comparison.recorded_scores import scores_of
from lipo_cli.comparison.reference import reference_model
from lipo_cli.comparison.result import Comparison
from lipo_cli.comparison.scoring import Scored
from lipo_cli.comparison.statistics import verdicts_of
from lipo_cli.comparison.summary import (
    pick_champion,
    selection_overlaps,
    summarise,
    why_no_champion,
)
from lipo_cli.comparison.tuning_methods import Tunings, tune_methods
from lipo_cli.comparison.view import View
from lipo_cli.errors import ModelError, TrackingError, TrainingError, ValuationError
from lipo_cli.settings import CompareSettings, ScoringMethod
from lipo_cli.valuation.ekfac import check_ekfac


class Pace(Protocol):
    """Decides, while a comparison runs, whether there is time for more of it."""

    def fits(self, cells: Sequence[Cell], scores: ScoresByMethod, n_pool: int) -> bool:
        """Tells whether these cells can still be computed."""


def compare(
    settings: CompareSettings,
    prepared: Prepared,
    ledger: Ledger,
    view: View,
    *,
    pool_is_sound: bool = True,
    other_splits: Sequence[Prepared] = (),
    tune_storage: str | None = None,
    offers_champion: bool = True,
    pace: Pace | None = None,
    workers: Workers | None = None,
) -> Comparison:
    """Runs a comparison, or what is left of it.

    Args:
        settings: Selections, methods, seeds.
        prepared: The data, as `prepare(settings.data)` gave it.
        ledger: Where results are kept and found again; the comparison's own record is open.
        view: Told of everything.
        pool_is_sound: False when the audit of the secondary set failed: no cell trained on any of
            it then becomes champion.
        other_splits: The same data split otherwise: everything is done on each of them too.
        tune_storage: A database for the trials of tuning; None: a journal file.
        offers_champion: False for a recipe that is rerun to be looked at, not to be used.
        pace: Asked before every method of every seed, the first of which is run whatever the
            answer; None: there is time.
        workers: Run cells side by side; None: one after another, in this process.

    Returns:
        The result; a failed cell is in it and does not stop the others.

    Raises:
        DataError: a selection needs a secondary set and there is none.
        ValuationError: the pool of the first split cannot be scored.
        SettingsError: EK-FAC is asked for and its library is not installed.
        Exception: On a later split any error is a failure of that split's cells. That a reference
            model cannot be trained is a failure of the cells that need its values, on the first
            split, too.
    """
    work = _Work(settings, ledger, view, tune_storage, pace, workers)
    parts = (prepared, *other_splits)
    plans = [make_plan(settings, part.split.seed if other_splits else None) for part in parts]
    sizes = [_checked_pool_size(*each) for each in zip(plans, parts, strict=True)]
    if "influence" in plans[0].scoring_methods:
        check_ekfac(settings.influence, plans[0].reference(settings).peft)
    results: list[CellResult] = []
    splits: list[_OfSplit] = []
    for i, (plan, n_pool, part) in enumerate(zip(plans, sizes, parts, strict=True)):
        earlier = [cell for split in splits for cell in split.cells]
        shown = _Shown(view, earlier, (len(parts) - 1 - i) * plan.n_expected(n_pool))
        try:
            splits.append(_on_one_split(plan, n_pool, part, work, shown))
        except Exception as error:
            if not splits:
                raise
            # Hours of earlier splits are not to be lost with this one.
            lost = [failed(cell, error) for cell in plan.cells()]
            splits.append(_OfSplit(plan.cells(), lost, {}, {}, Tunings(), []))
        results += splits[-1].results
    verdicts = verdicts_of(results)
    summary = summarise(results, verdicts)
    best = pick_champion(results, pool_is_sound=pool_is_sound) if offers_champion else None
    first = splits[0]
    champion, refused = None, None
    if best is not None:
        try:
            n_cells = sum(cell.status == "finished" for cell in results)
            champion = _promoted(best, n_cells, prepared, ledger, settings)
        except TrackingError as error:
            refused = error  # the tables of all this work are not to be lost with a title
    return Comparison(
        prepared=prepared,
        cells=results,
        summary=summary,
        verdicts=verdicts,
        overlaps=selection_overlaps(first.chosen),
        scored=first.scored,
        best=best,
        not_offered=None
        if best is not None
        else why_no_champion(results, pool_is_sound=pool_is_sound, offers_champion=offers_champion),
        champion=champion,
        refused=refused,
        chosen=first.chosen,
        tunings=reduce(Tunings.joined, (split.tunings for split in splits)),
        left_out=[text for split in splits for text in split.left_out],
        constants=[Constant.of(part, part.split.seed if other_splits else None) for part in parts],
    )


def _checked_pool_size(plan: Plan, part: Prepared) -> int:
    """Returns how many points may be chosen; that they are enough is known before any training."""
    n_pool = len(part.require_pool()) if plan.needs_pool else 0
    plan.check(n_pool)
    return n_pool


@dataclass(frozen=True)
class _Work:
    """What every split and cell needs."""

    settings: CompareSettings
    ledger: Ledger
    view: View
    tune_storage: str | None
    pace: Pace | None
    workers: Workers | None


@dataclass(frozen=True)
class _OfSplit:
    """What one split came to."""

    cells: list[Cell]
    results: list[CellResult]
    scored: dict[ScoringMethod, Scored]
    chosen: dict[str, NDArray[np.int64]]
    tunings: Tunings
    left_out: list[str]


@dataclass(frozen=True)
class _Shown:
    """The view, with the cells of earlier splits, and how many are still to come after this one."""

    view: View
    earlier: Sequence[Cell]
    n_later: int

    def planned(self, cells: Sequence[Cell], n_expected: int) -> None:
        """Shows the cells of this split after those of the earlier ones."""
        known = [*self.earlier, *cells]
        self.view.planned(known, len(self.earlier) + n_expected + self.n_later)


def _on_one_split(
    plan: Plan, n_pool: int, prepared: Prepared, work: _Work, shown: _Shown
) -> _OfSplit:
    """Tunes, scores the pool and runs every cell on one split. Errors: `compare`."""
    settings, ledger, view = work.settings, work.ledger, work.view
    shown.planned(plan.cells(), plan.n_expected(n_pool))
    tunings = tune_methods(plan, settings, prepared, ledger, view, storage=work.tune_storage)
    scored: dict[ScoringMethod, Scored] = {}
    known: dict[Cell, CellResult] = {}
    lost = ""
    if plan.needs_scores:
        reference = plan.reference(settings)
        try:
            training = tunings.training(reference, settings.training)
            fitted, known[reference] = reference_model(reference, prepared, training, ledger, view)
        except (ModelError, TrainingError) as error:
            # What needs no values is run all the same.
            known[reference] = failed(reference, error)
            view.finished(reference, known[reference])
            lost = f"no values: {reference.name}, which is to give them, failed: {error.what}"
        else:
            for method in plan.scoring_methods:
                scored[method] = scores_of(
                    method, reference, fitted, prepared, training, settings, ledger, view
                )
                view.scored(scored[method])
    scores = {method: each.scores for method, each in scored.items()}
    plan = plan.with_random_controls(scores, n_pool)
    cells = plan.cells()
    shown.planned(cells, len(cells))
    task_of = partial(
        _task, scores=scores, lost=lost, n_pool=n_pool, tunings=tunings, settings=settings
    )
    results: list[CellResult] = []
    left_out: list[str] = []
    for block in _blocks(cells, work):
        # What failed before, or will for want of values, takes no time.
        asked = [c for c in block if c not in known and c.choice.has_values(scores)]
        if work.pace is not None and not work.pace.fits(asked, scores, n_pool) and results:
            # A method of a seed stays whole: its cells are compared with one another.
            left_out.append(f"{block[0].peft} with seed {block[0].seed} (the time ran short)")
            shown.planned(cells := [c for c in cells if c not in block], len(cells))
            continue
        new = [cell for cell in block if cell not in known]
        known |= zip(
            new,
            run_cells(new, task_of, prepared, ledger, view, work.workers),
            strict=True,
        )
        results += [known[cell] for cell in block]
    chosen = {
        c.name: c.rows(scores, n_pool, plan.seeds[0])
        for c in plan.choices
        if n_pool and c.has_values(scores)
    }
    return _OfSplit(cells, results, scored, chosen, tunings, left_out)


def _blocks(cells: Sequence[Cell], work: _Work) -> list[list[Cell]]:
    """Returns what is run together: where the clock has a say, a method of a seed, else all."""
    if work.pace is None:
        return [list(cells)]
    return [list(block) for _, block in groupby(cells, lambda cell: (cell.seed, cell.peft))]


def _task(
    cell: Cell,
    scores: ScoresByMethod,
    lost: str,
    n_pool: int,
    tunings: Tunings,
    settings: CompareSettings,
) -> Task:
    """Returns the points that a cell adds, and how it is trained.

    Raises:
        ValuationError: its values could not be had.
    """
    if not cell.choice.has_values(scores):
        raise ValuationError(lost)
    rows = cell.choice.rows(scores, n_pool, cell.seed) if n_pool else NO_ROWS
    return Task(cell, rows, tunings.training(cell, settings.training))


def comparison_fingerprint(settings: CompareSettings, prepared: Prepared) -> str:
    """Names a comparison: its settings, its data and the code."""
    pool = prepared.pool
    return settings.fingerprint(
        scope=prepared.scope(),
        pool=digest(pool.examples) if pool is not None else None,
        code=code_version(),
    )


def _promoted(
    best: CellResult,
    n_cells: int,
    prepared: Prepared,
    ledger: Ledger,
    settings: CompareSettings,
) -> dict[str, Any]:
    assert best.run_id is not None
    assert best.val_rmse is not None
    evidence = {
        "selection": best.selection,
        "peft": best.peft,
        "seed": best.seed,
        "dataset": prepared.dataset.name,
        "label": prepared.dataset.primary.label_column,
        "split": prepared.split.name,
        "base": best.model or settings.training.model,
        "n_cells": n_cells,
    }
    return ledger.promote(
        best.run_id, settings.model_name, best.val_rmse, prepared.scope(), evidence
    )
