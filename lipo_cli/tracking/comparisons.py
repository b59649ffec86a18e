"""Comparisons that are over, and the files that they left in their runs."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath

from mlflow.entities import ViewType

from lipo_cli.errors import TrackingError
from lipo_cli.tracking.found import FoundRun, read_run
from lipo_cli.tracking.handle import MANIFEST
from lipo_cli.tracking.runs import KIND_TAG
from lipo_cli.tracking.store import Store, tracking_errors

RESULT_FOLDER = PurePosixPath("result")
"""Where a comparison keeps its tables, settings and values in its run."""
FIGURES_FOLDER = PurePosixPath("figures")
_KIND = "comparison"
_AGAIN = "the same `lipo compare` again goes on with it"


def find_comparison(store: Store, run_id: str | None = None) -> FoundRun:
    """Returns a finished comparison: the one that is named, or the one that ended last.

    Raises:
        TrackingError: there is none, or the run is something else or has not ended well.
    """
    if run_id is None:
        return _newest(store)
    run = read_run(store, run_id)
    kind = run.tags.get(KIND_TAG)
    if kind != _KIND:
        raise TrackingError(
            f"is no comparison{f' but a {kind}' if kind else ''}",
            where=f"run {run_id}",
            hint="`lipo report` without a run takes the newest one",
        )
    if run.status != "FINISHED":
        raise TrackingError(f"the run is {run.status}", where=f"run {run_id}", hint=_AGAIN)
    return run


def comparison_files(run: FoundRun, into: Path) -> tuple[Path, Path]:
    """Puts the files of a comparison's result into a folder.

    Args:
        run: The comparison.
        into: An empty folder.

    Returns:
        The folder of the result, and that of its figures.

    Raises:
        TrackingError: the run has no list of its files, or one of them is gone.
    """
    try:
        expected = list(json.loads(run.artifact(MANIFEST).read_text(encoding="utf-8")))
    except ValueError as error:
        raise TrackingError(
            f"its list of files, {MANIFEST}, cannot be read", where=f"run {run.run_id}", hint=_AGAIN
        ) from error
    for name in expected:
        parts = PurePosixPath(name).parts
        if parts[0] not in (RESULT_FOLDER.name, FIGURES_FOLDER.name) or ".." in parts:
            continue
        target = into / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(run.artifact(name).read_bytes())
    return into / RESULT_FOLDER, into / FIGURES_FOLDER


def _newest(store: Store) -> FoundRun:
    client = store.client()
    with tracking_errors(store.uri):
        experiments = [e.experiment_id for e in client.search_experiments(ViewType.ACTIVE_ONLY)]
        found = client.search_runs(
            experiments,
            f"tags.`{KIND_TAG}` = '{_KIND}' AND attributes.status = 'FINISHED'",
            max_results=1,
            order_by=["attributes.end_time DESC"],
        )
    if not found:
        raise TrackingError(
            "there is no finished comparison here",
            where=store.root or store.shown,
            hint="`lipo compare` makes one; or --store DIR",
        )
    return read_run(store, found[0].info.run_id)
