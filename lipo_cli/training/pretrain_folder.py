"""The output folder of a pretraining run, and in it the state from which it goes on.

While a run is under way, `state/` holds its identity, the cleaned corpus, the tokenizer and the
last checkpoint; each is written whole or not at all. A finished run leaves the model and its
report only.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import filelock
import torch

from lipo_cli.errors import TrainingError
from lipo_cli.model.folder import write_json
from lipo_cli.training.corpus import Corpus

REPORT = "pretrain.json"
_PARTS = ("config.json", "tokenizer.json", "model.safetensors")


@dataclass
class PretrainState:
    """Where a run stands after an optimiser step.

    Everything random in a step is drawn from (seed, step), so no generator is kept.

    Attributes:
        step: Optimiser steps done.
        history: Rows of the curve so far.
        loss_sum: Summed cross-entropy since the last row, in nats.
        n_asked: Tokens asked since the last row.
        descriptor_sum: Summed descriptor loss since the last row.
        n_descriptors: Descriptors asked since the last row.
        n_views: Molecules seen in all.
        seconds: Time spent training in all.
        model: Weights and buffers.
        optimizer: The optimiser's state.
        head: Weights of the descriptor head; empty where there is none.
    """

    step: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    loss_sum: float = 0.0
    n_asked: int = 0
    descriptor_sum: float = 0.0
    n_descriptors: int = 0
    n_views: int = 0
    seconds: float = 0.0
    model: dict[str, torch.Tensor] = field(default_factory=dict)
    optimizer: dict[str, Any] = field(default_factory=dict)
    head: dict[str, torch.Tensor] = field(default_factory=dict)


class PretrainFolder:
    """The files of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.state_folder = path / "state"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps a second process from writing the same run.

        Raises:
            TrainingError: another process holds it, or the folder cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = filelock.FileLock(self.path / ".lock", timeout=0)
            lock.acquire()
        except filelock.Timeout:
            raise TrainingError(
                "another process is pretraining here", where=self.path, hint="give another --out"
            ) from None
        except OSError as error:
            raise TrainingError(
                f"cannot write here: {error.strerror or error}", where=self.path
            ) from None
        try:
            yield
        finally:
            (self.path / ".lock").unlink(missing_ok=True)
            lock.release()

    def report(self) -> dict[str, Any] | None:
        """Returns `pretrain.json`, or None where there is none."""
        return _read_json(self.path / REPORT)

    def claim(self, identity: dict[str, Any]) -> None:
        """Makes sure that the folder is empty or holds this very run, begun or finished.

        Raises:
            TrainingError: it holds another run, or a model that is not ours to replace.
        """
        known = _read_json(self.state_folder / "identity.json")
        if known is None and (report := self.report()) is not None:
            known = report.get("identity")
        if known is None:
            if any((self.path / name).exists() for name in _PARTS):
                raise TrainingError("holds a model already", where=self.path, hint=_ELSEWHERE)
            self.state_folder.mkdir(parents=True, exist_ok=True)
            write_json(self.state_folder / "identity.partial", identity)
            (self.state_folder / "identity.partial").replace(self.state_folder / "identity.json")
            return
        if other := [k for k in sorted(known.keys() | identity) if known.get(k) != identity.get(k)]:
            k = other[0]
            raise TrainingError(
                f"holds a run with other settings: {k} was {known.get(k)}, is {identity.get(k)}"
                + (f"; also {', '.join(other[1:4])}" if other[1:] else ""),
                where=self.path,
                hint=_ELSEWHERE,
            )

    def corpus(self) -> Corpus | None:
        """Returns the cleaned corpus of an earlier part of the run."""
        file = self.state_folder / "corpus.npz"
        return Corpus.load(file) if file.is_file() else None

    def save_corpus(self, corpus: Corpus) -> None:
        """Keeps the cleaned corpus."""
        corpus.save(self.state_folder / "corpus.npz")

    def write_state(self, state: PretrainState) -> None:
        """Writes the checkpoint beside the last one and moves it there, down to the disk."""
        file = self.state_folder / "checkpoint.pt"
        partial = file.with_suffix(".partial")
        fields = {name: getattr(state, name) for name in PretrainState.__dataclass_fields__}
        with partial.open("wb") as stream:
            torch.save(fields, stream)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(file)

    def read_state(self) -> PretrainState | None:
        """Reads the checkpoint; only plain data is unpickled (`weights_only`).

        Raises:
            TrainingError: it is there and cannot be read; starting over in silence would throw
                hours away.
        """
        file = self.state_folder / "checkpoint.pt"
        if not file.is_file():
            return None
        try:
            return PretrainState(**torch.load(file, weights_only=True, map_location="cpu"))
        except (RuntimeError, EOFError, OSError, TypeError, pickle.UnpicklingError):
            raise TrainingError(
                "the checkpoint cannot be read", where=file, hint="delete it to start over"
            ) from None

    def remember(self, name: str, content: dict[str, Any]) -> None:
        """Keeps a note (say, the tracking run) until the run is finished."""
        if self.state_folder.is_dir():
            write_json(self.state_folder / f"{name}.json", content)

    def remembered(self, name: str) -> dict[str, Any] | None:
        """Returns a note of an earlier part of the run."""
        return _read_json(self.state_folder / f"{name}.json")

    def finish(self, report: dict[str, Any], *, finished: bool) -> None:
        """Writes the report last, and clears the state of a finished run."""
        write_json(self.path / f"{REPORT}.partial", report)
        (self.path / f"{REPORT}.partial").replace(self.path / REPORT)
        if finished:
            shutil.rmtree(self.state_folder, ignore_errors=True)


_ELSEWHERE = "give another --out, or delete it"


def _read_json(file: Path) -> dict[str, Any] | None:
    try:
        content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise TrainingError("cannot be read", where=file, hint=str(error)) from None
    return content
