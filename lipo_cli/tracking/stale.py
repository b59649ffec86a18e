"""Runs that say RUNNING although nobody runs them: after kill -9, a crash or a lost machine."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import partial

from mlflow.entities import Run

from lipo_cli.errors import TrackingError
from lipo_cli.tracking.found import read_run
from lipo_cli.tracking.handle import WAS_FINISHED_TAG
from lipo_cli.tracking.owner import Liveness, Owner, liveness
from lipo_cli.tracking.signals import deferred_signals
from lipo_cli.tracking.store import Store, pages, tracking_errors

REPAIRED_TAG = "lipo.repaired"

_PAGE = 1000


@dataclass(frozen=True)
class RunningRun:
    """A run in the state RUNNING.

    Attributes:
        run_id: MLflow's name of it.
        name: Its name for people.
        experiment: The name of its experiment.
        owner: The process that opened it.
        state: "alive", "dead" (stale), or "unknown" (another machine or container).
    """

    run_id: str
    name: str
    experiment: str
    owner: Owner
    state: Liveness


def find_running(store: Store) -> list[RunningRun]:
    """Returns our runs that say RUNNING, each with the state of the process that owns it.

    Runs of other programs in the same store are left out.
    """
    client = store.client()
    with tracking_errors(store.uri):
        experiments = {e.experiment_id: e.name for e in client.search_experiments()}
        search = partial(
            client.search_runs,
            list(experiments),
            "attributes.status = 'RUNNING'",
            max_results=_PAGE,
        )
        runs = [run for page in pages(search) for run in page] if experiments else []
    found = [_judge(run, experiments[run.info.experiment_id]) for run in runs]
    return [run for run in found if run is not None]


def find_stale(store: Store) -> list[RunningRun]:
    """Returns the runs that say RUNNING and whose process certainly no longer lives."""
    return [run for run in find_running(store) if run.state == "dead"]


def repair(store: Store, run_ids: Collection[str] = ()) -> list[RunningRun]:
    """Closes stale runs as KILLED. A run whose process lives is never closed.

    One that had finished, was opened again and lost none of its files to that is FINISHED again.

    Args:
        store: The store.
        run_ids: Runs of which this machine cannot tell (another machine's) and which the user says
            are over.

    Returns:
        The runs that were closed.

    Raises:
        TrackingError: one of `run_ids` does not say RUNNING, or lives.
    """
    with store.locked():
        running = find_running(store)
        _check_named(running, run_ids)
        chosen = [r for r in running if r.state == "dead" or r.run_id in run_ids]
        client = store.client()
        for run in chosen:
            with deferred_signals(), tracking_errors(f"run {run.run_id}"):
                client.set_tag(run.run_id, REPAIRED_TAG, f"process {run.owner.pid} is gone")
                client.set_terminated(run.run_id, "FINISHED" if _is_whole(store, run) else "KILLED")
    return chosen


def _is_whole(store: Store, run: RunningRun) -> bool:
    found = read_run(store, run.run_id)
    return found.tags.get(WAS_FINISHED_TAG) == "true" and found.is_complete()


def _check_named(running: list[RunningRun], run_ids: Collection[str]) -> None:
    states = {run.run_id: run for run in running}
    for run_id in run_ids:
        if run_id not in states:
            raise TrackingError("this run does not say RUNNING", where=f"run {run_id}")
        if states[run_id].state == "alive":
            raise TrackingError(
                f"this run is alive: process {states[run_id].owner.pid}", where=f"run {run_id}"
            )


def _judge(run: Run, experiment: str) -> RunningRun | None:
    owner = Owner.from_tags(run.data.tags)
    if owner is None:
        return None
    return RunningRun(
        run_id=run.info.run_id,
        name=run.info.run_name or run.info.run_id,
        experiment=experiment,
        owner=owner,
        state=liveness(owner, run.info.start_time / 1000),
    )
