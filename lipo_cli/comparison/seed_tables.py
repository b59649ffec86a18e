"""Published tables beside our reruns of them, cell by cell (`lipo compare --preset seed`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import Field

from lipo_cli.comparison.cell_result import CellResult
from lipo_cli.settings import PEFT_METHODS, CompareSettings, Peft, Settings
from lipo_cli.settings_base import build, read_settings_file


class PublishedRow(Settings):
    """A row of a published table: a selection with a test RMSE by fine-tuning method."""

    label: str
    """As the report calls it."""
    selection: str
    """The selection of ours that corresponds to it."""
    adapted: bool = False
    """Whether the pretrained model was adapted to the molecules first."""
    chosen: int | None = None
    """How many secondary points joined."""
    full: float | None = None
    bitfit: float | None = None
    lora: float | None = None
    ia3: float | None = None
    minutes: dict[Peft, float] = Field(default_factory=dict)
    """Training time by method."""

    def rmse(self) -> dict[Peft, float]:
        """Returns the published test RMSE by method, in raw label units."""
        given = {method: getattr(self, method) for method in PEFT_METHODS}
        return {method: value for method, value in given.items() if value is not None}


class PublishedTable(Settings):
    """A published table."""

    title: str
    rows: tuple[PublishedRow, ...]

    @property
    def compares_adapted(self) -> bool:
        """Whether a row of it rests on the adapted model."""
        return any(row.adapted for row in self.rows)


@dataclass(frozen=True)
class Published:
    """What was published.

    Attributes:
        tables: By task.
        differences: What must be said with them, a sentence each.
        differences_of_data: What must be said, too, where the data are theirs.
    """

    tables: dict[str, PublishedTable]
    differences: tuple[str, ...]
    differences_of_data: tuple[str, ...]


def read_published(path: Path) -> Published:
    """Reads the published figures from a data file of the package.

    Raises:
        SettingsError: the file is missing or malformed.
    """
    content = read_settings_file(path)
    said = [tuple(content.pop(name)) for name in ("differences", "differences_of_data")]
    return Published({k: build(PublishedTable, v) for k, v in content.items()}, *said)


@dataclass(frozen=True)
class SideBySide:
    """A published cell and ours; RMSE in raw label units.

    Attributes:
        task: The table's name in the preset.
        label: The row, as the report calls it.
        selection: Ours that corresponds to it.
        peft: The method.
        adapted: Whether the pretrained model was adapted first.
        chosen_reference: Points that joined there; None where the report does not say.
        chosen: Points that joined here, of the first seed.
        test_rmse_reference: Theirs, one seed.
        test_rmse: Ours, the mean over seeds; None where every seed failed or none was run.
        test_rmse_sd: Sample standard deviation over seeds; None with fewer than two.
        difference: Ours less theirs.
        val_rmse: Ours, the mean over seeds.
        epochs: Epochs trained until it stopped, the mean over seeds.
        minutes_reference: Their training time, where it is known.
        minutes: Ours, the mean over seeds.
        n_seeds: Seeds that finished.
        error: Why a seed, or the whole table, failed.
    """

    task: str
    label: str
    selection: str
    peft: Peft
    adapted: bool
    chosen_reference: int | None
    chosen: int | None
    test_rmse_reference: float
    test_rmse: float | None
    test_rmse_sd: float | None
    difference: float | None
    val_rmse: float | None
    epochs: float | None
    minutes_reference: float | None
    minutes: float | None
    n_seeds: int
    error: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Returns the cell by name."""
        return asdict(self)


def side_by_side(
    task: str,
    table: PublishedTable,
    cells: Sequence[CellResult],
    *,
    adapted_model: str | None = None,
    error: str | None = None,
) -> list[SideBySide]:
    """Puts every published cell of a table beside ours.

    Args:
        task: The table's name.
        table: What was published.
        cells: Our cells of its comparison; what the table does not have is passed over.
        adapted_model: The model of our cells that was adapted first; None where none was.
        error: Why the comparison, or its adaptation, failed: said where a cell is missing.
    """
    paired = []
    for row in table.rows:
        for peft, published in row.rmse().items():
            own = [
                cell
                for cell in cells
                if (cell.selection, cell.peft) == (row.selection, peft)
                and (adapted_model is not None and cell.model == adapted_model) == row.adapted
            ]
            paired.append(_paired(task, row, peft, published, own, error))
    return paired


def _paired(
    task: str,
    row: PublishedRow,
    peft: Peft,
    published: float,
    own: Sequence[CellResult],
    error: str | None,
) -> SideBySide:
    done = [cell for cell in own if cell.status == "finished"]
    failed = next((cell.error for cell in own if cell.status == "failed"), None)
    tests = [cell.test_rmse for cell in done if cell.test_rmse is not None]
    test = _mean(tests)
    seconds = _mean([cell.seconds for cell in done if cell.seconds is not None])
    return SideBySide(
        task=task,
        label=row.label,
        selection=row.selection,
        peft=peft,
        adapted=row.adapted,
        chosen_reference=row.chosen,
        chosen=done[0].n_selected if done else None,
        test_rmse_reference=published,
        test_rmse=test,
        test_rmse_sd=float(np.std(tests, ddof=1)) if len(tests) > 1 else None,
        difference=None if test is None else test - published,
        val_rmse=_mean([cell.val_rmse for cell in done if cell.val_rmse is not None]),
        epochs=_mean([float(len(cell.history)) for cell in done]),
        minutes_reference=row.minutes.get(peft),
        minutes=None if seconds is None else seconds / 60,
        n_seeds=len(done),
        error=failed or (None if own else error),
    )


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def tables_frame(cells: Sequence[SideBySide]) -> pd.DataFrame:
    """Returns the paired cells as a table, one row each."""
    return pd.DataFrame([cell.as_dict() for cell in cells])


def departures(asked: Mapping[str, CompareSettings], preset: Mapping[str, CompareSettings]) -> str:
    """Says which settings are not the preset's, as flags or a file changed them; "" if none.

    Args:
        asked: The settings by task, as they are run.
        preset: Those of the preset alone.
    """
    changed: dict[str, str] = {}
    for task, settings in asked.items():
        own = preset[task].flat()
        for name, value in settings.flat().items():
            if value != own[name] and name not in _SAY_NOTHING:
                changed.setdefault(name, value)
    if not changed:
        return ""
    named = ", ".join(f"{name} = {value}" for name, value in sorted(changed.items()))
    return f"Changed from the preset: {named}."


_SAY_NOTHING = frozenset({"data.data_dir", "experiment", "model_name", "training.device"})
"""Settings that do not decide a number."""


def said_of_model(model: str) -> str:
    """Says that another model than theirs was fine-tuned; "" where it may be theirs."""
    if "molformer-xl" in model.lower():
        return ""
    return (
        f"They fine-tuned MoLFormer-XL, this is {model}: at their learning rate a model keeps most "
        "of what its start says (theirs: --model ibm-research/MoLFormer-XL-both-10pct)."
    )
