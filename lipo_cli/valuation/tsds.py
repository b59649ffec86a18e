r"""TS-DShapley: Shapley values of points on a proxy game, sampled until their error is small.

The Shapley value of player i is the mean over permutations pi of U(before_pi(i) + i) -
U(before_pi(i)). Each sampled permutation yields one observation for every player that it holds; the
standard error of a value is that of the mean over independent samples.

Sources: Schoch et al. 2023 (TS-DShapley: chains over subsets on a proxy); Castro et al. 2009
(permutation sampling); Mitchell et al. 2022 (antithetic permutations).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lipo_cli.errors import ValuationError
from lipo_cli.progress import Progress, SilentProgress
from lipo_cli.settings import TsdsSettings
from lipo_cli.valuation.arrays import FloatArray, IntArray
from lipo_cli.valuation.game import Game, RowGame
from lipo_cli.valuation.sampling import Sampler, make_sampler
from lipo_cli.valuation.stopping import (
    MaxPermutations,
    MinPermutations,
    RelativeStandardError,
    Snapshot,
    StoppingCriterion,
    Verdict,
)

_SILENT = SilentProgress()

_ROW_PERMUTATIONS = 1_000
"""Permutations that tell what each validation row says, where each point is in two of them."""
CHECK_EVERY = 20
"""Permutations between two looks at the stopping criterion (at least one sample)."""


@dataclass(frozen=True)
class TsdsResult:
    """Values of n points, positive where a point lowers the target loss.

    Attributes:
        values: [n] values, in units of the utility (for the ridge game: squared label units).
        standard_error: [n] standard errors of the sampling alone; what another choice of
            validation rows would do is much more (`row_errors`).
        fold_values: [n, F] the values by validation fold; they sum to `values`.
        n_draws: [n] independent observations behind each value.
        n_permutations: Permutations drawn in all.
        converged: Whether the standard errors became as small as asked for.
        reason: Why the sampling stopped, for the user.
        history: Where the estimate stood at each look, oldest first.
    """

    values: FloatArray
    standard_error: FloatArray
    fold_values: FloatArray
    n_draws: IntArray
    n_permutations: int
    converged: bool
    reason: str
    history: tuple[Snapshot, ...]


def ts_dshapley(
    game: Game,
    settings: TsdsSettings,
    progress: Progress = _SILENT,
    *,
    stop: StoppingCriterion | None = None,
) -> TsdsResult:
    """Estimates the Shapley value of every player.

    `settings.game` "secondary" draws full permutations in antithetic pairs; "empty" draws chains
    over random subsets, where a point's value is the mean of its marginals over the chains that
    hold it. The same seed gives the same bits.

    Args:
        game: The game, for example a `RidgeGame`.
        settings: Game, stopping and seed.
        progress: Hears of permutations, with the field `relative_error`.
        stop: Replaces the criterion of the settings; `max_permutations` holds all the same.

    Returns:
        The values. `converged` is False when the maximum came first: `reason` says how far it got.

    Raises:
        ValuationError: a marginal is not finite, or a point was drawn fewer than twice.
        SettingsError: `subset_fraction` makes no sense.
    """
    sampler = make_sampler(game.n_players, settings)
    per_sample = sampler.permutations_per_sample
    maximum = settings.max_permutations // per_sample * per_sample
    criterion = MaxPermutations(maximum) | (stop or default_criterion(settings))
    progress.start("TS-DShapley", total=maximum, unit="permutations")
    try:
        estimate, verdict, history = _sample(
            game, sampler, criterion, maximum // per_sample, progress
        )
    finally:
        progress.finish()
    return _result(estimate, verdict, history)


def row_errors(
    game: RowGame, settings: TsdsSettings, n_permutations: int, progress: Progress = _SILENT
) -> FloatArray:
    """Returns [n] standard errors of the values as means over validation rows.

    A value is a mean over validation rows, too: of each row's own value, which the first of the
    sampled permutations give once more. Their spread over the rows is what another choice of rows
    would do, which no number of permutations makes smaller.

    Args:
        game: The game that was sampled, of two validation rows or more.
        settings: Those of the sampling: the same permutations are drawn again.
        n_permutations: How many the values took.
        progress: Told of permutations.
    """
    sampler = make_sampler(game.n_players, settings)
    m = len(game.fold_of)
    total, count = np.zeros((game.n_players, m)), np.zeros(game.n_players, dtype=np.int64)
    progress.start("validation rows", min(n_permutations, _ROW_PERMUTATIONS), "permutations")
    try:
        for index in range(n_permutations // sampler.permutations_per_sample):
            for permutation in sampler.draw(index):
                squares = game.squared_errors(permutation)
                total[permutation] += squares[:-1] - squares[1:]
                count[permutation] += 1
                progress.advance(1)
            if (index + 1) * sampler.permutations_per_sample >= _ROW_PERMUTATIONS and (
                count.min() >= 2
            ):
                break
    finally:
        progress.finish()
    of_rows = total / count[:, None]
    return np.asarray(of_rows.std(axis=1, ddof=1) / np.sqrt(m))


def default_criterion(settings: TsdsSettings) -> StoppingCriterion:
    """Returns the settings' criterion: a small enough standard error, but not too early."""
    least = min(settings.min_permutations, settings.max_permutations // 2 * 2)
    return MinPermutations(least) & RelativeStandardError(settings.relative_error)


class _RunningMean:
    """Means by fold, and the variance of their sum, one observation at a time (Welford 1962)."""

    def __init__(self, n: int, n_folds: int) -> None:
        self.n_permutations = 0
        self.count = np.zeros(n, dtype=np.int64)
        self.fold_mean = np.zeros((n, n_folds))
        self._mean = np.zeros(n)
        self._squares = np.zeros(n)

    def add(self, players: IntArray, observation: FloatArray, n_permutations: int) -> None:
        """Adds one observation [k, F] of the players [k]."""
        self.n_permutations += n_permutations
        self.count[players] += 1
        count = self.count[players]
        total = observation.sum(axis=1)
        before = total - self._mean[players]
        self._mean[players] += before / count
        self._squares[players] += before * (total - self._mean[players])
        self.fold_mean[players] += (observation - self.fold_mean[players]) / count[:, None]

    def standard_error(self) -> FloatArray:
        """Returns [n] standard errors of the mean; infinite below two observations."""
        errors = np.full(len(self.count), np.inf)
        known = self.count >= 2
        count = self.count[known]
        errors[known] = np.sqrt(np.maximum(self._squares[known], 0.0) / (count - 1) / count)
        return errors

    def snapshot(self) -> Snapshot:
        """Returns where the estimate stands."""
        errors = self.standard_error()
        # One point without an error is enough to go on: its value would mean nothing.
        median = float(np.median(errors)) if np.isfinite(errors).all() else float("inf")
        return Snapshot(self.n_permutations, median, float(self.fold_mean.sum(axis=1).std()))


def _sample(
    game: Game,
    sampler: Sampler,
    criterion: StoppingCriterion,
    n_samples: int,
    progress: Progress,
) -> tuple[_RunningMean, Verdict, list[Snapshot]]:
    """Draws up to `n_samples` samples, with a look every `CHECK_EVERY` permutations."""
    estimate = _RunningMean(game.n_players, game.n_folds)
    history: list[Snapshot] = []
    per_sample = sampler.permutations_per_sample
    look = max(1, CHECK_EVERY // per_sample)
    for index in range(n_samples):
        _add_sample(game, sampler.draw(index), estimate)
        last = index + 1 == n_samples
        if (index + 1) % look and not last:
            continue
        snapshot = estimate.snapshot()
        done = history[-1].n_permutations if history else 0
        history.append(snapshot)
        progress.advance(
            snapshot.n_permutations - done, relative_error=round(snapshot.relative_error, 4)
        )
        if last or criterion.check(snapshot).stop:
            break
    return estimate, criterion.check(history[-1]), history


def _add_sample(game: Game, permutations: list[IntArray], estimate: _RunningMean) -> None:
    """Adds the mean of the sample's permutations, which hold the same players."""
    players = np.sort(permutations[0])
    observation = np.zeros((len(players), game.n_folds))
    for permutation in permutations:
        marginals = game.marginals(permutation)
        if not np.isfinite(marginals).all():
            raise ValuationError(
                "a marginal contribution is not finite",
                hint="check the embeddings and labels for extreme numbers",
            )
        observation[np.searchsorted(players, permutation)] += marginals
    estimate.add(players, observation / len(permutations), len(permutations))


def _result(estimate: _RunningMean, verdict: Verdict, history: list[Snapshot]) -> TsdsResult:
    if estimate.count.min() < 2:
        short = int((estimate.count < 2).sum())
        raise ValuationError(
            f"{short} point(s) were drawn fewer than twice in {estimate.n_permutations} chains",
            where="max_permutations",
            hint="raise it, or the subset fraction",
        )
    reason = verdict.reason
    if not verdict.converged:
        reason += f"; median error of the sampling / spread is {history[-1].relative_error:.3g}"
    return TsdsResult(
        values=estimate.fold_mean.sum(axis=1),
        standard_error=estimate.standard_error(),
        fold_values=estimate.fold_mean,
        n_draws=estimate.count,
        n_permutations=estimate.n_permutations,
        converged=verdict.converged,
        reason=reason,
        history=tuple(history),
    )
