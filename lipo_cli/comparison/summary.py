"""What the cells say together: means and spreads over seeds, differences to the control."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.stats import t as student_t

from lipo_cli.comparison.cells import CellResult
from lipo_cli.comparison.plan import labelled
from lipo_cli.settings import Peft
from lipo_cli.valuation.agreement import jaccard

CONTROL = "none"


@dataclass(frozen=True)
class SummaryRow:
    """One selection with one method over its seeds; RMSE in raw label units.

    Attributes:
        test_rmse_sd: Sample standard deviation over seeds; None with fewer than two.
        delta_random: As `delta_none`, against the random control of equal size: whether the choice
            did better than chance. None for controls.
        delta_none: Mean over seeds of test RMSE minus that of the control `none` with the same
            method and seed: negative means that the added points helped.
        delta_low: Lower end of its 95 % interval (Student's t over seeds); None with fewer than
            two seeds, as one seed cannot tell a difference from noise. It covers the noise of
            training seeds on one split with one scoring, and of nothing else.
        delta_high: Upper end.
        model: The pretrained model; None where one is compared.
        delta_model: Mean over seeds of test RMSE minus that of the first model with the same
            selection, method and seed: negative means that this model is better.
        delta_model_low: Lower end of its 95 % interval over seeds, as above.
        delta_model_high: Upper end.
    """

    selection: str
    peft: Peft
    role: str
    n_seeds: int
    n_failed: int
    n_selected: int | None
    n_train: int | None
    trainable_parameters: int | None
    seconds: float | None
    val_rmse: float | None
    test_rmse: float | None
    test_rmse_sd: float | None
    delta_none: float | None
    delta_low: float | None
    delta_high: float | None
    delta_random: float | None = None
    model: str | None = None
    delta_model: float | None = None
    delta_model_low: float | None = None
    delta_model_high: float | None = None

    @property
    def label(self) -> str:
        """Names selection and model."""
        return labelled(self.selection, self.model)

    def as_dict(self) -> dict[str, Any]:
        """Returns the row by name."""
        return asdict(self)


_Key = tuple[str, Peft, str | None]


def summarise(cells: Sequence[CellResult]) -> list[SummaryRow]:
    """Returns one row per selection, method and model, in the order of the cells."""
    groups: dict[_Key, list[CellResult]] = {}
    for cell in cells:
        groups.setdefault((cell.selection, cell.peft, cell.model), []).append(cell)
    baseline = cells[0].model if cells else None
    return [_row(key, groups, baseline) for key in groups]


def _random_of_equal_size(key: _Key, groups: dict[_Key, list[CellResult]]) -> list[CellResult]:
    group = groups[key]
    # Of a failed cell nobody knows how many it chose.
    first = next((cell for cell in group if cell.status == "finished"), group[0])
    if first.role != "asked" or first.selection.startswith("random:"):
        return []
    return groups.get((f"random:k={first.n_selected}", *key[1:]), [])


def _row(key: _Key, groups: dict[_Key, list[CellResult]], baseline: str | None) -> SummaryRow:
    group = groups[key]
    selection, peft, model = key
    done = [cell for cell in group if cell.status == "finished"]
    first = group[0]
    known = done[0] if done else first
    tests = [cell.test_rmse for cell in done if cell.test_rmse is not None]
    nothing: tuple[None, None, None] = (None, None, None)
    controls = groups.get((CONTROL, peft, model), [])
    delta, low, high = nothing if selection == CONTROL else _difference(done, controls)
    of_model, model_low, model_high = (
        nothing
        if model == baseline
        else _difference(done, groups.get((selection, peft, baseline), []))
    )
    return SummaryRow(
        selection=selection,
        peft=peft,
        role=first.role,
        n_seeds=len(done),
        n_failed=len(group) - len(done),
        n_selected=known.n_selected,
        n_train=known.n_train,
        trainable_parameters=known.trainable_parameters,
        seconds=_mean(cell.seconds for cell in done),
        val_rmse=_mean(cell.val_rmse for cell in done),
        test_rmse=_mean(tests),
        test_rmse_sd=float(np.std(tests, ddof=1)) if len(tests) > 1 else None,
        delta_none=delta,
        delta_low=low,
        delta_high=high,
        delta_random=_difference(done, _random_of_equal_size(key, groups))[0],
        model=model,
        delta_model=of_model,
        delta_model_low=model_low,
        delta_model_high=model_high,
    )


def _difference(
    done: list[CellResult], controls: list[CellResult]
) -> tuple[float | None, float | None, float | None]:
    """Returns the mean paired difference to the control, and its 95 % interval over seeds."""
    by_seed = {cell.seed: cell.test_rmse for cell in controls if cell.test_rmse is not None}
    pairs = [
        cell.test_rmse - by_seed[cell.seed]
        for cell in done
        if cell.test_rmse is not None and cell.seed in by_seed
    ]
    if not pairs:
        return None, None, None
    mean = float(np.mean(pairs))
    if len(pairs) < 2:
        return mean, None, None
    half = float(student_t.ppf(0.975, len(pairs) - 1) * np.std(pairs, ddof=1) / np.sqrt(len(pairs)))
    return mean, mean - half, mean + half


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


@dataclass(frozen=True)
class Overlap:
    """How far two selections choose the same points."""

    first: str
    second: str
    jaccard: float


def selection_overlaps(chosen: dict[str, np.ndarray]) -> list[Overlap]:
    """Returns the Jaccard index of every pair of selections that chose at least one point."""
    names = [name for name, rows in chosen.items() if len(rows)]
    return [
        Overlap(a, b, jaccard(chosen[a], chosen[b]))
        for i, a in enumerate(names)
        for b in names[i + 1 :]
    ]


def _on_shared_seeds(
    cells: Sequence[CellResult], rows: Sequence[SummaryRow]
) -> Callable[[SummaryRow], float]:
    """Returns what ranks rows: the mean validation RMSE over the seeds that all of them finished.

    Seeds differ by more than selections do: a row whose worst seed failed must not win by it.
    """
    found: dict[_Key, dict[int, float]] = {}
    for cell in cells:
        if cell.status == "finished" and cell.val_rmse is not None:
            found.setdefault((cell.selection, cell.peft, cell.model), {})[cell.seed] = cell.val_rmse
    shared = set.intersection(*(set(found[row.selection, row.peft, row.model]) for row in rows))

    def rank(row: SummaryRow) -> float:
        by_seed = found[row.selection, row.peft, row.model]
        return float(np.mean([by_seed[seed] for seed in shared or by_seed]))

    return rank


def pick_champion(
    cells: Sequence[CellResult], summary: Sequence[SummaryRow], *, pool_is_sound: bool = True
) -> CellResult | None:
    """Picks the champion on validation alone: the best mean over seeds, then its best seed.

    Args:
        cells: The cells.
        summary: Their summary.
        pool_is_sound: False when the audit of the secondary set failed: its labels may be computed
            from validation labels, so that no cell trained on any of it may win.
    """
    rows = [
        row for row in summary if row.val_rmse is not None and (pool_is_sound or not row.n_selected)
    ]
    if not rows:
        return None
    best = min(rows, key=_on_shared_seeds(cells, rows))
    group = [
        cell
        for cell in cells
        if (cell.selection, cell.peft, cell.model) == (best.selection, best.peft, best.model)
        and cell.status == "finished"
        and cell.val_rmse is not None
    ]
    return min(group, key=lambda cell: cell.val_rmse if cell.val_rmse is not None else np.inf)
