"""A trial that is over, as a study keeps it, and what the trials of a study say together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from lipo_cli.comparison.tuning_space import Range

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

TrialState = Literal["complete", "pruned", "diverged"]

FEWEST_FOR_IMPORTANCE = 8
"""Complete trials below which shares of importance would be noise."""

ORDINAL, SECONDS, DIVERGED = "ordinal", "seconds", "diverged"
"""What a study keeps of a trial beside its value, in Optuna's attributes."""


@dataclass(frozen=True)
class TrialResult:
    """A trial that is over; RMSE in raw label units.

    Attributes:
        ordinal: Its place in the search, from 0, which is the settings as they stood.
        state: `complete`; `pruned`, stopped early; or `diverged`, which cannot be trained.
        parameters: What was tried.
        val_rmse: The best epoch's validation RMSE; of a pruned trial the last epoch's, of a
            diverged one None.
        curve: Validation RMSE by epoch.
        seconds: Its time.
        error: Why it diverged.
    """

    ordinal: int
    state: TrialState
    parameters: dict[str, float]
    val_rmse: float | None
    curve: dict[int, float] = field(repr=False)
    seconds: float
    error: str | None = None


def trial_result(trial: FrozenTrial) -> TrialResult:
    """Reads a trial that is over."""
    attributes: Mapping[str, Any] = trial.user_attrs
    error = attributes.get(DIVERGED)
    state: TrialState = "complete" if trial.state.name == "COMPLETE" else "pruned"
    return TrialResult(
        ordinal=int(attributes[ORDINAL]),
        state="diverged" if error is not None else state,
        parameters={name: trial.params[name] for name in trial.params},
        val_rmse=None if error is not None else trial.value,
        curve=dict(sorted(trial.intermediate_values.items())),
        seconds=float(attributes.get(SECONDS, 0.0)),
        error=error,
    )


def importances(results: Sequence[TrialResult], space: tuple[Range, ...]) -> dict[str, float]:
    """Returns how much of the good results each parameter explains; the shares sum to 1.

    PED-ANOVA (Watanabe et al. 2023) over complete trials. Empty where they are too few to say, or
    where there is but one parameter.
    """
    import optuna

    complete = [r for r in results if r.state == "complete"]
    if len(space) < 2 or len(complete) < FEWEST_FOR_IMPORTANCE:
        return {}
    distributions = _distributions(space)
    study = optuna.create_study(direction="minimize")
    try:
        for each in complete:
            study.add_trial(
                optuna.trial.create_trial(
                    params=each.parameters, distributions=distributions, value=each.val_rmse
                )
            )
        found = optuna.importance.get_param_importances(
            study, evaluator=optuna.importance.PedAnovaImportanceEvaluator()
        )
    except Exception:  # it is an extra: equal results, for example, have nothing to explain
        return {}
    shares = {name: float(share) for name, share in found.items()}
    return shares if all(np.isfinite(share) for share in shares.values()) else {}


def _distributions(space: tuple[Range, ...]) -> dict[str, BaseDistribution]:
    from optuna.distributions import FloatDistribution, IntDistribution

    return {
        each.name: IntDistribution(int(each.low), int(each.high), log=each.log)
        if each.whole
        else FloatDistribution(each.low, each.high, log=each.log)
        for each in space
    }
