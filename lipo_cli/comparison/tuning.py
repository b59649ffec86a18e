"""Tuning: the same cell with other settings, again and again, judged by validation RMSE alone.

The search is a study of Optuna's (tuning_study), its record a run with a run of each trial below
it. The settings that win train the cells; a cell that has them is another cell than one that has
not, as they are part of its fingerprint.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from lipo_cli.comparison.cell_record import log_inputs
from lipo_cli.comparison.cells import cell_settings, effective, epoch_size, training_examples
from lipo_cli.comparison.ledger import Ledger, Recorder, code_version
from lipo_cli.comparison.plan import Cell
from lipo_cli.comparison.prepare import Prepared, digest
from lipo_cli.comparison.tuning_records import (
    StudySettings,
    TrialSettings,
    log_study,
    log_trial,
)
from lipo_cli.comparison.tuning_result import Tuned, tuned_from
from lipo_cli.comparison.tuning_space import (
    Parameters,
    Range,
    described,
    search_space,
    tuned_training,
)
from lipo_cli.comparison.tuning_storage import open_storage, shown
from lipo_cli.comparison.tuning_study import OpenStudy, TrialLostError, open_study
from lipo_cli.comparison.tuning_trial import TrialResult, TrialState, importances
from lipo_cli.errors import TrainingError
from lipo_cli.model.base import resolve_base
from lipo_cli.model.regressor import Regressor
from lipo_cli.progress import Progress
from lipo_cli.settings import TrainingSettings
from lipo_cli.settings_tuning import TuningSettings
from lipo_cli.training.finetune import fit

if TYPE_CHECKING:
    from optuna import Trial

_MODULES_THAT_DECIDE = ("tuning", "tuning_space", "tuning_study", "tuning_trial")
_POLL_S = 1.0


class TuningView(Progress, Protocol):
    """What is shown of a tuning while it runs."""

    def tried(self, cell: Cell, trial: TrialResult, over: Sequence[TrialResult], n: int) -> None:
        """A trial is over; `over` are all so far, of `n`."""

    def waiting(self, cell: Cell, n_open: int) -> None:
        """Other processes are at the last trials."""

    def tuned(self, tuned: Tuned) -> None:
        """A tuning is over."""


@dataclass(frozen=True)
class _Job:
    """One tuning: what is trained, on what, and where it is kept."""

    cell: Cell
    rows: NDArray[np.int64]
    prepared: Prepared
    training: TrainingSettings
    tuning: TuningSettings
    ledger: Ledger
    view: TuningView

    @property
    def n(self) -> int:
        assert self.tuning.trials is not None
        return self.tuning.trials

    @property
    def space(self) -> tuple[Range, ...]:
        return search_space(self.cell.peft, self.training, self.tuning)

    def study_name(self) -> str:
        """Names everything that decides the trials; how many there are to be does not."""
        added = len(self.rows) > 0
        stand = effective(self.cell.training(self.training), self.cell.peft, added=added)
        deciding = self.tuning.model_copy(update={"trials": None})
        return deciding.fingerprint(
            training=stand.model_dump(mode="json"),
            space=[vars(each) for each in self.space],
            peft=self.cell.peft,
            training_seed=self.cell.seed,
            split=self.prepared.split.name,
            train=digest(training_examples(self.prepared, self.rows)),
            validation=digest(self.prepared.validation),
            base=resolve_base(stand.model).fingerprint,
            code=code_version(_MODULES_THAT_DECIDE, ("optuna",)),
        )


def tune(
    cell: Cell,
    rows: NDArray[np.int64],
    prepared: Prepared,
    training: TrainingSettings,
    tuning: TuningSettings,
    ledger: Ledger,
    view: TuningView,
    *,
    storage: str | None = None,
) -> Tuned:
    """Searches the settings that lower a cell's validation RMSE, or finds the finished search.

    Trials that are over are never computed again: a search that was killed goes on, with the
    parameters of the trial that it was at, and one that is asked for more goes on from there.

    Args:
        cell: Selection, method, seed and pretrained model of every trial.
        rows: Positions in the pool that join primary train.
        prepared: Dataset, split and pool; the test split is not read.
        training: The settings as they stand, which are the first trial.
        tuning: How many trials, of what.
        ledger: Where it is recorded.
        view: Told of everything.
        storage: A database for the trials (`tuning_storage.check_url`); None: a journal file.

    Raises:
        TrainingError: not one trial could be trained.
        TrackingError: the trials cannot be kept.
    """
    job = _Job(cell, rows, prepared, training, tuning, ledger, view)
    name = job.study_name()
    fingerprint = tuning.fingerprint(study=name)
    if (found := ledger.find(fingerprint)) is not None:
        result = tuned_from(cell, found)
        view.tuned(result)
        return result
    own = cell_settings(cell, prepared, training)
    settings = StudySettings(**dict(own), tuning=tuning, storage=shown(storage))
    tags = {**_tags(job), "study": name}
    title = f"tuning {cell.peft}" + (f" on {cell.label}" if cell.model is not None else "")
    with ledger.record("tuning", title, fingerprint, settings, tags) as record:
        log_inputs(record, prepared, rows, test=False)
        journal = ledger.studies / f"{name}.log"
        with open_storage(storage, journal) as opened:
            where = shown(storage) if storage is not None else str(journal)
            n_epochs = training.epochs
            study = open_study(opened, name, job.space, tuning, n_epochs, ledger, where)
            _search(job, name, study)
            trials = study.finished(job.n)
        for trial in trials:
            known = _trial_fingerprint(name, trial.ordinal, trial.parameters)
            if ledger.find(known) is None:  # killed before it was written, or another store's
                with _trial_record(job, name, trial.ordinal, trial.parameters) as kept:
                    log_trial(kept, trial)
        result = Tuned(cell, tuple(trials), importances(trials, job.space), record.run_id)
        log_study(record, result, prepared.dataset.label_name())
    view.tuned(result)
    return result


def _search(job: _Job, name: str, study: OpenStudy) -> None:
    """Computes the trials that are missing; where other processes are at some, waits for them."""
    told = False
    while True:
        study.give_back()
        trial = study.claim(job.n)
        if trial is not None:
            # Its record then says that it failed, and is taken up again where the trial is found.
            with suppress(TrialLostError):
                _run_trial(job, name, study, trial)
            told = False
        elif n_open := study.n_open(job.n):
            if not told:
                job.view.waiting(job.cell, n_open)
                told = True
            time.sleep(_POLL_S)
        else:
            return


class _PrunedError(Exception):
    """Leaves `fit` where a trial is stopped."""


def _run_trial(job: _Job, name: str, study: OpenStudy, trial: Trial) -> None:
    ordinal = study.ordinal(trial)
    parameters = dict(trial.params)
    training = tuned_training(job.cell.training(job.training), parameters)
    rows: list[dict[str, float]] = []

    def on_epoch(row: dict[str, float]) -> None:
        rows.append(row)
        last = int(row["epoch"]) == training.epochs
        if study.report(trial, int(row["epoch"]), row["val_rmse"], last=last):
            raise _PrunedError

    started = time.monotonic()
    with _trial_record(job, name, ordinal, parameters) as record:
        value, error = None, None
        try:
            regressor = Regressor.from_base(job.cell.peft, training, job.cell.seed)
            value = fit(
                regressor,
                training_examples(job.prepared, job.rows),
                job.prepared.validation,
                seed=job.cell.seed,
                epoch_size=epoch_size(job.prepared, training),
                progress=job.view,
                on_epoch=on_epoch,
            ).best_val_rmse
        except _PrunedError:
            pass
        except TrainingError as problem:
            error = str(problem)
        seconds = time.monotonic() - started
        curve = {int(row["epoch"]): row["val_rmse"] for row in rows}
        state: TrialState = "pruned" if value is None else "complete"
        if error is not None:
            state = "diverged"
        elif value is None:
            value = rows[-1]["val_rmse"]
        result = TrialResult(ordinal, state, parameters, value, curve, seconds, error)
        log_trial(record, result, rows)
    # Last: whoever sees that the trial is over finds its run.
    stopped = None if state == "pruned" else value
    if study.close(trial, stopped, seconds, error=error) is not None:
        job.view.tried(job.cell, result, study.finished(job.n), job.n)


@contextmanager
def _trial_record(job: _Job, name: str, ordinal: int, parameters: Parameters) -> Iterator[Recorder]:
    training = tuned_training(job.training, parameters)
    settings = TrialSettings(
        **dict(cell_settings(job.cell, job.prepared, training)), trial=ordinal + 1
    )
    title = f"trial {ordinal + 1}: {described(parameters)}"
    fingerprint = _trial_fingerprint(name, ordinal, parameters)
    with job.ledger.record("trial", title, fingerprint, settings, _tags(job)) as record:
        yield record


def _trial_fingerprint(name: str, ordinal: int, parameters: Parameters) -> str:
    return TuningSettings().fingerprint(study=name, trial=ordinal, parameters=dict(parameters))


def _tags(job: _Job) -> dict[str, object]:
    return {
        "selection": job.cell.choice.name,
        "peft": job.cell.peft,
        "seed": job.cell.seed,
        "base": Path(job.cell.training(job.training).model).name,
        "dataset": job.prepared.dataset.name,
        "split": job.prepared.split.name,
        "scope": job.prepared.scope(),
    }
