"""What of a comparison fits into a time, by the measured rate; what is found again costs nothing.

What is dropped keeps the rest comparable: whole seeds first, the last one first, then whole
methods, then selections, each in the order in which they were named. The first method, the first
selection and their controls are the smallest comparison there is.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lipo_cli.comparison.costs import Costs, rows_of, seconds_of
from lipo_cli.comparison.estimate import measure_rates
from lipo_cli.comparison.ledger import Ledger
from lipo_cli.comparison.plan import (
    Cell,
    ScoresByMethod,
    distinct,
    distinct_selections,
    make_plan,
)
from lipo_cli.comparison.prepare import Prepared
from lipo_cli.errors import SettingsError
from lipo_cli.settings import CompareSettings, Peft
from lipo_cli.valuation.selection_text import parse_selection


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
        needed = sum(self._costs.of(c, rows_of(c, scores, n_pool), n_pool) for c in cells)
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
        seconds, n_found = seconds_of(smaller, prepared, costs)
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
    # What was named twice is left out once it is named no more.
    once = {
        "selections": tuple(distinct_selections(settings.selections)),
        "peft": tuple(distinct(settings.peft)),
    }
    settings = settings.model_copy(update=once)
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
