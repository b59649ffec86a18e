r"""Influence functions: what adding a point would do to the target loss, to first order.

Training minimises L = 1/N sum_i (f_i - y_i)^2 over primary train. Adding a point z with the weight
of one molecule moves the parameters by -1/N (H + lambda I)^-1 grad L(z), hence the target loss by
-value(z) with

    value(z) = 1/N grad L_target^T (H + lambda I)^-1 grad L(z),    lambda = damping * lambda_max(H).

A value above 0 means that the point lowers the target loss; its unit is that of the loss, squared
label units. H is the Gauss-Newton matrix of L (or its Hessian), L_target the mean squared error
over the target rows.

Sources: Koh & Liang 2017 (influence functions); Martens 2010 and Schraudolph 2002 (Gauss-Newton
damping); Bae et al. 2022 (what the damped form estimates for a network that was stopped early).
"""

from __future__ import annotations

from lipo_cli.errors import ValuationError
from lipo_cli.progress import Progress, SilentProgress
from lipo_cli.settings import InfluenceSettings
from lipo_cli.valuation.arrays import IntArray
from lipo_cli.valuation.ekfac import with_ekfac
from lipo_cli.valuation.gradient_span import MOST_PASSES, fits, table_size
from lipo_cli.valuation.gradients import OutputGradients
from lipo_cli.valuation.influence_batches import over_batches
from lipo_cli.valuation.influence_span import in_their_span, over_a_pool
from lipo_cli.valuation.influence_task import InfluenceResult, Molecules, Task

__all__ = ["InfluenceResult", "Molecules", "influence"]

_SILENT = SilentProgress()
CURVATURE_ROWS = 1000
"""Train molecules that stand for all where the gradients of all are too many for one table.

The time grows with their square. Fewer rows leave more directions to the damping alone, so that
values come out larger: on Lipophilicity by 13 (LoRA) and 19 % (full fine-tuning) than by all 3,024,
whose ranks they have by 0.98; two draws agree by 0.95 and more (docs/scores.md).
"""


def influence(
    gradients: OutputGradients,
    train: Molecules,
    target: Molecules,
    points: Molecules,
    settings: InfluenceSettings,
    *,
    fold_of: IntArray,
    n_folds: int | None = None,
    by_row: bool = False,
    progress: Progress = _SILENT,
) -> InfluenceResult:
    """Values points by their influence on the target loss.

    Where the gradients of all molecules fit a table of `settings.table_gib`, whole or in a few
    parts, the system is solved in the space that they span, exactly, whatever the solver. Where
    those of a large pool do not, the span is that of train and target, and the points are read
    once. Else the system is solved matrix-free, by products over batches of molecules. Where one
    table does not hold the gradients of train and target, that span is of `CURVATURE_ROWS` train
    molecules, unless `settings.curvature_rows` says how many or the solver is `exact`.

    Args:
        gradients: Of the fitted regressor.
        train: Primary train: its loss has the curvature.
        target: The rows whose loss is to fall.
        points: The points to value.
        settings: Curvature, solver, damping.
        fold_of: [m] the fold of each target row, 0..F-1.
        n_folds: F; None: one more than the largest of `fold_of`.
        by_row: Whether a column of values for each target row is wanted, too: over batches of
            molecules that is a system for each of them.
        progress: Told of gradients and products.

    Raises:
        ValuationError: a gradient is not finite, the system cannot be solved, or the solver does
            not fit.
    """
    task = Task(
        gradients,
        train,
        len(train),
        target,
        points,
        settings,
        fold_of,
        int(fold_of.max()) + 1 if n_folds is None else n_folds,
        by_row,
    )
    asked = task.on_some(len(train) if settings.curvature_rows is None else settings.curvature_rows)
    if settings.solver == "ekfac":
        return with_ekfac(asked, progress)
    spanning = task.on_some(CURVATURE_ROWS) if _is_long(task) else asked
    n_solved = len(spanning.curved) + len(target)
    if settings.curvature == "gauss-newton":
        # A column of values for each target row, with what its standard deviation takes.
        columns = 3 * 8 * len(target) * len(points) / 2**30
        together = fits(gradients, n_solved + len(points), settings.table_gib)
        if together and columns <= settings.table_gib:
            return in_their_span(spanning, progress)
        if fits(gradients, n_solved, settings.table_gib):
            return over_a_pool(spanning, progress)
    if settings.solver == "exact":
        size = table_size(gradients, n_solved)
        raise ValuationError(
            f"the exact solver needs the Gauss-Newton curvature and {size:.1f} GiB of gradients in "
            f"at most {MOST_PASSES} parts of {settings.table_gib:g} GiB",
            hint="take --solver lissa or cg, --parameters head, or fewer --curvature-rows",
        )
    return over_batches(asked, progress)


def _is_long(task: Task) -> bool:
    """Says whether the span of all train gradients takes more than a table, and nobody wants it."""
    size = table_size(task.gradients, len(task.curved) + len(task.target))
    asked = task.settings.curvature_rows is not None or task.settings.solver == "exact"
    return not asked and size > task.settings.table_gib
