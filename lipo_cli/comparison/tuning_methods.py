"""The tuning of a comparison: once per method, on the control, so that no selection is favoured.

Where several splits are compared, once on each: a molecule that tests on one split validates on
another, and would have had its say.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from lipo_cli.comparison.ledger import Ledger
from lipo_cli.comparison.plan import NO_ROWS, Cell, Plan
from lipo_cli.comparison.prepare import Prepared
from lipo_cli.comparison.tuning import TuningView, tune
from lipo_cli.comparison.tuning_result import Tuned
from lipo_cli.errors import LipoError, ModelError, TrainingError
from lipo_cli.settings import CompareSettings, Peft, TrainingSettings

Key = tuple[Peft, str | None, int | None]
"""Method, pretrained model and split."""


@dataclass(frozen=True)
class Tunings:
    """What was found for each method, pretrained model and split.

    Attributes:
        found: The tunings that are over.
        failed: Why there is none.
    """

    found: Mapping[Key, Tuned] = field(default_factory=dict)
    failed: Mapping[Key, LipoError] = field(default_factory=dict)

    def training(self, cell: Cell, shared: TrainingSettings) -> TrainingSettings:
        """Returns how a cell is trained: as all are, with what was found for its method.

        Raises:
            LipoError: its method was to be tuned and could not be.
        """
        key = _key(cell)
        if key in self.failed:
            raise self.failed[key]
        return self.found[key].training(shared) if key in self.found else shared

    def joined(self, other: Tunings) -> Tunings:
        """Returns these and others."""
        return Tunings({**self.found, **other.found}, {**self.failed, **other.failed})


def _key(cell: Cell) -> Key:
    return cell.peft, cell.model, cell.split


def tuned_cells(plan: Plan, settings: CompareSettings) -> list[Cell]:
    """Returns the cells that are tuned: of each method and model the control, the first seed.

    No selection has any say in the settings that it is then compared under. The reference model of
    the scoring is one of these cells.
    """
    if settings.tuning.trials is None:
        return []
    reference = plan.reference(settings)
    cells = [
        replace(reference, peft=peft, model=model) for peft in plan.peft for model in plan.models
    ]
    return cells if reference in cells or not plan.needs_scores else [reference, *cells]


def tune_methods(
    plan: Plan,
    settings: CompareSettings,
    prepared: Prepared,
    ledger: Ledger,
    view: TuningView,
    *,
    storage: str | None = None,
) -> Tunings:
    """Tunes every method of a comparison once per pretrained model, where it is asked for.

    Raises:
        TrackingError: the trials cannot be kept.
    """
    found: dict[Key, Tuned] = {}
    failed: dict[Key, LipoError] = {}
    for cell in tuned_cells(plan, settings):
        key = _key(cell)
        try:
            found[key] = tune(
                *(cell, NO_ROWS, prepared, settings.training, settings.tuning, ledger, view),
                storage=storage,
            )
        except (TrainingError, ModelError) as error:  # its cells fail; those of others do not
            failed[key] = error
    return Tunings(found, failed)


def tuning_seconds(
    plan: Plan, settings: CompareSettings, prepared: Prepared, rates: Mapping[Peft, float]
) -> float:
    """Returns the time that the trials of a comparison take at most, none of them pruned.

    Args:
        plan: The cells.
        settings: How many trials, of how many epochs.
        prepared: The data.
        rates: Training molecules per second of each method; one that is missing is taken for the
            slowest.
    """
    per_epoch = len(prepared.train) + len(prepared.validation) / 3
    molecules = (settings.tuning.trials or 0) * settings.training.epochs * per_epoch
    slowest = min(rates.values())
    return sum(molecules / rates.get(cell.peft, slowest) for cell in tuned_cells(plan, settings))
