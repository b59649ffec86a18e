"""One study of Optuna's: trials are claimed, reported, and found again after a kill.

A trial has an ordinal, from 0. What the sampler draws for it follows from the study's seed, the
ordinal and the trials that are over, and from nothing that a process remembers: a study that was
killed and goes on has the trials of one that never was, and the first 20 of 30 are those of 20.
An ordinal is held by the trial with it that did not fail; where two processes took the same one at
once, the earlier trial keeps it. Optuna is imported inside the functions.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lipo_cli.comparison.ledger import Ledger
from lipo_cli.comparison.tuning_space import Range, first_parameters
from lipo_cli.comparison.tuning_storage import storage_errors
from lipo_cli.comparison.tuning_trial import (
    DIVERGED,
    ORDINAL,
    SECONDS,
    TrialResult,
    trial_result,
)
from lipo_cli.settings_tuning import TuningSettings

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

SILENT_S = 1800.0
"""A trial of another machine that has not reported for this long is over."""
_JUST_NOW_S = 10.0
_OWNER, _SEEN = "owner", "seen"


class TrialLostError(Exception):
    """Another process gave the trial back: it had seemed dead."""


@dataclass
class OpenStudy:
    """A study with what its trials are drawn from.

    Attributes:
        study: Optuna's.
        space: The ranges.
        tuning: Sampler and pruner.
        ledger: Knows which processes live.
        where: Names the storage in errors, without a password.
    """

    study: Study
    space: tuple[Range, ...]
    tuning: TuningSettings
    ledger: Ledger
    where: str

    def finished(self, n: int) -> list[TrialResult]:
        """Returns the trials with ordinals below `n` that are over, in order."""
        held = self._held()
        over = [held[i] for i in sorted(held) if i < n and held[i].state.is_finished()]
        return [trial_result(trial) for trial in over]

    def give_back(self) -> None:
        """Fails the trials that say RUNNING and whose process is gone, and enqueues them again."""
        from optuna.trial import TrialState as State

        with storage_errors(self.where):
            for trial in self.study.get_trials(deepcopy=False, states=(State.RUNNING,)):
                if self._alive(trial):
                    continue
                known = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
                waiting = self.study.get_trials(deepcopy=False, states=(State.WAITING,))
                ordinal = trial.user_attrs.get(ORDINAL)
                again = ordinal in [other.user_attrs.get(ORDINAL) for other in waiting]
                if known and ordinal is not None and not again:
                    # Before it fails: killed in between, this happens again.
                    self.study.enqueue_trial(known, {ORDINAL: ordinal})
                self.study.tell(trial.number, state=State.FAIL, skip_if_finished=True)

    def claim(self, n: int) -> Trial | None:
        """Takes the next trial below `n`, its parameters drawn; None: there is none to take."""
        while len([i for i in self._held(waiting=False) if i < n]) < n:
            if (trial := self._take()) is not None:
                return trial
        return None

    def ordinal(self, trial: Trial) -> int:
        """Returns the place of a claimed trial in the search, from 0."""
        return int(trial.user_attrs[ORDINAL])

    def n_open(self, n: int) -> int:
        """Returns how many trials below `n` other processes are at."""
        held = self._held(waiting=False)
        return sum(not trial.state.is_finished() for i, trial in held.items() if i < n)

    def report(self, trial: Trial, epoch: int, val_rmse: float, *, last: bool) -> bool:
        """Keeps an epoch's validation RMSE; tells whether the trial is to stop here.

        Raises:
            TrialLostError: another process gave the trial back.
        """
        if self._is_over(trial):
            raise TrialLostError
        with storage_errors(self.where):
            trial.report(val_rmse, epoch)
            trial.set_user_attr(_SEEN, time.time())
            return not last and trial.should_prune()

    def close(
        self, trial: Trial, val_rmse: float | None, seconds: float, *, error: str | None = None
    ) -> TrialResult | None:
        """Ends a trial: complete with a value, diverged with an error, pruned with neither.

        A trial that diverged is `pruned` to Optuna without a value, so that its sampler learns to
        stay away, which it does not from a failed one.

        Returns:
            The result; None where another process gave the trial back.
        """
        from optuna.trial import TrialState as State

        if self._is_over(trial):
            return None
        with storage_errors(self.where):
            trial.set_user_attr(SECONDS, seconds)
            if error is not None:
                trial.set_user_attr(DIVERGED, error)
            if val_rmse is None:
                return trial_result(self.study.tell(trial, state=State.PRUNED))
            return trial_result(self.study.tell(trial, val_rmse))

    def _take(self) -> Trial | None:
        from optuna.trial import TrialState as State

        with storage_errors(self.where):
            trial = self.study.ask()
            trial.set_user_attr(_OWNER, dict(self.ledger.this_process()))
            trial.set_user_attr(_SEEN, time.time())
            others = [t for t in self._trials() if t.number != trial.number]
            ordinal = trial.user_attrs.get(ORDINAL)
            if ordinal is None:
                taken = {t.user_attrs.get(ORDINAL) for t in others}
                ordinal = next(i for i in range(len(taken) + 1) if i not in taken)
                trial.set_user_attr(ORDINAL, ordinal)
                others = [t for t in self._trials() if t.number != trial.number]
            earlier = [t for t in others if t.number < trial.number]
            if ordinal in [t.user_attrs.get(ORDINAL) for t in earlier]:
                self.study.tell(trial, state=State.FAIL)
                return None
            self.study.sampler = _sampler(self.tuning, ordinal)
            for each in self.space:
                if each.whole:
                    trial.suggest_int(each.name, int(each.low), int(each.high), log=each.log)
                else:
                    trial.suggest_float(each.name, each.low, each.high, log=each.log)
            return trial

    def _is_over(self, trial: Trial) -> bool:
        with storage_errors(self.where):
            return self.study.get_trials(deepcopy=False)[trial.number].state.is_finished()

    def _trials(self) -> list[FrozenTrial]:
        """Returns the trials that did not fail."""
        from optuna.trial import TrialState as State

        states = (State.COMPLETE, State.PRUNED, State.RUNNING, State.WAITING)
        return self.study.get_trials(deepcopy=False, states=states)

    def _held(self, *, waiting: bool = True) -> dict[int, FrozenTrial]:
        """Returns the trial that holds each ordinal; those that wait to be taken up, or not."""
        from optuna.trial import TrialState as State

        held: dict[int, FrozenTrial] = {}
        with storage_errors(self.where):
            for trial in self._trials():
                ordinal = trial.user_attrs.get(ORDINAL)
                if ordinal is not None and (waiting or trial.state != State.WAITING):
                    held.setdefault(ordinal, trial)
        return held

    def _alive(self, trial: FrozenTrial) -> bool:
        owner: Mapping[str, str] = trial.user_attrs.get(_OWNER, {})
        seen = float(trial.user_attrs.get(_SEEN, 0.0))
        if not owner:  # taken a moment ago, or by a process that died in that moment
            begun = trial.datetime_start
            return begun is not None and time.time() - begun.timestamp() < _JUST_NOW_S
        if dict(owner) == dict(self.ledger.this_process()):
            return False  # this process runs one trial at a time, and it is not at one
        alive = self.ledger.lives(owner, seen)
        return time.time() - seen < SILENT_S if alive is None else alive


def open_study(
    storage: BaseStorage,
    name: str,
    space: tuple[Range, ...],
    tuning: TuningSettings,
    n_epochs: int,
    ledger: Ledger,
    where: str,
) -> OpenStudy:
    """Opens a study, or makes it with the settings as they stand as its first trial.

    Args:
        storage: Where its trials are.
        name: Names everything that decides them.
        space: The ranges.
        tuning: Sampler and pruner.
        n_epochs: Epochs of a whole trial.
        ledger: Knows which processes live.
        where: Names the storage in errors.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with storage_errors(where):
        drawn: dict[str, Any] = {
            "storage": storage,
            "study_name": name,
            "sampler": _sampler(tuning, 0),
            "pruner": _pruner(tuning, n_epochs),
        }
        try:
            study = optuna.load_study(**drawn)
        except KeyError:
            study = optuna.create_study(direction="minimize", load_if_exists=True, **drawn)
        if not study.get_trials(deepcopy=False):
            study.enqueue_trial(first_parameters(space), {ORDINAL: 0})
    return OpenStudy(study, space, tuning, ledger, where)


def _sampler(tuning: TuningSettings, ordinal: int) -> BaseSampler:
    from optuna.samplers import TPESampler

    return TPESampler(
        n_startup_trials=tuning.startup_trials,
        n_ei_candidates=tuning.candidates,
        multivariate=True,
        group=False,
        constant_liar=True,
        seed=int(np.random.SeedSequence([tuning.seed, ordinal]).generate_state(1)[0]),
    )


def _pruner(tuning: TuningSettings, n_epochs: int) -> BasePruner:
    from optuna.pruners import MedianPruner, NopPruner

    if not tuning.prune:
        return NopPruner()
    return MedianPruner(
        n_startup_trials=tuning.prune_after_trials,
        # Epochs count from 1: pruning may begin with this one.
        n_warmup_steps=max(1, int(np.ceil(tuning.prune_after * n_epochs))),
        interval_steps=1,
        n_min_trials=tuning.prune_after_trials,
    )
