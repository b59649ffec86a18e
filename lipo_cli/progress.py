"""How long work reports itself: the rooms in the middle speak to this, the terminal listens."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """What a long computation tells about itself."""

    def start(self, name: str, total: int | None, unit: str) -> None:
        """Opens a task of `total` units (None: unknown), for example 96 "batches"."""

    def advance(self, n: int = 1, **fields: float | int | str) -> None:
        """Reports `n` more units, with fields to show, for example `val_rmse=0.71`."""

    def finish(self) -> None:
        """Closes the task."""


class SilentProgress:
    """A listener that ignores everything: the default of every function."""

    def start(self, name: str, total: int | None, unit: str) -> None:
        """Ignores the task."""

    def advance(self, n: int = 1, **fields: float | int | str) -> None:
        """Ignores the step."""

    def finish(self) -> None:
        """Ignores the end."""
