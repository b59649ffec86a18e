"""Where results are kept and found again, as the comparison sees it.

The tracking room keeps them in MLflow; tests keep them in memory. The comparison knows neither.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import pandas as pd

from lipo_cli.settings import Settings

_PACKAGE = Path(__file__).parents[1]
_LIBRARIES_THAT_DECIDE_RESULTS = (
    "numpy",
    "peft",
    "rdkit",
    "scikit-learn",
    "scipy",
    "tokenizers",
    "torch",
    "transformers",
)
_COMPARISON_THAT_DECIDES = (
    "cell_record",
    "cell_result",
    "cells",
    "influence_scoring",
    "metrics",
    "prepare",
    "scoring",
    "scoring_methods",
    "targets",
    "uncertain",
    "uncertainty",
)
_ROOMS_THAT_DECIDE_RESULTS = ("chem", "model", "training", "valuation")


class Recorder(Protocol):
    """An open record of one computation."""

    @property
    def run_id(self) -> str:
        """The record's name in the store."""

    def metrics(self, values: Mapping[str, float | int | None], step: int | None = None) -> None:
        """Keeps numbers."""

    def history(self, rows: Sequence[Mapping[str, float | int | None]]) -> None:
        """Keeps curves: one row per epoch with the key `epoch`."""

    def tags(self, values: Mapping[str, object]) -> None:
        """Keeps texts."""

    def file(self, path: Path, folder: str | None = None) -> None:
        """Keeps a file."""

    def figure(self, path: Path) -> None:
        """Keeps a figure."""

    def table(self, frame: pd.DataFrame, name: str) -> None:
        """Keeps a table as `tables/<name>.csv` and `.parquet`."""

    def dataset(
        self, frame: pd.DataFrame, name: str, source: str, context: str, sha256: str
    ) -> None:
        """Keeps what went in."""

    def model(self, folder: Path, example_smiles: Sequence[str], name: str = "model") -> str:
        """Keeps a saved regressor and returns its address."""


class Finished(Protocol):
    """The record of a computation that ended well."""

    @property
    def run_id(self) -> str:
        """The record's name in the store."""

    @property
    def metrics(self) -> Mapping[str, float]:
        """The numbers kept, the last of each."""

    @property
    def tags(self) -> Mapping[str, str]:
        """The texts kept."""

    def epochs(self, metrics: Sequence[str]) -> list[dict[str, float]]:
        """Returns the curves, one row per epoch."""

    def artifact(self, name: str) -> Path:
        """Returns a file on this machine."""


class Ledger(Protocol):
    """Opens records, and finds finished ones by what decides their result."""

    @property
    def scratch(self) -> Path:
        """A folder that outlives the process, for what a killed run goes on from."""

    @property
    def studies(self) -> Path:
        """The folder for the trials of tuning."""

    def this_process(self) -> Mapping[str, str]:
        """Names this process, to be asked about later."""

    def lives(self, process: Mapping[str, str], since: float) -> bool | None:
        """Tells whether a process of that name lives; None: this machine cannot tell.

        Args:
            process: What its `this_process` returned.
            since: When it was certainly there, in seconds since the epoch.
        """

    def find(self, fingerprint: str) -> Finished | None:
        """Returns the finished record of this fingerprint, or None."""

    def record(
        self,
        kind: str,
        name: str,
        fingerprint: str,
        settings: Settings,
        tags: Mapping[str, object],
    ) -> AbstractContextManager[Recorder]:
        """Opens a record for the length of a block."""

    def regressor_folder(self, run_id: str) -> Path:
        """Returns the saved regressor of a record."""

    def promote(
        self, run_id: str, name: str, val_rmse: float, scope: str, evidence: Mapping[str, object]
    ) -> dict[str, Any]:
        """Offers a record's model as champion; returns model, version, run_id and the reason."""


@lru_cache
def code_version(more: tuple[str, ...] = (), libraries: tuple[str, ...] = ()) -> str:
    """Returns 12 hex digits of the code that decides results, and of the libraries below it.

    A version number alone would find results of other code again while one is developing.

    Args:
        more: Modules of the comparison that decide, beside those that decide every cell.
        libraries: Libraries that decide, beside those below every cell.
    """
    digest = hashlib.sha256()
    for library in (*_LIBRARIES_THAT_DECIDE_RESULTS, *libraries):
        digest.update(f"{library}=={version(library)}".encode())
    for path in _sources((*_COMPARISON_THAT_DECIDES, *more)):
        digest.update(path.relative_to(_PACKAGE).as_posix().encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def _sources(names: Sequence[str]) -> Iterator[Path]:
    for room in _ROOMS_THAT_DECIDE_RESULTS:
        yield from sorted((_PACKAGE / room).rglob("*.py"))
    for name in names:
        yield _PACKAGE / "comparison" / f"{name}.py"
