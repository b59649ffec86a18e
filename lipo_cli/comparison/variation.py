"""What a test RMSE, or a difference of two, owes to training seeds, test molecules and splits."""

from __future__ import annotations

import math
from collections.abc import Container, Mapping, Sequence

import numpy as np

from lipo_cli.comparison.cell_result import CellResult
from lipo_cli.comparison.intervals import (
    Component,
    Floats,
    between_splits,
    half_width,
    molecule_component,
    residual_variance,
    rmse_terms,
)
from lipo_cli.settings import Peft

Unit = tuple[int | None, int]
"""A split (None: the only one) and a training seed."""
Arm = tuple[str, Peft, str | None]
"""A selection with a method and a pretrained model."""
Runs = Mapping[Unit, CellResult]
"""The finished cells of an arm."""


def arms_of(cells: Sequence[CellResult]) -> dict[Arm, dict[Unit, CellResult]]:
    """Returns the finished cells of every arm by split and seed; an arm may have none."""
    arms: dict[Arm, dict[Unit, CellResult]] = {}
    for cell in cells:
        units = arms.setdefault((cell.selection, cell.peft, cell.model), {})
        if cell.status == "finished" and cell.test_rmse is not None:
            units[cell.split, cell.seed] = cell
    return arms


def n_splits_of(arms: Mapping[Arm, Runs]) -> int:
    """Returns how many splits have a finished cell."""
    return len({split for runs in arms.values() for split, _ in runs})


def mean_by_split(values: Sequence[tuple[Unit, float]]) -> tuple[float, list[float]]:
    """Returns the mean over splits of the means over their seeds, and those means.

    A split of which a seed failed counts as much as the others: it is their mean that an interval
    between splits is of.

    Args:
        values: A value for each split and seed; at least one.
    """
    by_split: dict[int | None, list[float]] = {}
    for (split, _), value in values:
        by_split.setdefault(split, []).append(value)
    means = [float(np.mean(each)) for each in by_split.values()]
    return float(np.mean(means)), means


def mean_interval(arm: Arm, arms: Mapping[Arm, Runs]) -> tuple[float, float] | None:
    """Returns the 95 % interval of an arm's mean test RMSE, over seeds and test molecules.

    A seed moves all arms together (its own effect, as many degrees of freedom as seeds less one)
    and each of them apart (the residual, pooled over the arms).

    Args:
        arm: The arm.
        arms: The finished cells of every arm.

    Returns:
        Its ends; None with one seed of one split, or an arm on one of several splits.
    """
    cells = [*arms[arm].values()]
    units = [*arms[arm]]
    if len(cells) < 2:
        return None
    centre, means = mean_by_split([(unit, _rmse(cell)) for unit, cell in arms[arm].items()])
    if n_splits_of(arms) > 1 and len(means) == 1:
        return None
    if len(means) > 1:
        components = [between_splits(means, test_to_train(cells[0]))]
    else:
        whole = [
            [runs[unit].test_rmse for unit in units]
            for runs in _distinct(arms, arm[1], {arm[2]}, units)
            if all(unit in runs for unit in units)
        ]
        table = np.array(whole, np.float64)
        n_arms, n = table.shape
        components = [Component(float(table.mean(axis=0).var(ddof=1)) / n, n - 1)]
        of_arm = np.repeat(range(n_arms), n).tolist()
        one = residual_variance([*range(n)] * n_arms, of_arm, table.ravel().tolist())
        if one is not None:
            components.append(Component(one.variance * (1 - 1 / n_arms) / n, one.df))
        if (terms := _mean_terms(cells)) is not None:
            components.append(molecule_component(terms))
    half = half_width(components)
    return max(0.0, centre - half), centre + half  # no error is below 0


def within_split(
    runs: Runs, controls: Runs, shared: Sequence[Unit], arms: Mapping[Arm, Runs]
) -> list[Component]:
    """Returns what other seeds and other test molecules would change; nothing with one seed.

    Seeds: with one pretrained model on both sides, twice the variance of one test RMSE about seed
    and arm, pooled over the arms of the method and the model, over the number of seeds. With two,
    the variance of the pair's own differences: a seed moves all arms of a model together, and
    those of another model otherwise, so that the other arms tell nothing more about it.
    """
    if len(shared) < 2 or _came_out_the_same(runs, controls, shared):
        return []
    first, other = runs[shared[0]], controls[shared[0]]
    if first.model == other.model:
        pooled = _distinct(arms, first.peft, {first.model}, shared)
        values = [
            (unit, i, cell.test_rmse)
            for i, those in enumerate(pooled)
            for unit, cell in those.items()
            if unit in shared and cell.test_rmse is not None
        ]
        one = residual_variance(*zip(*values, strict=True))
        if one is None:
            return []
        found = [Component(2 * one.variance / len(shared), one.df)]
    else:
        gaps = [_rmse(runs[unit]) - _rmse(controls[unit]) for unit in shared]
        found = [Component(float(np.var(gaps, ddof=1)) / len(gaps), len(gaps) - 1)]
    own = _mean_terms([runs[unit] for unit in shared])
    theirs = _mean_terms([controls[unit] for unit in shared])
    if own is not None and theirs is not None:
        found.append(molecule_component(own - theirs))
    return found


def test_to_train(cell: CellResult) -> float:
    """Returns n_test / n_train of the split: secondary rows are the same on every split."""
    assert cell.n_train is not None
    n_train = cell.n_train - (cell.n_selected or 0)
    return int((cell.predictions["part"] == "test").sum()) / n_train


def _rmse(cell: CellResult) -> float:
    assert cell.test_rmse is not None
    return cell.test_rmse


def _distinct(
    arms: Mapping[Arm, Runs], peft: Peft, models: Container[str | None], units: Sequence[Unit]
) -> list[Runs]:
    """Returns the arms of a method and of some models, one of those that came out the same.

    A selection that keeps nothing is `none` over again, and tells nothing more about the noise. Of
    two such arms the one counts of which more cells have finished.
    """
    found: list[Runs] = []
    having = {key: sum(unit in runs for unit in units) for key, runs in arms.items()}
    for key in sorted(arms, key=having.__getitem__, reverse=True):
        runs = arms[key]
        if key[1] != peft or key[2] not in models or not having[key]:
            continue
        if not any(_came_out_the_same(runs, other, units) for other in found):
            found.append(runs)
    return found


def _came_out_the_same(runs: Runs, other: Runs, units: Sequence[Unit]) -> bool:
    both = [unit for unit in units if unit in runs and unit in other]
    pairs = [(runs[unit].test_rmse, other[unit].test_rmse) for unit in both]
    return bool(pairs) and all(
        a is not None and b is not None and math.isclose(a, b, rel_tol=1e-6) for a, b in pairs
    )


def _mean_terms(cells: Sequence[CellResult]) -> Floats | None:
    """Returns each test molecule's share of the RMSE [n], the mean over cells of one split."""
    if any(cell.predictions.empty for cell in cells):
        return None
    tests = [cell.predictions[cell.predictions["part"] == "test"] for cell in cells]
    terms = [rmse_terms(test["predicted"], test["measured"]) for test in tests]
    return np.asarray(np.mean(terms, axis=0))
