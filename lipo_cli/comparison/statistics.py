"""What a comparison may say: each selection against each control, with interval, p and power."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from lipo_cli.comparison.cells import CellResult
from lipo_cli.comparison.intervals import (
    LEVEL,
    Component,
    Floats,
    between_splits,
    detectable,
    half_width,
    holm,
    molecule_component,
    p_value,
    residual_variance,
    rmse_terms,
)
from lipo_cli.comparison.plan import labelled
from lipo_cli.settings import Peft
from lipo_cli.valuation.selection_text import parse_selection

ALPHA = 1 - LEVEL
CONTROLS = ("none", "all")

Unit = tuple[int | None, int]
"""A split (None: the only one) and a training seed."""
Arm = tuple[str, Peft, str | None]
"""A selection with a method and a pretrained model."""


@dataclass(frozen=True)
class Verdict:
    """A selection against a control, by test RMSE in raw label units.

    Attributes:
        selection: What is judged.
        peft: The fine-tuning method, the same on both sides.
        model: The pretrained model; None where one is compared.
        against: The other side: a control, the bottom of the same ranking, or the same selection
            with the first model.
        n_seeds: Training seeds that both sides finished, in all splits.
        n_splits: Splits that both sides have.
        delta: Mean difference of test RMSE; negative: better than the other side.
        low: Lower end of the 95 % interval; None with one seed of one split, which cannot tell a
            difference from the noise of retraining.
        high: Upper end.
        p: Two-sided, of no difference.
        p_holm: The same, corrected over all verdicts of the comparison (Holm 1979).
        detectable: The smallest difference that the run would have seen with 80 % power.
    """

    selection: str
    peft: Peft
    model: str | None
    against: str
    n_seeds: int
    n_splits: int
    delta: float
    low: float | None = None
    high: float | None = None
    p: float | None = None
    p_holm: float | None = None
    detectable: float | None = None

    @property
    def significant(self) -> bool:
        """Whether the difference holds at 5 % after the correction."""
        return self.p_holm is not None and self.p_holm < ALPHA

    def numbers(self) -> str:
        """Says who is compared with whom, the difference, its interval and p, in a line."""
        who = f"{labelled(self.selection, self.model)} / {self.peft}"
        if self.low is None or self.high is None or self.p is None or self.p_holm is None:
            return f"{who}: {self.delta:+.3f} against {self.against}"
        return (
            f"{who}: {self.delta:+.3f} [{self.low:+.3f}, {self.high:+.3f}] against {self.against}, "
            f"p = {_p(self.p)} (Holm {_p(self.p_holm)})"
        )

    def outcome(self) -> str:
        """Says what that shows."""
        if self.p_holm is None:
            return "one seed: cannot be told from the noise of retraining"
        if self.significant:
            return "better" if self.delta < 0 else "worse"
        # With a p of 0.03 and one of 0.1 after the correction, nothing has been shown.
        seen = "" if self.detectable is None else f"; {self.detectable:.3f} would have been seen"
        return f"no difference shown{seen}"

    def sentence(self) -> str:
        """Says both in a line."""
        return f"{self.numbers()}: {self.outcome()}"

    def as_dict(self) -> dict[str, Any]:
        """Returns the verdict by name, with its sentence."""
        return asdict(self) | {"significant": self.significant, "sentence": self.sentence()}


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.2g}"


Runs = Mapping[Unit, CellResult]


def verdicts_of(cells: Sequence[CellResult]) -> list[Verdict]:
    """Returns a verdict for every pair that answers a question, in the order of the cells.

    A selection is judged against `none`, `all`, the random choice of its size, and a top against
    the bottom of its ranking (equal sizes: the test of the ranking itself); the control `all`
    against `none`; and with several pretrained models, every selection against itself with the
    first. A pair whose sides trained on the same rows says nothing and is left out.
    """
    arms: dict[Arm, dict[Unit, CellResult]] = {}
    for cell in cells:
        arms.setdefault((cell.selection, cell.peft, cell.model), {})
        if cell.status == "finished" and cell.test_rmse is not None:
            units = arms[cell.selection, cell.peft, cell.model]
            units[cell.split, cell.seed] = cell
    found = [
        verdict
        for arm, other in _pairs(arms)
        if (verdict := compared(arm, other, arms)) is not None
    ]
    tested = [v.p for v in found if v.p is not None]
    corrected = iter(holm(tested))
    return [replace(v, p_holm=next(corrected)) if v.p is not None else v for v in found]


def _pairs(arms: Mapping[Arm, Runs]) -> Iterator[tuple[Arm, Arm]]:
    baseline = next((model for _, _, model in arms), None)
    # A selection is named as the user wrote it, `tsds` or `tsds:optimal`: its form finds it.
    by_form = {(str(parse_selection(arm[0])), *arm[1:]): arm for arm in arms}
    for arm, runs in arms.items():
        selection, peft, model = arm
        others = [(name, peft, model) for name in _against(selection, runs)]
        if model != baseline:
            others.append((str(parse_selection(selection)), peft, baseline))
        yield from ((arm, by_form[other]) for other in others if other in by_form)


def _against(selection: str, runs: Runs) -> list[str]:
    """Names the selections that this one is judged against."""
    rule = parse_selection(selection)
    if selection == "none" or rule.rule == "random":
        return []
    if selection == "all":
        return ["none"]
    sizes = {cell.n_selected for cell in runs.values()}
    names = [*CONTROLS, *(f"random:k={size}" for size in sorted(s for s in sizes if s))]
    if rule.rule == "top":
        names.append(str(replace(rule, rule="bottom")))
    return names


def compared(arm: Arm, other: Arm, arms: Mapping[Arm, Runs]) -> Verdict | None:
    """Compares two arms on the splits and seeds that both finished; no correction yet.

    Args:
        arm: What is judged.
        other: The other side.
        arms: The finished cells of every arm: those of the same method and model tell how far
            retraining with another seed moves a test RMSE.

    Returns:
        The verdict; None where the two share no unit, or trained on the same rows throughout.
    """
    runs, controls = arms[arm], arms[other]
    shared = [unit for unit in runs if unit in controls]
    if not shared or all(_same_rows(runs[unit], controls[unit]) for unit in shared):
        return None
    selection, peft, model = arm
    splits = list(dict.fromkeys(split for split, _ in shared))
    by_split = [
        float(np.mean([_delta(runs[u], controls[u]) for u in shared if u[0] == split]))
        for split in splits
    ]
    delta = float(np.mean(by_split))
    verdict = Verdict(
        selection,
        peft,
        model,
        other[0] if model == other[2] else labelled(other[0], other[2]),
        len(shared),
        len(splits),
        delta,
    )
    if len(splits) > 1:
        components = [between_splits(by_split, _test_to_train(runs[shared[0]]))]
    elif (noise := _seed_noise(arm, other, arms, shared)) is None:
        return verdict
    else:
        components = [noise, *_molecules(runs, controls, shared)]
    half = half_width(components)
    return replace(
        verdict,
        low=delta - half,
        high=delta + half,
        p=p_value(delta, components),
        detectable=detectable(components),
    )


def mean_interval(
    cells: Sequence[CellResult], same: Sequence[CellResult]
) -> tuple[float, float] | None:
    """Returns the 95 % interval of an arm's mean test RMSE, over seeds and test molecules.

    Args:
        cells: The arm's finished cells.
        same: The finished cells of every arm of its method and model: they tell how far another
            seed moves a test RMSE.

    Returns:
        Its ends; None with one seed of one split.
    """
    if len(cells) < 2:
        return None
    splits = list(dict.fromkeys(cell.split for cell in cells))
    if len(splits) > 1:
        means = [float(np.mean(_rmses([c for c in cells if c.split == split]))) for split in splits]
        centre = float(np.mean(means))
        components = [between_splits(means, _test_to_train(cells[0]))]
    else:
        centre = float(np.mean(_rmses(cells)))
        known = [cell for cell in same if cell.test_rmse is not None]
        one = residual_variance([0] * len(known), [cell.selection for cell in known], _rmses(known))
        if one is None:
            return None
        components = [Component(one.variance / len(cells), one.df)]
        if (terms := _mean_terms(cells)) is not None:
            components.append(molecule_component(terms))
    half = half_width(components)
    return centre - half, centre + half


def _rmses(cells: Sequence[CellResult]) -> list[float]:
    return [cell.test_rmse for cell in cells if cell.test_rmse is not None]


def _delta(cell: CellResult, control: CellResult) -> float:
    assert cell.test_rmse is not None
    assert control.test_rmse is not None
    return cell.test_rmse - control.test_rmse


def _same_rows(cell: CellResult, control: CellResult) -> bool:
    """Says whether both sides trained on the same rows: nothing chosen, or the whole pool."""
    if cell.model != control.model or cell.n_selected != control.n_selected:
        return False
    return cell.n_selected == 0 or control.selection == "all"


def _seed_noise(
    arm: Arm, other: Arm, arms: Mapping[Arm, Runs], shared: Sequence[Unit]
) -> Component | None:
    """Returns what other training seeds would change of the mean difference.

    Twice the variance of one test RMSE about seed and arm, pooled over the arms of the method and
    the models concerned, over the number of seeds.
    """
    if len(shared) < 2:
        return None
    values = [
        (unit, key, cell.test_rmse)
        for key, runs in arms.items()
        if key[1] == arm[1] and key[2] in (arm[2], other[2])
        for unit, cell in runs.items()
        if unit in shared
    ]
    units, keys, rmses = zip(*values, strict=True)
    one = residual_variance(units, keys, rmses)
    return None if one is None else Component(2 * one.variance / len(shared), one.df)


def _molecules(runs: Runs, controls: Runs, shared: Sequence[Unit]) -> list[Component]:
    """Returns what other test molecules would change; nothing where predictions are not known."""
    own = _mean_terms([runs[unit] for unit in shared])
    other = _mean_terms([controls[unit] for unit in shared])
    return [] if own is None or other is None else [molecule_component(own - other)]


def _mean_terms(cells: Sequence[CellResult]) -> Floats | None:
    """Returns each test molecule's share of the RMSE [n], the mean over cells of one split."""
    if any(cell.predictions.empty for cell in cells):
        return None
    tests = [cell.predictions[cell.predictions["part"] == "test"] for cell in cells]
    terms = [rmse_terms(test["predicted"], test["measured"]) for test in tests]
    return np.asarray(np.mean(terms, axis=0))


def _test_to_train(cell: CellResult) -> float:
    assert cell.n_train is not None
    return int((cell.predictions["part"] == "test").sum()) / cell.n_train
