"""What the cells say together: means and spreads over seeds, differences to the control."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from lipo_cli.comparison.cell_result import CellResult
from lipo_cli.comparison.plan import labelled, on_splits
from lipo_cli.comparison.statistics import equal_random, verdicts_of
from lipo_cli.comparison.variation import (
    Arm,
    Unit,
    arms_of,
    mean_by_split,
    mean_interval,
    n_splits_of,
)
from lipo_cli.comparison.verdict import Verdict
from lipo_cli.settings import Peft
from lipo_cli.valuation.agreement import jaccard

CONTROL = "none"


@dataclass(frozen=True)
class SummaryRow:
    """One selection with one method over its seeds; RMSE in raw label units.

    Attributes:
        n_seeds: Finished cells: seeds, times splits where several are compared.
        n_selected: Points chosen; of several splits on the first that finished.
        n_train: Rows trained on, likewise.
        test_rmse_sd: Sample standard deviation over seeds; None with fewer than two.
        test_low: Lower end of the 95 % interval of the mean test RMSE (seeds and test molecules);
            None with fewer than two seeds.
        test_high: Upper end.
        delta_random: As `delta_none`, against the random control of equal size: whether the choice
            did better than chance. None for controls.
        delta_none: Mean over seeds of test RMSE minus that of the control `none` with the same
            method and seed: negative means that the added points helped.
        delta_low: Lower end of its 95 % interval, as the verdict of this pair has it; None where
            there is none.
        delta_high: Upper end.
        model: The pretrained model; None where one is compared.
        delta_model: Mean over seeds of test RMSE minus that of the first model with the same
            selection, method and seed: negative means that this model is better.
        delta_model_low: Lower end of its 95 % interval, as above.
        delta_model_high: Upper end.
        n_splits: Splits with a finished cell: a random control has the size of a choice, which may
            differ from split to split.
        of_splits: Splits of the comparison with a finished cell of any row. A row of fewer has
            means that compare with no other row's.
        selected_by_split: Points chosen on each of several splits; empty for one split.
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
    test_low: float | None = None
    test_high: float | None = None
    delta_random: float | None = None
    model: str | None = None
    delta_model: float | None = None
    delta_model_low: float | None = None
    delta_model_high: float | None = None
    n_splits: int = 1
    of_splits: int = 1
    selected_by_split: Sequence[int] = ()

    @property
    def label(self) -> str:
        """Names selection and model."""
        return labelled(self.selection, self.model)

    @property
    def name(self) -> str:
        """Names selection and model, and how much of it there is where some is missing.

        The mean of a row that lost a seed is over other seeds than those beside it.
        """
        some = f" ({self.n_seeds} of {self.n_seeds + self.n_failed} cells)"
        lost = some if self.n_failed and self.n_seeds else ""
        return self.label + (on_splits(self.n_splits, self.of_splits) or lost)

    @property
    def chosen(self) -> str:
        """Says how many points were chosen: on several splits from the fewest to the most."""
        return _counted(self.n_selected, self.selected_by_split)

    @property
    def trained(self) -> str:
        """Says on how many rows it was trained, likewise."""
        # Of several splits each has as many primary rows, give or take one.
        own = (self.n_train or 0) - (self.n_selected or 0)
        return _counted(self.n_train, [own + n for n in self.selected_by_split])

    def as_dict(self) -> dict[str, Any]:
        """Returns the row by name."""
        return asdict(self)


def _counted(first: int | None, by_split: Sequence[int]) -> str:
    if len(set(by_split)) > 1:
        return f"{min(by_split):,} to {max(by_split):,}"
    return f"{first:,}" if first is not None else ""


def summarise(
    cells: Sequence[CellResult], verdicts: Sequence[Verdict] | None = None
) -> list[SummaryRow]:
    """Returns one row per selection, method and model, in the order of the cells.

    Args:
        cells: The cells, failed ones included.
        verdicts: What `verdicts_of` says of them; None: said anew.
    """
    groups: dict[Arm, list[CellResult]] = {}
    for cell in cells:
        groups.setdefault((cell.selection, cell.peft, cell.model), []).append(cell)
    said = verdicts_of(cells) if verdicts is None else verdicts
    intervals = {(v.selection, v.peft, v.model, v.against): (v.low, v.high) for v in said}
    baseline = cells[0].model if cells else None
    arms = arms_of(cells)
    return [_row(key, groups, baseline, intervals, arms) for key in groups]


_Interval = tuple[float | None, float | None]


def _row(
    key: Arm,
    groups: dict[Arm, list[CellResult]],
    baseline: str | None,
    intervals: Mapping[tuple[str, Peft, str | None, str], _Interval],
    arms: Mapping[Arm, Mapping[Unit, CellResult]],
) -> SummaryRow:
    group = groups[key]
    selection, peft, model = key
    done = [cell for cell in group if cell.status == "finished"]
    first = group[0]
    known = done[0] if done else first
    tests = [((c.split, c.seed), c.test_rmse) for c in done if c.test_rmse is not None]
    vals = [((c.split, c.seed), c.val_rmse) for c in done if c.val_rmse is not None]
    none: _Interval = (None, None)
    low, high = intervals.get((*key, CONTROL), none)
    model_low, model_high = intervals.get((*key, labelled(selection, baseline)), none)
    test_low, test_high = mean_interval(key, arms) or none
    judged = first.role == "asked" and not selection.startswith("random:")
    chance = equal_random(key, arms) if judged else {}
    sizes = {cell.split: cell.n_selected for cell in done if cell.n_selected is not None}
    of_splits = n_splits_of(arms)
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
        val_rmse=mean_by_split(vals)[0] if vals else None,
        test_rmse=mean_by_split(tests)[0] if tests else None,
        test_rmse_sd=float(np.std([t for _, t in tests], ddof=1)) if len(tests) > 1 else None,
        test_low=test_low,
        test_high=test_high,
        delta_none=None
        if selection == CONTROL
        else _difference(done, groups.get((CONTROL, peft, model), [])),
        delta_low=low,
        delta_high=high,
        delta_random=_difference(done, [*chance.values()]),
        model=model,
        delta_model=None
        if model == baseline
        else _difference(done, groups.get((selection, peft, baseline), [])),
        delta_model_low=model_low,
        delta_model_high=model_high,
        n_splits=len({cell.split for cell in done}),
        of_splits=of_splits,
        selected_by_split=[*sizes.values()] if of_splits > 1 else [],
    )


def _difference(done: list[CellResult], controls: list[CellResult]) -> float | None:
    """Returns the mean difference of test RMSE over what both finished, split by split."""
    by_unit = {(c.split, c.seed): c.test_rmse for c in controls if c.test_rmse is not None}
    found = [
        ((cell.split, cell.seed), cell.test_rmse - other)
        for cell in done
        if cell.test_rmse is not None
        and (other := by_unit.get((cell.split, cell.seed))) is not None
    ]
    return mean_by_split(found)[0] if found else None


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def seeds_text(summary: Iterable[SummaryRow]) -> str:
    """Says over how many seeds the rows of one split are: "3", or "2 to 3" where some lost one."""
    counts = {row.n_seeds for row in summary if row.n_seeds > 1} or {1}  # one has no interval
    return f"{min(counts)} to {max(counts)}" if len(counts) > 1 else str(max(counts))


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


def why_no_champion(
    cells: Sequence[CellResult], *, pool_is_sound: bool, offers_champion: bool = True
) -> str:
    """Says why no cell may become champion.

    Args:
        cells: The cells, those of the first split first.
        pool_is_sound: As `pick_champion` was told.
        offers_champion: False for a recipe that is rerun to be looked at.
    """
    of_first = [cell for cell in cells if cell.split == cells[0].split]
    if offers_champion and not any(cell.status == "finished" for cell in of_first):
        where = "" if len(of_first) == len(cells) else " on the first split, which alone counts"
        return f"none finished{where}"
    if offers_champion and not pool_is_sound:
        return "the audit failed, and all that finished took from the set"
    return "this recipe is rerun to be looked at, not to be used"


def pick_champion(cells: Sequence[CellResult], *, pool_is_sound: bool = True) -> CellResult | None:
    """Picks the champion on validation alone: the best mean over seeds, then its best seed.

    Of several splits the first alone has a say: validation RMSEs compare within one split only.
    There, the means are over the seeds that every row finished: seeds differ by more than
    selections do, and a row whose worst seed failed must not win by it. Where there is no such
    seed, rows without the one that most have finished cannot win.

    Args:
        cells: The cells, those of the first split first.
        pool_is_sound: False when the audit of the secondary set failed: its labels may be computed
            from validation labels, so that no cell trained on any of it may win.
    """
    found: dict[Arm, dict[int, tuple[float, CellResult]]] = {}
    for cell in cells:
        may_win = cell.split == cells[0].split and (pool_is_sound or not cell.n_selected)
        if may_win and cell.status == "finished" and cell.val_rmse is not None:
            by_seed = found.setdefault((cell.selection, cell.peft, cell.model), {})
            by_seed[cell.seed] = cell.val_rmse, cell
    if not found:
        return None
    counts = Counter(seed for by_seed in found.values() for seed in by_seed)
    common = max(sorted(counts), key=counts.__getitem__)
    rows = [by_seed for by_seed in found.values() if common in by_seed]
    shared = set.intersection(*map(set, rows))

    def rank(by_seed: dict[int, tuple[float, CellResult]]) -> float:
        return float(np.mean([by_seed[seed][0] for seed in shared]))

    best = min(rows, key=rank)
    return min(best.values(), key=lambda pair: pair[0])[1]
