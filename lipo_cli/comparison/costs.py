"""Seconds that a comparison takes here, by the measured rate; what is found again costs nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lipo_cli.comparison.cells import cell_fingerprint
from lipo_cli.comparison.ledger import Ledger
from lipo_cli.comparison.plan import NO_ROWS, Cell, Plan, ScoresByMethod, make_plan
from lipo_cli.comparison.prepare import Prepared
from lipo_cli.comparison.recorded_scores import find_scores
from lipo_cli.errors import LipoError
from lipo_cli.settings import CompareSettings, Peft, ScoringMethod, TrainingSettings

_SECONDS_PER_CELL = 5.0
"""To load the model, and to keep curves, predictions and the fitted model."""
_FORWARD = 1 / 3
"""A pass without gradients, as a share of a training step."""
_SCORING: Mapping[ScoringMethod, float] = {
    "tsds": 0.5,
    "influence": 3.0,
    "knn": 0.5,
    "loo": 0.5,
    "uncertain": 0.5,
}
"""Passes of training over primary train that a scoring takes, roughly: embeddings and a proxy, or
a gradient for every molecule and algebra with them."""


@dataclass
class Costs:
    """Seconds that cells and scorings will take here.

    Args:
        prepared: The data.
        training: How every cell is trained.
        rates: Training molecules per second by method.
        ledger: Where finished cells are found; None: there are none.
    """

    prepared: Prepared
    training: TrainingSettings
    rates: Mapping[Peft, float]
    ledger: Ledger | None = None
    _found: dict[tuple[Cell, bytes], bool] = field(default_factory=dict)

    def training_seconds(self, peft: Peft, n_selected: float) -> float:
        """Returns the seconds of one cell of a method with so many points added."""
        prepared, split = self.prepared, self.prepared.split
        added = 0 if self.training.equal_steps else n_selected
        per_epoch = len(prepared.train) + added + _FORWARD * len(split.val)
        measured = _FORWARD * (len(split.val) + len(split.test)) * self.training.tta
        return _SECONDS_PER_CELL + (self.training.epochs * per_epoch + measured) / self._rate(peft)

    def _rate(self, peft: Peft) -> float:
        # A reference model may be of a method that is not compared: taken for the slowest.
        return self.rates.get(peft, min(self.rates.values()))

    def of(self, cell: Cell, rows: NDArray[np.int64] | None, n_pool: int) -> float:
        """Returns the seconds of a cell, 0 where it is found.

        Args:
            cell: The cell.
            rows: Positions in the pool that it adds; None: scores will say.
            n_pool: Size of the pool.
        """
        if rows is None:
            # Half of the pool is what a selection takes on average.
            count = cell.choice.selection.count
            return self.training_seconds(cell.peft, n_pool / 2 if count is None else count)
        return 0.0 if self.is_found(cell, rows) else self.training_seconds(cell.peft, len(rows))

    def is_found(self, cell: Cell, rows: NDArray[np.int64]) -> bool:
        """Tells whether the cell is finished already."""
        if self.ledger is None:
            return False
        asked = cell, rows.tobytes()
        # What was not there may be by now: the reference model is trained between two questions.
        if not self._found.get(asked):
            name = cell_fingerprint(cell, rows, self.prepared, self.training)
            self._found[asked] = self.ledger.find(name) is not None
        return self._found[asked]

    def scoring_seconds(self, method: ScoringMethod, reference: Cell, n_pool: int) -> float:
        """Returns the seconds that a scoring of the pool takes, the reference model apart."""
        molecules = len(self.prepared.train) + len(self.prepared.validation) + n_pool
        return _SECONDS_PER_CELL + _SCORING[method] * molecules / self._rate(reference.peft)


def seconds_of(settings: CompareSettings, prepared: Prepared, costs: Costs) -> tuple[float, int]:
    """Returns what a comparison takes, and how many of its cells are found."""
    plan = make_plan(settings)
    n_pool = len(prepared.require_pool()) if plan.needs_pool else 0
    cells, total = plan.cells(), 0.0
    scores: dict[ScoringMethod, Any] = {}
    if plan.needs_scores:
        reference = plan.reference(settings)
        if reference not in cells:
            total += costs.of(reference, NO_ROWS, n_pool)
        for method in plan.scoring_methods:
            found = costs.ledger and find_scores(
                method, reference, prepared, settings.training, settings, costs.ledger
            )
            if found:
                scores[method] = found.scores
            else:
                total += costs.scoring_seconds(method, reference, n_pool)
    if all(method in scores for method in plan.scoring_methods):
        plan = plan.with_random_controls(scores, n_pool)
        cells = plan.cells()
    total += sum(_random_seconds(plan, costs, n_pool))
    known = [(cell, rows_of(cell, scores, n_pool)) for cell in cells]
    n_found = sum(rows is not None and costs.is_found(cell, rows) for cell, rows in known)
    # Selections of the same points share their cell.
    distinct = {
        cell if rows is None else (cell.peft, cell.seed, cell.model, rows.tobytes()): (cell, rows)
        for cell, rows in known
    }
    return total + sum(costs.of(*each, n_pool) for each in distinct.values()), n_found


def _random_seconds(plan: Plan, costs: Costs, n_pool: int) -> Iterator[float]:
    """Yields the seconds of the random controls whose size is not known yet."""
    crossed = len(plan.seeds) * len(plan.models)
    for size in plan.random_sizes(n_pool):
        for peft in plan.peft:
            yield crossed * costs.training_seconds(peft, n_pool / 2 if size is None else size)


def rows_of(cell: Cell, scores: ScoresByMethod, n_pool: int) -> NDArray[np.int64] | None:
    """Returns the points that a cell adds; None where scores that are not there would say."""
    if n_pool == 0:
        return NO_ROWS
    if not cell.choice.has_values(scores):
        return None
    try:
        return cell.choice.rows(scores, n_pool, cell.seed)
    except LipoError:  # the cell will fail by itself, and say why
        return NO_ROWS
