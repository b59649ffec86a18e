"""What a running computation may write into its run."""

from __future__ import annotations

import json
import math
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.data.pandas_dataset import from_pandas
from mlflow.entities import DatasetInput, InputTag, Metric, Param, RunTag

from lipo_cli.errors import TrackingError
from lipo_cli.tracking.model_logging import log_regressor
from lipo_cli.tracking.signals import deferred_signals
from lipo_cli.tracking.store import Store, tracking_errors

WAS_FINISHED_TAG = "lipo.was_finished"
"""Whether a run that was taken up again had ended well before."""
MANIFEST = "artifacts.json"
FINGERPRINT_TAG = "lipo.fingerprint"
MODEL_TAG = "lipo.model_uri"
NOTE_TAG = "mlflow.note.content"
NOT_FINITE_TAG = "lipo.not_finite"

_METRICS_PER_BATCH = 1000
_PARAMS_PER_BATCH = 100
_VALUE_LIMIT = 5000
NOTE_LIMIT = _VALUE_LIMIT
"""Characters of a description."""


class RunHandle:
    """An open run. Every call is one short, uninterrupted write.

    Attributes:
        run_id: MLflow's name of the run.
        store: Where it is.
        experiment_id: MLflow's number of its experiment.
        was_finished: Whether it had finished before it was opened again.
    """

    def __init__(
        self,
        store: Store,
        run_id: str,
        experiment_id: str,
        *,
        resumed: bool,
        was_finished: bool = False,
    ) -> None:
        self.store = store
        self.run_id = run_id
        self.experiment_id = experiment_id
        self._client = store.client()
        self.was_finished = was_finished
        self._resumed = resumed
        self._written: dict[str, int] = {}

    def metrics(self, values: Mapping[str, float | int | None], step: int | None = None) -> None:
        """Logs numbers in one batch.

        None is left out. NaN and infinity are never a score: they are left out too, and named in
        the tag `lipo.not_finite`.
        """
        given = {name: float(value) for name, value in values.items() if value is not None}
        broken = sorted(name for name, value in given.items() if not math.isfinite(value))
        self._log_metrics(
            [(name, value, step or 0) for name, value in given.items() if name not in broken]
        )
        if broken:
            self.tag(NOT_FINITE_TAG, ", ".join(broken))

    def history(self, rows: Sequence[Mapping[str, float | int | None]]) -> None:
        """Logs curves: one row per epoch with the key `epoch`, all of it in one batch.

        Steps that a resumed run already holds are not logged twice.

        Raises:
            TrackingError: a row has no `epoch`.
        """
        points: list[tuple[str, float, int]] = []
        for row in rows:
            epoch = row.get("epoch")
            if epoch is None:
                raise TrackingError("a row of the history has no epoch", where=self.run_id)
            points.extend(
                (name, float(value), int(epoch))
                for name, value in row.items()
                if name != "epoch" and value is not None and math.isfinite(value)
            )
        known = self._known_steps({name for name, _, _ in points}) if self._resumed else set()
        self._log_metrics([point for point in points if (point[0], point[2]) not in known])

    def params(self, values: Mapping[str, str]) -> None:
        """Logs parameters; those that a resumed run already holds must be the same.

        A run that is known by its fingerprint keeps the spelling that it was begun with: `tsds` and
        `tsds:optimal`, a default and the same number written out, are one fingerprint.

        Raises:
            TrackingError: a parameter differs from the one in the run.
        """
        wanted = {name: value[:_VALUE_LIMIT] for name, value in values.items()}
        if self._resumed:
            wanted = self._new_params(wanted)
        entries = [Param(name, value) for name, value in wanted.items()]
        with self._writing():
            for start in range(0, len(entries), _PARAMS_PER_BATCH):
                self._client.log_batch(
                    self.run_id, params=entries[start : start + _PARAMS_PER_BATCH]
                )

    def tag(self, name: str, value: object) -> None:
        """Sets a tag, replacing an earlier value."""
        self.tags({name: value})

    def tags(self, values: Mapping[str, object]) -> None:
        """Sets several tags in one write."""
        entries = [RunTag(name, str(value)[:_VALUE_LIMIT]) for name, value in values.items()]
        with self._writing():
            self._client.log_batch(self.run_id, tags=entries)

    def note(self, text: str) -> None:
        """Sets the description that MLflow's UI shows on the run's page, in Markdown."""
        self.tag(NOTE_TAG, text)

    def file(self, path: Path, folder: str | None = None) -> None:
        """Copies a file into the run, under `folder` when one is given.

        Raises:
            TrackingError: there is no such file.
        """
        if not path.is_file():
            raise TrackingError("there is no such file to log", where=path)
        with self._writing():
            self._client.log_artifact(self.run_id, str(path), folder)
        name = f"{folder.strip('/')}/{path.name}" if folder else path.name
        self._written[name] = path.stat().st_size

    def figure(self, path: Path) -> None:
        """Copies a figure into the run's folder `figures`."""
        self.file(path, "figures")

    def table(self, frame: pd.DataFrame, name: str) -> None:
        """Writes a table as `tables/<name>.csv` (to read) and `.parquet` (to go on with)."""
        with tempfile.TemporaryDirectory() as scratch:
            text = Path(scratch) / f"{name}.csv"
            binary = Path(scratch) / f"{name}.parquet"
            frame.to_csv(text, index=False)
            frame.to_parquet(binary, index=False)
            self.file(text, "tables")
            self.file(binary, "tables")

    def dataset(
        self, frame: pd.DataFrame, name: str, source: str, context: str, sha256: str
    ) -> None:
        """Logs what went in.

        Args:
            frame: The rows, as used.
            name: The dataset's name.
            source: Where it came from: a path or an address.
            context: What it was used for: "train", "validation", "test", "secondary".
            sha256: The checksum of the file.
        """
        with warnings.catch_warnings():
            # Two of MLflow's own classes claim every local path.
            warnings.filterwarnings("ignore", "The specified dataset source", UserWarning)
            # The row numbers are whole, and stay so.
            warnings.filterwarnings("ignore", "Hint: Inferred schema contains", UserWarning)
            entity = from_pandas(frame, source=source, name=name)._to_mlflow_entity()
        tags = [InputTag("mlflow.data.context", context), InputTag("sha256", sha256)]
        entry = DatasetInput(entity, tags=tags)
        with self._writing():
            self._client.log_inputs(self.run_id, [entry])

    def model(self, folder: Path, example_smiles: Sequence[str], name: str = "model") -> str:
        """Logs a saved regressor as an MLflow model.

        Args:
            folder: What `Regressor.save` wrote.
            example_smiles: A few molecules for the input example.
            name: The model's name in the run.

        Returns:
            Its address, `models:/m-...`.

        Raises:
            TrackingError: the folder holds no saved regressor, or MLflow refuses it.
        """
        with self._writing():
            uri = log_regressor(
                self._client, self.experiment_id, self.run_id, folder, example_smiles, name
            )
        self.tag(MODEL_TAG, uri)
        return uri

    def seal(self) -> None:
        """Writes down which files belong to the run, so that a reader can tell it is whole."""
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / MANIFEST
            path.write_text(json.dumps(self._written, indent=1, sort_keys=True))
            with self._writing():
                self._client.log_artifact(self.run_id, str(path))

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with deferred_signals(), tracking_errors(f"run {self.run_id}"):
            yield

    def _log_metrics(self, points: Sequence[tuple[str, float, int]]) -> None:
        now = time.time_ns() // 1_000_000
        entries = [Metric(name, value, now, step) for name, value, step in points]
        with self._writing():
            for start in range(0, len(entries), _METRICS_PER_BATCH):
                self._client.log_batch(
                    self.run_id, metrics=entries[start : start + _METRICS_PER_BATCH]
                )

    def _known_steps(self, names: set[str]) -> set[tuple[str, int]]:
        with tracking_errors(f"run {self.run_id}"):
            return {
                (name, point.step)
                for name in names
                for point in self._client.get_metric_history(self.run_id, name)
            }

    def _new_params(self, wanted: Mapping[str, str]) -> dict[str, str]:
        with tracking_errors(f"run {self.run_id}"):
            data = self._client.get_run(self.run_id).data
        known: dict[str, Any] = data.params
        if FINGERPRINT_TAG in data.tags:
            return {name: value for name, value in wanted.items() if name not in known}
        for name, value in wanted.items():
            if known.get(name, value) != value:
                raise TrackingError(
                    f"the run holds {name} = {known[name]}, now it is {value}",
                    where=f"run {self.run_id}",
                    hint="another setting is another run",
                )
        return {name: value for name, value in wanted.items() if name not in known}
