"""What one cell came to."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, Self

import pandas as pd

from lipo_cli.comparison.plan import Cell, labelled
from lipo_cli.settings import Peft


@dataclass(frozen=True)
class CellResult:
    """What a cell came to; RMSE and MAE in raw label units.

    Attributes:
        status: `finished` or `failed`; a failed cell has an error and no numbers.
        model: The pretrained model; None where one model is compared.
        split: The seed of the split; None where one split is compared.
        reused: Whether a finished run of equal settings, data and code was found.
        history: The training curve.
        test_coverage: Share of test labels inside their 90 % interval, calibrated on validation.
        test_interval: The interval's mean width.
        test_error_ratio: RMS error of the most uncertain fifth over that of the least; None where
            a molecule is predicted once.
        predictions: Columns part, row, smiles, measured, predicted, spread of validation and test.
    """

    selection: str
    peft: Peft
    seed: int
    role: str
    status: Literal["finished", "failed"]
    model: str | None = None
    split: int | None = None
    run_id: str | None = None
    reused: bool = False
    error: str | None = None
    n_selected: int | None = None
    n_train: int | None = None
    n_truncated: int | None = None
    n_unknown: int | None = None
    trainable_parameters: int | None = None
    seconds: float | None = None
    best_epoch: int | None = None
    val_rmse: float | None = None
    test_rmse: float | None = None
    test_mae: float | None = None
    test_r2: float | None = None
    test_spearman: float | None = None
    test_coverage: float | None = None
    test_interval: float | None = None
    test_error_ratio: float | None = None
    history: list[dict[str, float]] = field(default_factory=list, repr=False)
    predictions: pd.DataFrame = field(default_factory=pd.DataFrame, repr=False)

    @classmethod
    def of(cls, cell: Cell, status: Literal["finished", "failed"], **more: Any) -> Self:
        """Returns what a cell came to; `more` are further attributes."""
        return cls(
            selection=cell.choice.name,
            peft=cell.peft,
            seed=cell.seed,
            role=cell.choice.role,
            status=status,
            model=cell.model,
            split=cell.split,
            **more,
        )

    @property
    def label(self) -> str:
        """Names selection and model."""
        return labelled(self.selection, self.model)

    def on_validation(self) -> Self:
        """Returns the cell with its validation rows in the place of the test rows."""
        part = self.predictions.get("part")
        rows = self.predictions if part is None else self.predictions[part == "val"]
        return replace(self, test_rmse=self.val_rmse, predictions=rows.assign(part="test"))

    def as_dict(self) -> dict[str, Any]:
        """Returns the numbers without curve and predictions, as `--json` prints them."""
        light = replace(self, history=[], predictions=pd.DataFrame())
        return {k: v for k, v in asdict(light).items() if k not in ("history", "predictions")}
