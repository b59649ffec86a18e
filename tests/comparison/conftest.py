"""A small world to compare in: ninety molecules, two dozen more, a tiny model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest

from lipo_cli.chem import demo
from lipo_cli.comparison.cell_result import CellResult
from lipo_cli.comparison.plan import Cell
from lipo_cli.comparison.scoring import Scored
from lipo_cli.comparison.tuning_result import Tuned
from lipo_cli.comparison.tuning_trial import TrialResult
from lipo_cli.progress import SilentProgress
from lipo_cli.settings import CompareSettings, build
from tests.fixtures.models import tiny_checkpoint

DEMO = Path(demo.__path__[0])
N_PRIMARY, N_SECONDARY = 90, 24


@dataclass
class World:
    """Files of a small comparison."""

    folder: Path
    model: Path

    @property
    def primary(self) -> Path:
        return self.folder / "primary.csv"

    @property
    def secondary(self) -> Path:
        return self.folder / "secondary.csv"

    def settings(self, **changes: object) -> CompareSettings:
        """Returns quick settings on these files; nested changes are merged."""
        base = {
            "data": {"dataset": str(self.primary), "secondary": str(self.secondary)},
            "training": {
                "model": str(self.model),
                "epochs": 3,
                "batch_size": 16,
                "precision": "float32",
                "device": "cpu",
            },
            "tsds": {"components": 8, "folds": 3, "min_permutations": 40},
            "selections": ("tsds",),
            "peft": ("lora",),
        }
        return build(CompareSettings, base, changes)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("tiny") / "model")


def small_world(folder: Path, model: Path) -> World:
    """Writes the files of a small comparison into a folder."""
    for name, n in (("primary", N_PRIMARY), ("secondary", N_SECONDARY)):
        frame = pd.read_csv(DEMO / f"{name}.csv").head(n)
        frame.columns = [str(column).lower() for column in frame.columns]
        frame.to_csv(folder / f"{name}.csv", index=False)
    return World(folder, model)


@pytest.fixture
def world(tmp_path: Path, tiny_model: Path) -> World:
    folder = tmp_path / "world"
    folder.mkdir()
    return small_world(folder, tiny_model)


class Listener(SilentProgress):
    """A view that writes down what it hears, and may interrupt."""

    def __init__(self, interrupt_at: tuple[str, int] | None = None) -> None:
        self.heard: list[tuple[str, int]] = []
        self.done: list[CellResult] = []
        self.interrupt_at = interrupt_at
        self.trials: list[TrialResult] = []
        self.tunings: list[Tuned] = []
        self.batches = 0
        self.interrupt_after_trials: int | None = None
        self.interrupt_after_batches: int | None = None

    def planned(self, cells: Sequence[Cell], n_expected: int) -> None:
        assert n_expected >= len(cells)

    def started(self, cell: Cell) -> None:
        pass

    def epoch(self, cell: Cell, row: Mapping[str, float]) -> None:
        self.heard.append((cell.choice.name, int(row["epoch"])))
        if self.heard[-1] == self.interrupt_at:
            raise KeyboardInterrupt

    def finished(self, cell: Cell, result: CellResult) -> None:
        self.done.append(result)

    def scored(self, scored: Scored) -> None:
        self.values = scored

    def tried(self, cell: Cell, trial: TrialResult, over: Sequence[TrialResult], n: int) -> None:
        assert 0 < len(over) <= n
        self.trials.append(trial)
        if len(self.trials) == self.interrupt_after_trials:
            raise KeyboardInterrupt

    def waiting(self, cell: Cell, n_open: int) -> None:
        self.waited_for = n_open

    def tuned(self, tuned: Tuned) -> None:
        self.tunings.append(tuned)

    def advance(self, n: int = 1, **fields: float | int | str) -> None:
        self.batches += n
        if self.batches == self.interrupt_after_batches:
            raise KeyboardInterrupt
