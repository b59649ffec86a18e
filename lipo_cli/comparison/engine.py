"""The comparison: one shared reference model, one scoring, then every cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lipo_cli.comparison.cells import CellResult, run_cell
from lipo_cli.comparison.ledger import Ledger, code_version
from lipo_cli.comparison.plan import NO_ROWS, Cell, ScoresByMethod, make_plan
from lipo_cli.comparison.prepare import Prepared, digest
from lipo_cli.comparison.recorded_scores import scores_of
from lipo_cli.comparison.scoring import Scored
from lipo_cli.comparison.statistics import Verdict
from lipo_cli.comparison.summary import (
    Overlap,
    SummaryRow,
    pick_champion,
    selection_overlaps,
    summarise,
)
from lipo_cli.errors import LipoError
from lipo_cli.model.regressor import Regressor
from lipo_cli.progress import Progress
from lipo_cli.settings import (
    CompareSettings,
    ScoringMethod,
    TrainingSettings,
)


class View(Progress, Protocol):
    """What a comparison shows while it runs: the table of cells, beside progress."""

    def planned(self, cells: Sequence[Cell], n_expected: int) -> None:
        """The cells known so far; more may follow once the pool is scored."""

    def started(self, cell: Cell) -> None:
        """A cell starts, or is looked up."""

    def epoch(self, cell: Cell, row: Mapping[str, float]) -> None:
        """An epoch of a cell is over."""

    def finished(self, cell: Cell, result: CellResult) -> None:
        """A cell is over, well or badly."""

    def scored(self, scored: Scored) -> None:
        """The pool has values."""


@dataclass
class Comparison:
    """The result of a comparison.

    Attributes:
        prepared: What it read.
        cells: Every cell, failed ones included.
        summary: One row per selection and method.
        overlaps: How far the selections agree, for the first seed.
        scored: The values of the pool by method, as far as selections needed them.
        best: The cell that was offered as champion; None where none may be.
        champion: Model, version, run and the reason, as the ledger says it.
        run_id: The record of the comparison.
    """

    prepared: Prepared
    cells: list[CellResult]
    summary: list[SummaryRow]
    overlaps: list[Overlap]
    scored: dict[ScoringMethod, Scored]
    best: CellResult | None = None
    champion: dict[str, Any] | None = None
    run_id: str | None = None
    chosen: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    verdicts: list[Verdict] = field(default_factory=list)

    @property
    def n_failed(self) -> int:
        """How many cells failed."""
        return sum(cell.status == "failed" for cell in self.cells)


def compare(
    settings: CompareSettings,
    prepared: Prepared,
    ledger: Ledger,
    view: View,
    *,
    pool_is_sound: bool = True,
) -> Comparison:
    """Runs a comparison, or what is left of it.

    Args:
        settings: Selections, methods, seeds.
        prepared: The data, as `prepare(settings.data)` gave it.
        ledger: Where results are kept and found again; the comparison's own record is open.
        view: Told of everything.
        pool_is_sound: False when the audit of the secondary set failed: no cell trained on any of
            it then becomes champion.

    Returns:
        The result; a failed cell is in it and does not stop the others.

    Raises:
        DataError: a selection needs a secondary set and there is none.
        ValuationError: the pool cannot be scored.
        TrainingError: the reference model diverged, so that nothing can be scored.
    """
    plan = make_plan(settings)
    n_pool = len(prepared.require_pool()) if plan.needs_pool else 0
    plan.check(n_pool)
    view.planned(plan.cells(), plan.n_expected(n_pool))
    scored: dict[ScoringMethod, Scored] = {}
    known: dict[Cell, CellResult] = {}
    if plan.needs_scores:
        reference = plan.reference(settings)
        regressor, known[reference] = reference_model(
            reference, prepared, settings.training, ledger, view
        )
        for method in plan.scoring_methods:
            scored[method] = scores_of(
                method, reference, regressor, prepared, settings.training, settings, ledger, view
            )
            view.scored(scored[method])
    scores = {method: each.scores for method, each in scored.items()}
    plan = plan.with_random_controls(scores, n_pool)
    cells = plan.cells()
    view.planned(cells, len(cells))
    results = [
        known.get(cell) or _guarded(cell, scores, n_pool, prepared, settings, ledger, view)
        for cell in cells
    ]
    summary = summarise(results)
    chosen = {c.name: c.rows(scores, n_pool, plan.seeds[0]) for c in plan.choices if n_pool}
    best = pick_champion(results, summary, pool_is_sound=pool_is_sound)
    return Comparison(
        prepared=prepared,
        cells=results,
        summary=summary,
        overlaps=selection_overlaps(chosen),
        scored=scored,
        best=best,
        champion=_promoted(best, prepared, ledger, settings) if best is not None else None,
        chosen=chosen,
    )


def comparison_fingerprint(settings: CompareSettings, prepared: Prepared) -> str:
    """Names a comparison: its settings, its data and the code."""
    pool = prepared.pool
    return settings.fingerprint(
        scope=prepared.scope(),
        pool=digest(pool.examples) if pool is not None else None,
        code=code_version(),
    )


def _guarded(
    cell: Cell,
    scores: ScoresByMethod,
    n_pool: int,
    prepared: Prepared,
    settings: CompareSettings,
    ledger: Ledger,
    view: View,
) -> CellResult:
    """Runs a cell; its failure is a result, an interruption is not."""
    view.started(cell)
    try:
        rows = cell.choice.rows(scores, n_pool, cell.seed) if n_pool else NO_ROWS
        result = run_cell(
            cell,
            rows,
            prepared,
            settings.training,
            ledger,
            progress=view,
            on_epoch=lambda row: view.epoch(cell, row),
        )
    except Exception as error:  # a cell that fails, for whatever reason, must not stop the rest
        text = str(error) if isinstance(error, LipoError) else f"{type(error).__name__}: {error}"
        result = CellResult(
            selection=cell.choice.name,
            peft=cell.peft,
            seed=cell.seed,
            role=cell.choice.role,
            status="failed",
            model=cell.model,
            error=" ".join(text.split())[:300],
        )
    view.finished(cell, result)
    return result


def reference_model(
    cell: Cell, prepared: Prepared, training: TrainingSettings, ledger: Ledger, view: View
) -> tuple[Regressor, CellResult]:
    """Returns the model that embeds the pool: the cell `none`, trained now or found."""
    view.started(cell)
    result = run_cell(
        cell,
        NO_ROWS,
        prepared,
        training,
        ledger,
        progress=view,
        on_epoch=lambda row: view.epoch(cell, row),
    )
    view.finished(cell, result)
    assert result.run_id is not None
    # Loaded from the record, not kept: scores then are the same whether it was trained or found.
    return Regressor.load(ledger.regressor_folder(result.run_id), device=training.device), result


def _promoted(
    best: CellResult, prepared: Prepared, ledger: Ledger, settings: CompareSettings
) -> dict[str, Any]:
    assert best.run_id is not None
    assert best.val_rmse is not None
    evidence = {
        "selection": best.selection,
        "peft": best.peft,
        "seed": best.seed,
        "dataset": prepared.dataset.name,
        "split": prepared.split.name,
        "base": best.model or settings.training.model,
    }
    return ledger.promote(
        best.run_id, settings.model_name, best.val_rmse, prepared.scope(), evidence
    )


def cells_table(cells: Sequence[CellResult]) -> pd.DataFrame:
    """Returns the cells as a table, one row each."""
    return pd.DataFrame([cell.as_dict() for cell in cells])
