"""Runs that are over: found by what decides their result, and read back."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path

from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.entities import Experiment, LoggedModelStatus, Run
from mlflow.exceptions import MlflowException
from mlflow.store.entities.paged_list import PagedList

from lipo_cli.errors import TrackingError
from lipo_cli.tracking.handle import FINGERPRINT_TAG, MANIFEST, MODEL_TAG
from lipo_cli.tracking.store import Store, pages, tracking_errors

PARENT_TAG = "mlflow.parentRunId"

_PAGE = 1000


@dataclass(frozen=True)
class FoundRun:
    """A run as it stands in the store.

    Attributes:
        store: Where it is.
        run_id: MLflow's name of it.
        name: Its name for people.
        status: RUNNING, FINISHED, FAILED or KILLED.
        metrics: The last value of every metric.
        params: The settings, as text.
        tags: All tags.
        artifact_uri: Where its files are.
    """

    store: Store
    run_id: str
    name: str
    status: str
    metrics: Mapping[str, float]
    params: Mapping[str, str]
    tags: Mapping[str, str]
    artifact_uri: str

    @property
    def model_uri(self) -> str | None:
        """The address of its model, when it logged one."""
        return self.tags.get(MODEL_TAG)

    def history(self, metric: str) -> list[tuple[int, float]]:
        """Returns the curve of a metric as (step, value), by step; of a step the last value."""
        with tracking_errors(f"run {self.run_id}"):
            points = self.store.client().get_metric_history(self.run_id, metric)
        ordered = sorted(points, key=lambda point: (point.step, point.timestamp))
        return sorted({point.step: point.value for point in ordered}.items())

    def epochs(self, metrics: Sequence[str]) -> list[dict[str, float]]:
        """Returns curves as `RunHandle.history` took them: one row per step with key `epoch`."""
        rows: dict[int, dict[str, float]] = {}
        for metric in metrics:
            for step, value in self.history(metric):
                rows.setdefault(step, {"epoch": step})[metric] = value
        return [rows[step] for step in sorted(rows)]

    def artifact(self, name: str) -> Path:
        """Returns a file of the run on this machine, downloaded when the store is elsewhere.

        Raises:
            TrackingError: the run has no such file.
        """
        try:
            # By address, not by run: a file that is on this machine is then not copied.
            address = f"{self.artifact_uri.rstrip('/')}/{name}"
            path = Path(download_artifacts(artifact_uri=address, tracking_uri=self.store.uri))
        except (MlflowException, OSError):
            path = Path()
        if not path.is_file():
            raise TrackingError(f"the run has no file {name}", where=f"run {self.run_id}")
        return path

    def is_complete(self) -> bool:
        """Tells whether every file that the run wrote, and its model, are still there."""
        try:
            expected: dict[str, int] = json.loads(self.artifact(MANIFEST).read_text())
        except (TrackingError, OSError, json.JSONDecodeError):
            return False
        client = self.store.client()
        folders = {name.rpartition("/")[0] for name in expected}
        try:
            present = {
                entry.path: entry.file_size
                for folder in folders
                for entry in client.list_artifacts(self.run_id, folder or None)
            }
            whole = all(present.get(name) == size for name, size in expected.items())
            return whole and (self.model_uri is None or _model_is_ready(client, self.model_uri))
        except (MlflowException, OSError):
            return False


def read_run(store: Store, run_id: str) -> FoundRun:
    """Reads a run.

    Raises:
        TrackingError: there is no such run.
    """
    with tracking_errors(f"run {run_id}"):
        return _found(store, store.client().get_run(run_id))


def find_finished(
    store: Store, experiment: str, fingerprint: str, *, anywhere: bool = False
) -> FoundRun | None:
    """Finds the latest finished, complete run of the same settings, data and code.

    Args:
        store: Where to look.
        experiment: The experiment's name.
        fingerprint: What decides the result; the tag `lipo.fingerprint`.
        anywhere: Look in the store's other experiments too, after this one.

    Returns:
        The run, or None when it must be computed.
    """
    condition = f"tags.`{FINGERPRINT_TAG}` = '{fingerprint}' AND attributes.status = 'FINISHED'"
    others = _other_experiments(store, experiment) if anywhere else ()
    # Lazily: the others are asked only where the own experiment has none.
    elsewhere = (_search(store, ids, condition) for ids in others)
    pages = chain([find_runs(store, experiment, condition)], elsewhere)
    return next((run for runs in pages for run in runs if run.is_complete()), None)


def _other_experiments(store: Store, experiment: str) -> Iterator[list[str]]:
    """Yields the ids of all experiments but one, those that changed last first."""
    search = partial(
        store.client().search_experiments, max_results=_PAGE, order_by=["last_update_time DESC"]
    )

    def ask(page_token: str | None) -> PagedList[Experiment]:
        with tracking_errors("the store"):
            return search(page_token=page_token)

    for page in pages(ask):
        if ids := [each.experiment_id for each in page if each.name != experiment]:
            yield ids


def find_unfinished(store: Store, experiment: str, fingerprint: str) -> FoundRun | None:
    """Finds the latest run of the same fingerprint that was killed or failed, to take it up."""
    condition = f"tags.`{FINGERPRINT_TAG}` = '{fingerprint}' AND attributes.status != 'FINISHED'"
    runs = find_runs(store, experiment, condition)
    return next((run for run in runs if run.status != "RUNNING"), None)


def find_children(store: Store, experiment: str, parent_run_id: str) -> list[FoundRun]:
    """Returns the runs under a parent, the latest first."""
    return find_runs(store, experiment, f"tags.`{PARENT_TAG}` = '{parent_run_id}'")


def find_runs(store: Store, experiment: str, condition: str = "") -> list[FoundRun]:
    """Returns the runs of an experiment that fulfil a condition of MLflow's, the latest first."""
    with tracking_errors(experiment):
        found = store.client().get_experiment_by_name(experiment)
    return [] if found is None else _search(store, [found.experiment_id], condition)


def _search(store: Store, experiment_ids: list[str], condition: str) -> list[FoundRun]:
    search = partial(
        store.client().search_runs,
        experiment_ids,
        condition,
        max_results=_PAGE,
        order_by=["attributes.start_time DESC"],
    )
    with tracking_errors("the store"):
        return [_found(store, run) for page in pages(search) for run in page]


def _found(store: Store, run: Run) -> FoundRun:
    return FoundRun(
        store=store,
        run_id=run.info.run_id,
        name=run.info.run_name or run.info.run_id,
        status=run.info.status,
        metrics=dict(run.data.metrics),
        params=dict(run.data.params),
        tags=dict(run.data.tags),
        artifact_uri=run.info.artifact_uri,
    )


def _model_is_ready(client: MlflowClient, uri: str) -> bool:
    model = client.get_logged_model(uri.removeprefix("models:/"))
    files = {entry.path for entry in client.list_logged_model_artifacts(model.model_id)}
    return model.status == LoggedModelStatus.READY and "MLmodel" in files
