"""Influence with EK-FAC for the curvature: one pass to fit it, no system to solve.

The value is that of `influence`, 1/N grad L_target^T (H + lambda I)^-1 grad L(z), with another H:
block-diagonal over the linear maps of the network, each block U diag(s) U^T with the Kronecker
product of two eigenbases for U and with the true second moments along it for s (George et al. 2018,
"Fast approximate natural gradient descent in a Kronecker-factored eigenbasis"; for influence Grosse
et al. 2023, "Studying large language model generalization with influence functions"). Where one
map alone is counted and its output is a number, U is the eigenbasis of the Gauss-Newton matrix
itself and nothing is approximated.

Just maps that were trained whole (weight, and bias where there is one) have such a block. What
else was trained, such as norms and embeddings, stays where it is: it is counted and named.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
from torch import nn

from lipo_cli.errors import SettingsError, ValuationError
from lipo_cli.progress import Progress
from lipo_cli.settings import InfluenceSettings, Peft
from lipo_cli.valuation.gradients import OutputGradients
from lipo_cli.valuation.influence_task import InfluenceResult, Task

_NEEDED = ("kronfluence", "einconv", "einops", "opt_einsum")


@dataclass(frozen=True)
class Seen:
    """What EK-FAC counts of the parameters that were trained.

    Attributes:
        maps: Names of the linear maps in the differentiated module.
        n_parameters: Parameters of these maps.
        left_out: How many other trained parameters there are, by what holds them.
    """

    maps: tuple[str, ...]
    n_parameters: int
    left_out: dict[str, int]


@dataclass(frozen=True)
class EkfacResult(InfluenceResult):
    """Values by EK-FAC; the system of this curvature is solved in closed form.

    Attributes:
        n_maps: Linear maps that have a block of the curvature.
        left_out: How many trained parameters have none, by what holds them.
    """

    n_maps: int = 0
    left_out: tuple[tuple[str, int], ...] = ()

    def how(self) -> str:
        """Returns what was counted, what was left out, and the damping."""
        text = f"EK-FAC on {self.n_parameters:,} parameters of {self.n_maps:,} linear maps"
        if self.left_out:
            others = ", ".join(f"{count:,} of {kind}" for kind, count in self.left_out)
            text += f" (trained, too, but not counted: {others})"
        return (
            f"{text}, {self.curvature_of()}, damping {self.damping:.3g} (largest eigenvalue of "
            f"EK-FAC's curvature {self.largest:.3g})"
        )


def check_ekfac(settings: InfluenceSettings, peft: Peft) -> None:
    """Checks, before anything is trained, that EK-FAC can do what is asked of it, if it is asked.

    Args:
        settings: The solver, and which parameters count.
        peft: How the reference model will be fine-tuned.

    Raises:
        SettingsError: kronfluence is not installed.
        ValuationError: the method trains no linear map below the head.
    """
    if settings.solver != "ekfac":
        return
    require_kronfluence()
    if settings.part == "all" and peft in ("bitfit", "ia3"):
        raise _none_below_head(peft)


def _none_below_head(peft: Peft, left: str = "what else it trains") -> ValuationError:
    # Every method trains the head whole: its maps alone would pass for the method's values.
    return ValuationError(
        f"EK-FAC counts linear maps that were trained whole, and a {peft} model has none below its "
        f"head: {left} would be left out",
        where="--solver ekfac",
        hint="take --parameters head with it, or --solver auto, which counts all of them",
    )


def require_kronfluence() -> None:
    """Checks that the library is there, and what it imports.

    Raises:
        SettingsError: it is not.
    """
    if any(find_spec(name) is None for name in _NEEDED):
        raise SettingsError(
            "the library that fits EK-FAC, kronfluence, is not installed",
            where="--solver ekfac",
            hint="pip install 'lipo[ekfac]' (beside a CPU build of torch: docs/scores.md)",
        )


def with_ekfac(task: Task, progress: Progress) -> EkfacResult:
    """Values points with EK-FAC in the place of the Gauss-Newton matrix.

    The factors are fitted on `task.curved`; the target's gradient is taken fold by fold (row by row
    where values by row are wanted), and the spread over these parts is the standard error.

    Raises:
        SettingsError: kronfluence is not installed.
        ValuationError: no linear map of the part was trained whole, or a number is not finite.
    """
    require_kronfluence()
    from lipo_cli.valuation.ekfac_factors import Factors

    seen = linear_maps(task.gradients)
    m, settings = len(task.target), task.settings
    with Factors(task.gradients, seen, progress) as factors:
        largest = factors.fit(task.curved)
        damping = settings.damping * largest
        passes = 1 if task.by_row else len(np.unique(task.fold_of))
        progress.start("values (ekfac)", m + passes * len(task.points), "molecules")
        if task.by_row:
            parts = factors.products(
                task.target, task.points, damping, together=False, gib=settings.table_gib
            )
        else:
            parts = np.zeros((len(task.points), task.n_folds))
            for fold in np.unique(task.fold_of).tolist():
                rows = task.target.take(np.flatnonzero(task.fold_of == fold))
                products = factors.products(rows, task.points, damping, together=True)
                parts[:, fold] = products[:, 0]
        progress.finish()
    parts = parts / (m * task.n_train)  # the losses were sums, not means
    summed = task.summed(parts)
    return EkfacResult(
        **vars(summed),
        solver="ekfac",
        damping=damping,
        largest=largest,
        iterations=0,
        residuals=(0.0,),
        agreement=None,
        converged=True,
        n_parameters=seen.n_parameters,
        n_curvature=len(task.curved),
        n_train=task.n_train,
        n_maps=len(seen.maps),
        left_out=tuple(seen.left_out.items()),
    )


def linear_maps(gradients: OutputGradients) -> Seen:
    """Finds the linear maps that were trained whole, and counts what else was trained.

    Raises:
        ValuationError: there are none, or none below the head although something there was trained.
    """
    trained = set(gradients.names)
    maps, counted = [], set[str]()
    for name, module in gradients.module.named_modules():
        own = {f"{name}.{each}" for each, _ in module.named_parameters(recurse=False)}
        # A subclass may do something else with its weight.
        if type(module) is nn.Linear and own <= trained:
            maps.append(name)
            counted |= own
    parameters = dict(gradients.module.named_parameters())
    head = {id(parameter) for parameter in gradients.regressor.head().parameters()}
    below = [name for name in gradients.names if id(parameters[name]) not in head]
    if not counted or (below and not counted.intersection(below)):
        left = sum(parameters[name].numel() for name in below)
        raise _none_below_head(gradients.regressor.peft, f"{left:,} trained parameters")
    left_out = Counter[str]()
    for name in gradients.names:
        if name not in counted:
            left_out[_holder(gradients.module, name)] += parameters[name].numel()
    n_parameters = sum(parameters[name].numel() for name in counted)
    return Seen(tuple(maps), n_parameters, dict(left_out))


def _holder(model: nn.Module, name: str) -> str:
    """Names what holds a parameter: the class of its module; of a linear map which part of it."""
    module, _, part = name.rpartition(".")
    kind = type(model.get_submodule(module)).__name__
    return f"{kind} ({part})" if kind == "Linear" else kind
