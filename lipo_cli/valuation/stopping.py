"""When to stop drawing permutations: small criteria that combine with `|` and `&`.

stop = MaxPermutations(20_000) | (MinPermutations(200) & RelativeStandardError(0.1))
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass


@dataclass(frozen=True)
class Snapshot:
    """Where the estimate stands after some permutations.

    Attributes:
        n_permutations: Permutations drawn so far.
        median_error: The median standard error over the points; infinite while one has none.
        spread: The standard deviation of the values over the points.
    """

    n_permutations: int
    median_error: float
    spread: float

    @property
    def relative_error(self) -> float:
        """Median standard error over spread; 0 where both vanish (no point can be told apart)."""
        if self.spread > 0:
            return self.median_error / self.spread
        return 0.0 if self.median_error == 0 else float("inf")


@dataclass(frozen=True)
class Verdict:
    """What a criterion says: to stop or not, whether that is convergence, and why."""

    stop: bool
    converged: bool
    reason: str


class StoppingCriterion(ABC):
    """A rule on a `Snapshot`. `a | b` stops when either does, `a & b` when both do.

    A combination has converged when one of the parts that say stop has.
    """

    @abstractmethod
    def check(self, snapshot: Snapshot) -> Verdict:
        """Returns the verdict on where the estimate stands."""

    def __or__(self, other: StoppingCriterion) -> StoppingCriterion:
        return AnyOf(self, other)

    def __and__(self, other: StoppingCriterion) -> StoppingCriterion:
        return AllOf(self, other)


@dataclass(frozen=True)
class AnyOf(StoppingCriterion):
    """Stops when either part does."""

    first: StoppingCriterion
    second: StoppingCriterion

    def check(self, snapshot: Snapshot) -> Verdict:
        """Returns stop when one part says so, with the reasons of those that do."""
        verdicts = (self.first.check(snapshot), self.second.check(snapshot))
        said = [verdict for verdict in verdicts if verdict.stop] or list(verdicts)
        stop = said[0].stop
        return Verdict(stop, stop and any(v.converged for v in said), _join(said))


@dataclass(frozen=True)
class AllOf(StoppingCriterion):
    """Stops when both parts do."""

    first: StoppingCriterion
    second: StoppingCriterion

    def check(self, snapshot: Snapshot) -> Verdict:
        """Returns stop when both parts say so, else the reasons of those that do not."""
        verdicts = (self.first.check(snapshot), self.second.check(snapshot))
        stop = all(verdict.stop for verdict in verdicts)
        said = [verdict for verdict in verdicts if verdict.stop == stop]
        return Verdict(stop, stop and any(v.converged for v in said), _join(said))


@dataclass(frozen=True)
class MaxPermutations(StoppingCriterion):
    """Stops at a number of permutations, which is no convergence."""

    count: int

    def check(self, snapshot: Snapshot) -> Verdict:
        """Returns stop from `count` permutations on."""
        reason = f"{snapshot.n_permutations:,} of at most {self.count:,} permutations"
        return Verdict(snapshot.n_permutations >= self.count, False, reason)


@dataclass(frozen=True)
class MinPermutations(StoppingCriterion):
    """Holds others back (with `&`) until enough permutations are drawn to trust their errors."""

    count: int

    def check(self, snapshot: Snapshot) -> Verdict:
        """Returns stop from `count` permutations on."""
        reason = f"{snapshot.n_permutations:,} of at least {self.count:,} permutations"
        return Verdict(snapshot.n_permutations >= self.count, False, reason)


@dataclass(frozen=True)
class RelativeStandardError(StoppingCriterion):
    """Stops when the median error of the sampling is a small share of the values' spread."""

    share: float

    def check(self, snapshot: Snapshot) -> Verdict:
        """Returns stop and convergence once the relative error is at most `share`."""
        done = snapshot.relative_error <= self.share
        reason = (
            f"the median error of the sampling is {snapshot.relative_error:.3g} of the values' "
            f"spread (asked for: {self.share:g})"
        )
        return Verdict(done, done, reason)


def _join(verdicts: list[Verdict]) -> str:
    return ", ".join(verdict.reason for verdict in verdicts)
