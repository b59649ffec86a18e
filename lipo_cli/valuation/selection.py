"""Which points to add: rules that take some of a pool, each point with the reason why.

Rules are read from text, such as `tsds:top=100` or `random:k=50`, by `selection_text`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import numpy as np

from lipo_cli.errors import SettingsError, ValuationError
from lipo_cli.settings import ScoringMethod
from lipo_cli.valuation.arrays import FloatArray, IntArray, finite_vector, order_best_first, ranks
from lipo_cli.valuation.diversity import CAP, most_diverse

Rule = Literal["none", "all", "random", "optimal", "positive", "top", "bottom", "diverse"]


LEAKING = "LEAKING: the target is the test split, nothing may be chosen by this"
"""Stands in what is said of such values, before every reason that goes with them."""
CHOSEN_ON = "chosen_on"
"""The column that names the primary set and the split by whose validation rows were chosen."""


class Scores(Protocol):
    """What a selection by value reads."""

    @property
    def values(self) -> FloatArray:
        """[n] values, positive where a point helps."""

    @property
    def standard_error(self) -> FloatArray:
        """[n] standard errors of the values."""

    @property
    def n_optimal(self) -> int | None:
        """How many points the removal curve keeps; None where it was not measured."""

    @property
    def smiles(self) -> Sequence[str] | None:
        """[n] the points' molecules; None where they are not known."""


@dataclass(frozen=True)
class PointScores:
    """Values with their errors, the number that the removal curve keeps, and the molecules."""

    values: FloatArray
    standard_error: FloatArray
    n_optimal: int | None = None
    smiles: Sequence[str] | None = None


@dataclass(frozen=True)
class Selected:
    """The points that a selection takes.

    Attributes:
        name: The selection in its full form, for example `tsds:optimal`.
        positions: Positions of the selected points, ascending.
        reasons: [n] why each point was taken or left.
    """

    name: str
    positions: IntArray
    reasons: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.positions)

    def leaking(self) -> Selected:
        """Returns the same with every reason marked: the values' target was the test split."""
        return replace(self, reasons=tuple(f"{LEAKING}; {reason}" for reason in self.reasons))


@dataclass(frozen=True)
class Selection:
    """A rule that takes some of n points. Read it from text by `parse_selection` (selection_text).

    Attributes:
        rule: What is taken.
        count: K of `random`, `top`, `bottom` and `diverse`.
        z: Standard errors that `positive` subtracts from a value first.
        method: What values the points; without a meaning for `none`, `all` and `random`.
        cap: Tanimoto similarity that two points of `diverse` may have.
    """

    rule: Rule
    count: int | None = None
    z: float = 0.0
    method: ScoringMethod = "tsds"
    cap: float = CAP

    def __str__(self) -> str:
        match self.rule:
            case "none" | "all":
                return self.rule
            case "random":
                return f"random:k={self.count}"
            case "positive":
                rule = "positive" if self.z == 0 else f"positive={self.z:g}"
            case "optimal":
                rule = "optimal"
            case "diverse" if self.cap != CAP:
                rule = f"diverse={self.count}/{self.cap:g}"
            case _:
                rule = f"{self.rule}={self.count}"
        return f"{self.method}:{rule}"

    @property
    def needs_scores(self) -> bool:
        """Whether the points must be valued first."""
        return self.rule not in ("none", "all", "random")

    def select(self, scores: Scores | None, n: int, rng: np.random.Generator) -> Selected:
        """Takes points out of a pool of n.

        Args:
            scores: Values of the n points; None for `none`, `all` and `random`.
            n: Size of the pool.
            rng: Drawn from by `random` alone.

        Raises:
            SettingsError: K exceeds the pool.
            ValuationError: the scores are missing, of another length or not finite, or `optimal` is
                asked of scores without a removal curve.
        """
        if self.count is not None and self.count > n:
            raise too_many(self, n, where=str(self))
        if self.rule == "none":
            return self._taken(np.zeros(n, dtype=bool), ["left out: control without points"] * n)
        if self.rule == "all":
            return self._taken(np.ones(n, dtype=bool), ["kept: control with all points"] * n)
        if self.rule == "random":
            taken = np.zeros(n, dtype=bool)
            taken[rng.choice(n, size=self.count or 0, replace=False)] = True
            of = f"at random: {self.count} of {n}"
            return self._taken(taken, [f"{'kept' if t else 'left out'} {of}" for t in taken])
        return self._by_value(scores, n)

    def _by_value(self, scores: Scores | None, n: int) -> Selected:
        if scores is None:
            raise ValuationError("needs the points' values", where=str(self))
        values = finite_vector("the values", scores.values, n)
        errors = finite_vector("the standard errors", scores.standard_error, n)
        order = order_best_first(values)
        taken = np.zeros(n, dtype=bool)
        if self.rule == "positive":
            taken = values - self.z * errors > 0
            what = "value" if self.z == 0 else f"value - {self.z:g} standard errors"
            why, why_not = f"{what} > 0", f"{what} <= 0"
        elif self.rule == "optimal":
            kept = self._n_optimal(scores, n)
            taken[order[:kept]] = True
            why = why_not = f"the removal curve keeps the best {kept}"
        elif self.rule == "diverse":
            return self._by_diversity(scores, order, n)
        elif self.rule == "top":
            taken[order[: self.count]] = True
            why, why_not = f"top {self.count}", f"not in the top {self.count}"
        else:
            taken[order[n - (self.count or 0) :]] = True
            why, why_not = f"bottom {self.count}", f"not in the bottom {self.count}"
        reasons = [
            f"rank {rank} of {n}, {f'kept: {why}' if is_taken else f'left out: {why_not}'}"
            for rank, is_taken in zip(ranks(values), taken, strict=True)
        ]
        return self._taken(taken, reasons)

    def _by_diversity(self, scores: Scores, order: IntArray, n: int) -> Selected:
        if scores.smiles is None or len(scores.smiles) != n:
            raise ValuationError("needs the points' molecules", where=str(self))
        chosen, passed = most_diverse(order, scores.smiles, self.count or 0, self.cap)
        place = ranks(scores.values)
        taken = np.zeros(n, dtype=bool)
        taken[chosen] = True
        what = f"the best {self.count} of similarity {self.cap:g} at most"
        reasons = []
        for point, rank in enumerate(place):
            if taken[point]:
                why = f"kept: among {what}"
            elif point in passed:
                other, alike = passed[point]
                why = f"left out: similarity {alike:.2f} to rank {place[other]}"
            else:
                why = f"left out: not among {what}"
            reasons.append(f"rank {rank} of {n}, {why}")
        return self._taken(taken, reasons)

    def _n_optimal(self, scores: Scores, n: int) -> int:
        kept = scores.n_optimal
        if kept is None:
            raise ValuationError(
                "needs the removal curve, which these scores do not have",
                where=str(self),
                hint="score the points anew, or take "
                f"{self.method}:positive or {self.method}:top=K",
            )
        if not 0 <= kept <= n:
            raise ValuationError(f"the removal curve keeps {kept} of {n} points", where=str(self))
        return kept

    def _taken(self, taken: np.ndarray, reasons: list[str]) -> Selected:
        return Selected(str(self), np.flatnonzero(taken).astype(np.int64), tuple(reasons))


def too_many(selection: Selection, n: int, where: str) -> SettingsError:
    """Returns the error of a selection that asks for more points than the n of the pool."""
    return SettingsError(
        f"asks for {selection.count} points of a pool of {n}",
        where=where,
        hint=f"K must be 1 to {n}",
    )


def selection_rng(selection: Selection, seed: int) -> np.random.Generator:
    """Returns what a selection draws from: the same points in every command for one seed.

    The count is part of the stream: random choices of two sizes are not nested.
    """
    return np.random.default_rng([seed, selection.count or 0])
