"""The comparison's ledger, kept in MLflow: one run per record, found again by fingerprint."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pooch

from lipo_cli.errors import TrackingError
from lipo_cli.settings import Settings
from lipo_cli.tracking.found import FINGERPRINT_TAG, FoundRun, find_finished, find_unfinished
from lipo_cli.tracking.handle import RunHandle
from lipo_cli.tracking.registry import promote_champion, regressor_folder
from lipo_cli.tracking.runs import KIND_TAG, read_run, start_run
from lipo_cli.tracking.stale import find_stale, repair
from lipo_cli.tracking.store import Store


class MlflowLedger:
    """Records of one experiment.

    A record opened inside another becomes its child. One that was killed is taken up again under
    its old run, so that a comparison that was interrupted five times is one comparison.

    Args:
        store: Where the runs are.
        experiment: The experiment's name.
    """

    def __init__(self, store: Store, experiment: str) -> None:
        self.store = store
        self.experiment = experiment
        self._open: list[str] = []

    @property
    def scratch(self) -> Path:
        """A folder beside the store, or in the user's cache when the store is a server."""
        folder = self.store.root / "scratch" if self.store.root else Path(pooch.os_cache("lipo"))
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def find(self, fingerprint: str) -> FoundRun | None:
        """Returns the finished run of this fingerprint, if all its files are there."""
        return find_finished(self.store, self.experiment, fingerprint)

    @contextmanager
    def record(
        self,
        kind: str,
        name: str,
        fingerprint: str,
        settings: Settings,
        tags: Mapping[str, object],
    ) -> Iterator[RunHandle]:
        """Opens a run for the length of a block; it ends in a final state whatever happens.

        A run of this fingerprint that ended before is opened again and completed.
        """
        self._close_dead(fingerprint)
        earlier = find_unfinished(self.store, self.experiment, fingerprint) or self.find(
            fingerprint
        )
        with start_run(
            self.store,
            self.experiment,
            name,
            parent_run_id=self._open[-1] if self._open else None,
            tags={**tags, KIND_TAG: kind, FINGERPRINT_TAG: fingerprint},
            settings=settings,
            run_id=earlier.run_id if earlier is not None else None,
        ) as run:
            self._open.append(run.run_id)
            try:
                yield run
            finally:
                self._open.pop()

    def _close_dead(self, fingerprint: str) -> None:
        """Closes runs of this fingerprint whose process died without a word, to take them up."""
        dead = [
            run.run_id
            for run in find_stale(self.store)
            if read_run(self.store, run.run_id).tags.get(FINGERPRINT_TAG) == fingerprint
        ]
        if dead:
            repair(self.store, dead)

    def regressor_folder(self, run_id: str) -> Path:
        """Returns the saved regressor of a run.

        Raises:
            TrackingError: the run logged none.
        """
        return regressor_folder(self.store, self._model_uri(run_id))

    def _model_uri(self, run_id: str) -> str:
        uri = read_run(self.store, run_id).model_uri
        if uri is None:
            raise TrackingError("the run has no model", where=f"run {run_id}")
        return uri

    def promote(
        self, run_id: str, name: str, val_rmse: float, scope: str, evidence: Mapping[str, object]
    ) -> dict[str, Any]:
        """Offers a run's model as champion of a registered model."""
        champion = promote_champion(
            self.store,
            run_id,
            self._model_uri(run_id),
            name,
            metric_value=val_rmse,
            scope=scope,
            evidence=evidence,
        )
        return {
            "model": champion.model,
            "version": champion.version,
            "run_id": champion.run_id,
            "replaced": champion.replaced,
            "reason": champion.reason,
        }
