"""What of a comparison fits into a time, by the measured rate; what is found again costs nothing.

What is dropped keeps the rest comparable: whole seeds first, the last one first, then whole
methods, then selections, each in the order in which they were named. The first method, the first
selection and their controls are the smallest comparison there is.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lipo_cli.comparison.cells import cell_fingerprint
from lipo_cli.comparison.estimate import measure_rates
from lipo_cli.comparison.ledger import Ledger
from lipo_cli.comparison.plan import NO_ROWS, Cell, Plan, ScoresByMethod, make_plan
from lipo_cli.comparison.prepare import Prepared
from lipo_cli.comparison.recorded_scores import find_scores
from lipo_cli.errors import LipoError, SettingsError
from lipo_cli.settings import CompareSettings, Peft, ScoringMethod, TrainingSettings
from lipo_cli.valuation.selection_text import parse_selection

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


@dataclass(frozen=True)
class Budgeted:
    """A comparison that fits.

    Attributes:
        settings: What of it is run.
        minutes: The budget.
        seconds: The expected time; found cells take none.
        n_found: Cells that are found.
        left_out: What is not run, in words.
        costs: What cells cost.
        started: When the budget began, by the monotonic clock.
    """

    settings: CompareSettings
    minutes: float
    seconds: float
    n_found: int
    left_out: tuple[str, ...]
    costs: Costs
    started: float

    def pace(self, clock: Callable[[], float] = time.monotonic) -> RunningPace:
        """Returns what decides, while it runs, whether there is time for more."""
        return RunningPace(self.costs, self.started + 60 * self.minutes, clock)

    def sentence(self) -> str:
        """Says what fits and what was left out, in one line."""
        found = f", {self.n_found} cells found" if self.n_found else ""
        left = "; ".join(self.left_out) if self.left_out else "nothing"
        return (
            f"budget {self.minutes:g} minutes: about {self.seconds / 60:.1f} are needed{found}; "
            f"left out: {left}"
        )

    def as_dict(self) -> dict[str, Any]:
        """Returns the numbers for `--json`."""
        return {
            "minutes": self.minutes,
            "expected_minutes": self.seconds / 60,
            "n_found": self.n_found,
            "left_out": list(self.left_out),
        }


class RunningPace:
    """Compares the clock with the plan, method by method.

    Args:
        costs: What cells should take.
        deadline: When the budget ends, by the clock.
        clock: Tells the time in seconds.
    """

    def __init__(self, costs: Costs, deadline: float, clock: Callable[[], float]) -> None:
        self._costs = costs
        self._deadline = deadline
        self._clock = clock
        self._begun: float | None = None
        self._planned = 0.0
        self._slowness = 1.0
        self._first = True

    def fits(self, cells: Sequence[Cell], scores: ScoresByMethod, n_pool: int) -> bool:
        """Tells whether these cells fit into what is left, at the pace of those before.

        What is asked about first is run whatever the answer: the plan is about it.
        """
        now = self._clock()
        if self._begun is not None and self._planned > 0:
            self._slowness = (now - self._begun) / self._planned
        needed = sum(self._costs.of(c, _rows_of(c, scores, n_pool), n_pool) for c in cells)
        fits = needed == 0 or now + needed * self._slowness <= self._deadline
        self._begun, self._planned = (now, needed) if fits or self._first else (None, 0.0)
        self._first = False
        return fits


def without_verdict(asked: CompareSettings, seeds: Collection[int]) -> str | None:
    """Says that the one seed that a budget has left allows no verdict; None where it has not."""
    if asked.seeds == 1 or len(seeds) > 1:
        return None
    return (
        "one seed is left, and with one seed there is no verdict: a retraining cannot tell a "
        "difference from its noise; a longer --budget, or fewer selections or methods, leaves more"
    )


def fit_into(
    settings: CompareSettings,
    prepared: Prepared,
    minutes: float,
    ledger: Ledger | None,
    rates: Mapping[Peft, float] | None = None,
) -> Budgeted:
    """Finds the largest part of a comparison that fits into a time.

    Args:
        settings: What was asked for.
        prepared: The data.
        minutes: The budget.
        ledger: Where finished cells are found; None: there is no store yet.
        rates: Training molecules per second by method; None: measured now.

    Raises:
        SettingsError: not even the smallest comparison fits.
    """
    started = time.monotonic()
    if rates is None:
        rates = measure_rates(make_plan(settings), prepared, settings.training)
    costs = Costs(prepared, settings.training, rates, ledger)
    for smaller, left_out in _smaller(settings):
        seconds, n_found = _seconds(smaller, prepared, costs)
        if seconds == 0 or seconds <= 60 * minutes - (time.monotonic() - started):
            return Budgeted(smaller, minutes, seconds, n_found, left_out, costs, started)
    needed = math.ceil((seconds + time.monotonic() - started) / 6) / 10
    raise SettingsError(
        f"in {minutes:g} minutes nothing fits: the smallest comparison, "
        f"{'+'.join(smaller.selections)} x {smaller.peft[0]} with its controls and one seed, "
        f"takes about {needed:g}",
        where="--budget",
        hint=f"--budget {needed:g}, fewer --epochs, or without",
    )


def _smaller(settings: CompareSettings) -> Iterator[tuple[CompareSettings, tuple[str, ...]]]:
    """Yields the comparison, and ever smaller ones with what they leave out."""
    left: tuple[str, ...] = ()
    yield settings, left
    while settings.seeds > 1:
        dropped = settings.first_seed + settings.seeds - 1
        settings = settings.model_copy(update={"seeds": settings.seeds - 1})
        left = (*left, f"seed {dropped}")
        yield settings, left
    while len(settings.peft) > 1:
        left = (*left, f"method {settings.peft[-1]}")
        settings = settings.model_copy(update={"peft": settings.peft[:-1]})
        yield settings, left
    while (last := _least_needed(settings)) is not None:
        kept = tuple(text for text in settings.selections if text != last)
        settings = settings.model_copy(update={"selections": kept})
        left = (*left, f"selection {last}")
        yield settings, left


def _least_needed(settings: CompareSettings) -> str | None:
    """Returns the selection to drop next; the control `none` and one selection stay."""
    wanted = [t for t in settings.selections if str(parse_selection(t)) != "none"]
    return wanted[-1] if len(wanted) > 1 else None


def _seconds(settings: CompareSettings, prepared: Prepared, costs: Costs) -> tuple[float, int]:
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
    known = [(cell, _rows_of(cell, scores, n_pool)) for cell in cells]
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


def _rows_of(cell: Cell, scores: ScoresByMethod, n_pool: int) -> NDArray[np.int64] | None:
    """Returns the points that a cell adds; None where scores that are not there would say."""
    selection = cell.choice.selection
    if n_pool == 0:
        return NO_ROWS
    if selection.needs_scores and selection.method not in scores:
        return None
    try:
        return cell.choice.rows(scores, n_pool, cell.seed)
    except LipoError:  # the cell will fail by itself, and say why
        return NO_ROWS
