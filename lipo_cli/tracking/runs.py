"""A run is opened, written, and always ends in a final state.

with start_run(store, "lipo", "full, seed 0", tags={...}, settings=settings) as run:
    run.history(rows)
    run.metrics({"val_rmse": 0.71})
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from lipo_cli.errors import TrackingError
from lipo_cli.settings import Settings
from lipo_cli.tracking.found import (
    PARENT_TAG,
    FoundRun,
    find_children,
    find_finished,
    find_runs,
    find_unfinished,
    read_run,
)
from lipo_cli.tracking.handle import FINGERPRINT_TAG, WAS_FINISHED_TAG, RunHandle
from lipo_cli.tracking.owner import this_process
from lipo_cli.tracking.provenance import provenance_tags
from lipo_cli.tracking.signals import deferred_signals, is_interruption, sigterm_raises
from lipo_cli.tracking.store import Store, first_line, tracking_errors

__all__ = [
    "FINGERPRINT_TAG",
    "KIND_TAG",
    "FoundRun",
    "RunHandle",
    "find_children",
    "find_finished",
    "find_runs",
    "find_unfinished",
    "read_run",
    "start_run",
]

KIND_TAG = "lipo.kind"
ERROR_TAG = "error"

_TAG_LIMIT = 5000


@contextmanager
def start_run(
    store: Store,
    experiment: str,
    name: str,
    *,
    parent_run_id: str | None = None,
    tags: Mapping[str, object] | None = None,
    settings: Settings | None = None,
    run_id: str | None = None,
) -> Iterator[RunHandle]:
    """Opens a run for the length of a block and closes it whatever happens in there.

    It ends FINISHED; KILLED on Ctrl-C, SIGTERM and SystemExit; FAILED, with the tag `error`, on any
    other exception. One that had finished before and was taken up again stays finished as long as
    all its files are still as they were then. The run says which process owns it, so that one that
    was killed without notice can be told from one that lives.

    Args:
        store: Where it goes.
        experiment: The experiment's name; made where there is none.
        name: The run's name for people.
        parent_run_id: The run that it belongs under.
        tags: More tags, for example `lipo.kind` and `lipo.fingerprint`.
        settings: Logged as parameters.
        run_id: Take this run up again instead of making one; its parameters must be the same.

    Raises:
        TrackingError: the store refuses, or a resumed run has other parameters.
    """
    all_tags = {name: str(value)[:_TAG_LIMIT] for name, value in (tags or {}).items()}
    all_tags |= this_process().tags() | provenance_tags()
    if parent_run_id is not None:
        all_tags[PARENT_TAG] = parent_run_id
    client = store.client()
    with sigterm_raises():
        handle: RunHandle | None = None
        finished = False
        try:
            with deferred_signals(), tracking_errors(experiment):
                handle = (
                    _open(store, client, experiment, name, all_tags)
                    if run_id is None
                    else _reopen(store, client, run_id, all_tags)
                )
            if settings is not None:
                handle.params(settings.flat())
            yield handle
            handle.seal()
            with deferred_signals(), tracking_errors(f"run {handle.run_id}"):
                client.set_terminated(handle.run_id, "FINISHED")
                finished = True
        except BaseException as error:
            # A signal that came while the run was being closed is delivered after that.
            if handle is not None and not finished:
                _close_after(client, handle, error)
            raise


def _open(
    store: Store, client: MlflowClient, experiment: str, name: str, tags: Mapping[str, str]
) -> RunHandle:
    experiment_id = _experiment_id(store, client, experiment)
    run = client.create_run(experiment_id, tags=dict(tags), run_name=name)
    return RunHandle(store, run.info.run_id, experiment_id, resumed=False)


_OF_WHO_BEGAN = ("selection", "role")
"""Selections of the same points share a run, whose name and parameters are of the first of them."""


def _reopen(store: Store, client: MlflowClient, run_id: str, tags: Mapping[str, str]) -> RunHandle:
    run = client.get_run(run_id)
    for key, value in tags.items():
        if key not in _OF_WHO_BEGAN or key not in run.data.tags:
            client.set_tag(run_id, key, value)
    if ERROR_TAG in run.data.tags:
        client.delete_tag(run_id, ERROR_TAG)
    was_finished = run.info.status == "FINISHED"
    # Before it says RUNNING: who kills this process leaves word for the repair.
    client.set_tag(run_id, WAS_FINISHED_TAG, str(was_finished).lower())
    client.update_run(run_id, status="RUNNING")
    return RunHandle(store, run_id, run.info.experiment_id, resumed=True, was_finished=was_finished)


def _experiment_id(store: Store, client: MlflowClient, name: str) -> str:
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return client.create_experiment(name, _artifact_location(store, name))
        except MlflowException:
            # Another process was faster.
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    if found.lifecycle_stage != "active":
        raise TrackingError(
            f"the experiment {name!r} was deleted",
            where=store.uri,
            hint=f"`mlflow experiments restore -x {found.experiment_id}`, or another name",
        )
    return found.experiment_id


def _artifact_location(store: Store, experiment: str) -> str | None:
    if store.artifacts is None:
        return None
    plain = re.sub(r"[^A-Za-z0-9_-]+", "-", experiment)[:60]
    if plain != experiment:
        # Two names must not share a folder.
        plain = f"{plain}-{hashlib.sha256(experiment.encode()).hexdigest()[:8]}"
    return (store.artifacts / plain).as_uri()


def _close_after(client: MlflowClient, handle: RunHandle, error: BaseException) -> None:
    """Ends a run after an exception, which stays the one that the caller sees."""
    run_id = handle.run_id
    status = "KILLED" if is_interruption(error) else "FAILED"
    try:
        if handle.was_finished and read_run(handle.store, run_id).is_complete():
            status = "FINISHED"  # no file of it was written anew yet
        with deferred_signals():
            if status == "FAILED":
                client.set_tag(run_id, ERROR_TAG, first_line(error)[:_TAG_LIMIT])
            client.set_terminated(run_id, status)
    except Exception as problem:
        error.add_note(f"and run {run_id} could not be closed: {first_line(problem)}")
