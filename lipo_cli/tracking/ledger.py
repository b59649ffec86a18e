"""The comparison's ledger, kept in MLflow: one run per record, found again by fingerprint."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pooch

from lipo_cli.errors import TrackingError
from lipo_cli.settings import Settings
from lipo_cli.tracking.found import (
    PARENT_TAG,
    FoundRun,
    find_finished,
    find_unfinished,
)
from lipo_cli.tracking.handle import FINGERPRINT_TAG, RunHandle
from lipo_cli.tracking.owner import Owner, liveness, this_process
from lipo_cli.tracking.registry import promote_champion
from lipo_cli.tracking.runs import KIND_TAG, read_run, start_run
from lipo_cli.tracking.stale import find_stale, repair
from lipo_cli.tracking.store import Store
from lipo_cli.tracking.versions import regressor_folder

REUSED_TAG = "lipo.reused_runs"

_MOST_REUSED = 150
"""Run ids of 32 letters and commas that fit into a tag of 5000."""


@dataclass
class _OpenRecord:
    """A record that is open, and the finished runs that were found for it."""

    run_id: str
    reused: list[str] = field(default_factory=list)


class MlflowLedger:
    """Records of one experiment.

    A record opened inside another becomes its child. One that was killed is taken up again under
    its old run, so that a comparison that was interrupted five times is one comparison. Finished
    runs of other comparisons that were found while a record was open are named in its tag
    `lipo.reused_runs`: a run has one parent only.

    Args:
        store: Where the runs are.
        experiment: The experiment's name.
        anywhere: Finished runs of the store's other experiments count as found too: what
            `lipo score` trained and computed serves `lipo compare`.
    """

    def __init__(self, store: Store, experiment: str, *, anywhere: bool = False) -> None:
        self.store = store
        self.experiment = experiment
        self._anywhere = anywhere
        self._open: list[_OpenRecord] = []

    @property
    def scratch(self) -> Path:
        """A folder beside the store, or in the user's cache when the store is a server."""
        folder = self.store.root / "scratch" if self.store.root else Path(pooch.os_cache("lipo"))
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    @property
    def studies(self) -> Path:
        """`tuning/` beside the store, or in the user's cache when the store is a server."""
        return (self.store.root or Path(pooch.os_cache("lipo"))) / "tuning"

    def this_process(self) -> dict[str, str]:
        """Names this process, to be asked about later."""
        return this_process().tags()

    def lives(self, process: Mapping[str, str], since: float) -> bool | None:
        """Tells whether a process of that name lives; None: this machine cannot tell."""
        owner = Owner.from_tags(process)
        state = liveness(owner, since) if owner is not None else "unknown"
        return None if state == "unknown" else state == "alive"

    def find(self, fingerprint: str) -> FoundRun | None:
        """Returns the finished run of this fingerprint, if all its files are there."""
        found = find_finished(self.store, self.experiment, fingerprint, anywhere=self._anywhere)
        if found is not None and self._open:
            record = self._open[-1]
            own = found.tags.get(PARENT_TAG) == record.run_id
            if not own and found.run_id not in record.reused:
                record.reused.append(found.run_id)
        return found

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

        A run of this fingerprint that ended before is opened again and completed. Of several
        processes that ask at once, one takes it up: the choice and the run's opening happen under
        the store's lock, and the others, who then see it run, open a run of their own. (A server
        has no such lock.)
        """
        parent = self._open[-1].run_id if self._open else None
        with ExitStack() as stack:
            with self.store.locked():
                self._close_dead(fingerprint)
                earlier = find_unfinished(
                    self.store, self.experiment, fingerprint
                ) or find_finished(self.store, self.experiment, fingerprint)
                # Entered under the lock, left long after it.
                run = stack.enter_context(
                    start_run(
                        self.store,
                        self.experiment,
                        name,
                        parent_run_id=parent,
                        tags={**tags, KIND_TAG: kind, FINGERPRINT_TAG: fingerprint},
                        settings=settings,
                        run_id=earlier.run_id if earlier is not None else None,
                    )
                )
            record = _OpenRecord(run.run_id)
            self._open.append(record)
            try:
                yield run
            finally:
                self._open.pop()
            if record.reused or (earlier is not None and REUSED_TAG in earlier.tags):
                run.tag(REUSED_TAG, ",".join(record.reused[:_MOST_REUSED]))

    def _close_dead(self, fingerprint: str) -> None:
        """Closes runs whose process died without a word, if one is of this fingerprint.

        The store's lock must be held.
        """
        dead = [
            run.run_id
            for run in find_stale(self.store)
            if read_run(self.store, run.run_id).tags.get(FINGERPRINT_TAG) == fingerprint
        ]
        if dead:
            # The lock is held here and cannot be taken twice; a store without a root takes none.
            repair(replace(self.store, root=None), dead)

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
            comparison_run_id=self._open[-1].run_id if self._open else None,
        )
        return {
            "model": champion.model,
            "version": champion.version,
            "run_id": champion.run_id,
            "replaced": champion.replaced,
            "reason": champion.reason,
        }
