"""What a tuning came to, as an object, a table, a sentence and JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from lipo_cli.comparison.digits import rmse_text
from lipo_cli.comparison.ledger import Finished
from lipo_cli.comparison.plan import Cell
from lipo_cli.comparison.tuning_space import described, tuned_training
from lipo_cli.comparison.tuning_trial import TrialResult
from lipo_cli.errors import TrainingError
from lipo_cli.settings import TrainingSettings

_FIXED = ("trial", "state", "val_rmse", "epochs", "seconds", "error")


@dataclass(frozen=True)
class Tuned:
    """A tuning that is over; RMSE in raw label units.

    Attributes:
        cell: What was trained in every trial: selection, method, seed, pretrained model.
        trials: All of them, in order; the first is the settings as they stood.
        importance: Share of each parameter in what makes a trial good; empty: too few to say.
        run_id: Its record.
        reused: Whether a finished record was found.
    """

    cell: Cell
    trials: tuple[TrialResult, ...] = field(repr=False)
    importance: dict[str, float]
    run_id: str
    reused: bool = False

    @property
    def best(self) -> TrialResult:
        """The complete trial of the lowest validation RMSE, the earliest of equals.

        Raises:
            TrainingError: none of them could be trained.
        """
        complete = [t for t in self.trials if t.state == "complete" and t.val_rmse is not None]
        if not complete:
            raise TrainingError(
                f"none of {len(self.trials)} tuning trials could be trained: "
                f"{self.trials[0].error if self.trials else 'there is none'}",
                where=self.cell.peft,
                hint="lower --learning-rate, or [tuning] learning_rate_range",
            )
        return min(complete, key=lambda trial: (trial.val_rmse, trial.ordinal))

    @property
    def first(self) -> TrialResult:
        """The settings as they stood."""
        return self.trials[0]

    @property
    def parameters(self) -> dict[str, float]:
        """What was found."""
        return self.best.parameters

    def training(self, shared: TrainingSettings) -> TrainingSettings:
        """Returns training settings with what was found."""
        return tuned_training(shared, self.parameters)

    def count(self, state: str) -> int:
        """Returns how many trials ended in a state."""
        return sum(trial.state == state for trial in self.trials)

    def sentence(self) -> str:
        """Says what was found, against the settings as they stood, and what chose it."""
        best, first = self.best, self.first
        ended = [f"{self.count(s)} {s}" for s in ("pruned", "diverged") if self.count(s)]
        many = f"{len(self.trials)} trials" if len(self.trials) > 1 else "1 trial"
        head = f"tuned {self.cell.peft} in {many}" + (f" ({', '.join(ended)})" if ended else "")
        if self.cell.model is not None:
            head += f" on {self.cell.label}"
        if self.cell.split is not None:
            head += f" on split {self.cell.split}"
        if best.ordinal == first.ordinal:
            return (
                f"{head}: nothing better than the settings as they stood "
                f"({described(best.parameters)}): validation RMSE {rmse_text(best.val_rmse)}"
            )
        settings = f"the settings as they stood ({described(first.parameters)})"
        stood = (
            f"against {text} with {settings}"
            if (text := rmse_text(first.val_rmse))
            else f"where {settings} could not be trained"
        )
        return (
            f"{head}: {described(best.parameters)}, validation RMSE {rmse_text(best.val_rmse)} "
            f"{stood}; validation chose it, test had no say"
        )

    def as_dict(self) -> dict[str, Any]:
        """Returns what `--json` prints of it."""
        return {
            "peft": self.cell.peft,
            "model": self.cell.model,
            "split": self.cell.split,
            "selection": self.cell.choice.name,
            "seed": self.cell.seed,
            "n_trials": len(self.trials),
            "n_complete": self.count("complete"),
            "n_pruned": self.count("pruned"),
            "n_diverged": self.count("diverged"),
            "parameters": self.parameters,
            "val_rmse": self.best.val_rmse,
            "best_trial": self.best.ordinal + 1,
            "first_parameters": self.first.parameters,
            "first_val_rmse": self.first.val_rmse,
            "chosen_by": "validation",
            "importance": self.importance or None,
            "seconds": self.seconds,
            "run_id": self.run_id,
            "reused": self.reused,
        }

    @property
    def seconds(self) -> float:
        """Time spent on the trials."""
        return sum(trial.seconds for trial in self.trials)

    def table(self) -> pd.DataFrame:
        """Returns a row per trial: trial (from 1), state, val_rmse, epochs, seconds, error, and
        its parameters.
        """
        return pd.DataFrame(
            [
                {
                    "trial": t.ordinal + 1,
                    "state": t.state,
                    "val_rmse": t.val_rmse,
                    "epochs": len(t.curve),
                    "seconds": t.seconds,
                    "error": t.error or "",
                    **t.parameters,
                }
                for t in self.trials
            ]
        )


def tuned_from(cell: Cell, found: Finished) -> Tuned:
    """Reads a tuning back from its record; the curves of its trials stay in theirs."""
    table = pd.read_parquet(found.artifact("tables/trials.parquet"))
    names = [str(name) for name in table.columns if name not in _FIXED]
    prefix = IMPORTANCE
    return Tuned(
        cell=cell,
        trials=tuple(_trial(row, names) for row in table.to_dict("records")),
        importance={
            name.removeprefix(prefix): value
            for name, value in found.metrics.items()
            if name.startswith(prefix)
        },
        run_id=found.run_id,
        reused=True,
    )


IMPORTANCE = "importance/"


def _trial(row: Mapping[Any, Any], names: list[str]) -> TrialResult:
    value = row["val_rmse"]
    return TrialResult(
        ordinal=int(row["trial"]) - 1,
        state=row["state"],
        parameters={n: int(row[n]) if n == "lora_rank" else float(row[n]) for n in names},
        val_rmse=None if pd.isna(value) else float(value),
        curve={},
        seconds=float(row["seconds"]),
        error=row["error"] or None,
    )
