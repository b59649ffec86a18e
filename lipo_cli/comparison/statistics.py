"""What a comparison may say: each selection against each control, with interval, p and power."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from lipo_cli.comparison.cell_result import CellResult
from lipo_cli.comparison.digits import decimals
from lipo_cli.comparison.intervals import (
    Component,
    between_splits,
    detectable,
    half_width,
    holm,
    p_value,
)
from lipo_cli.comparison.plan import labelled
from lipo_cli.comparison.variation import (
    Arm,
    Runs,
    Unit,
    arms_of,
    mean_by_split,
    n_splits_of,
    test_to_train,
    within_split,
)
from lipo_cli.comparison.verdict import ALPHA, Verdict
from lipo_cli.settings import Peft
from lipo_cli.valuation.selection import Selection
from lipo_cli.valuation.selection_text import parse_selection

CONTROLS = ("none", "all")
RANDOM = "random of equal size"


def verdicts_of(cells: Sequence[CellResult]) -> list[Verdict]:
    """Returns a verdict for every pair that answers a question, in the order of the cells.

    A selection is judged against `none`, `all`, the random choice of its size, and a top against
    the bottom of its ranking (equal sizes: the test of the ranking itself); a random choice that
    the user asked for against `none` and `all`; the control `all` against `none`; and with several
    pretrained models, every selection against itself with the first. A pair whose sides trained on
    the same rows says nothing and is left out. Where a selection keeps nothing, or everything, it
    stands for `none`, or `all`: its verdicts are given, and count as the one question that they
    are.
    """
    arms = arms_of(cells)
    # A selection is named as the user wrote it, `tsds` or `tsds:optimal`: its form finds it.
    rules = {arm: parse_selection(arm[0]) for arm in arms}
    found = [
        judged
        for arm in arms
        for name, controls in _opponents(arm, arms, rules)
        if (judged := compared(arm, name, controls, arms)) is not None
    ]
    # One question may be asked under several names; it is tested once. Were its cells trained
    # twice, by the larger p: corrected, none is below its own.
    tested: dict[_Pair, float] = {}
    for each in found:
        if each.verdict.p is not None:
            tested[each.pair] = max(each.verdict.p, tested.get(each.pair, 0.0))
    corrected = dict(zip(tested, holm([*tested.values()]), strict=True))
    digits = decimals(cell.test_rmse for runs in arms.values() for cell in runs.values())
    return [
        replace(each.verdict, digits=digits)
        if each.verdict.p is None
        else replace(
            each.verdict,
            digits=digits,
            p_holm=corrected[each.pair],
            n_tests=len(tested),
            # At the first step of Holm's: what exceeds it is then significant, whatever the rest.
            detectable=detectable(each.components, 1 - ALPHA / len(tested)),
        )
        for each in found
    ]


@dataclass(frozen=True)
class _Judged:
    """A verdict, not yet corrected.

    Attributes:
        verdict: The verdict.
        components: Its sources of uncertainty; none where there is no test.
        pair: Method and both sides, whichever way round: the question that is asked.
    """

    verdict: Verdict
    components: list[Component]
    pair: _Pair


def equal_random(arm: Arm, arms: Mapping[Arm, Runs]) -> dict[Unit, CellResult]:
    """Returns the random control of the arm's own size, split by split and seed by seed.

    What a selection keeps may differ from split to split, and its control with it.
    """
    sizes = {
        rule.count: runs
        for other, runs in arms.items()
        if other[1:] == arm[1:] and (rule := parse_selection(other[0])).rule == "random"
    }
    found = {}
    for unit, cell in arms[arm].items():
        control = sizes.get(cell.n_selected, {}).get(unit)
        if control is not None:
            found[unit] = control
    return found


def _opponents(
    arm: Arm, arms: Mapping[Arm, Runs], rules: Mapping[Arm, Selection]
) -> Iterator[tuple[str, Runs]]:
    """Yields what an arm is judged against: names, and the cells by split and seed."""
    selection, peft, model = arm
    by_form = {(str(rule), *other[1:]): other for other, rule in rules.items()}
    rule = rules[arm]
    names: list[str] = []
    if selection == "all":
        names = ["none"]
    elif rule.needs_scores or (rule.rule == "random" and _was_asked(arms[arm])):
        names = [*CONTROLS]
    for name in names:
        if (name, peft, model) in arms:
            yield name, arms[name, peft, model]
    if rule.needs_scores:
        if control := equal_random(arm, arms):
            sizes = {cell.selection for cell in control.values()}
            yield sizes.pop() if len(sizes) == 1 else RANDOM, control
        bottom = by_form.get((str(replace(rule, rule="bottom")), peft, model))
        if rule.rule == "top" and bottom is not None:
            yield bottom[0], arms[bottom]
    baseline = next(iter(arms))[2]
    same = by_form.get((str(rule), peft, baseline))
    if model != baseline and same is not None:
        yield labelled(same[0], baseline), arms[same]


def _was_asked(runs: Runs) -> bool:
    """Tells whether the user named the selection: of a control nothing is asked."""
    return any(cell.role == "asked" for cell in runs.values())


def compared(arm: Arm, against: str, controls: Runs, arms: Mapping[Arm, Runs]) -> _Judged | None:
    """Compares an arm with a control on the splits and seeds that both finished.

    Args:
        arm: What is judged.
        against: The name of the other side.
        controls: Its cells.
        arms: The finished cells of every arm: those of the same method and model tell how far
            retraining with another seed moves a test RMSE.

    Returns:
        The verdict, not yet corrected; None where the two share no unit, or trained on the same
        rows throughout.
    """
    runs = arms[arm]
    shared = [unit for unit in runs if unit in controls]
    sides = {_side(each, shared, arms) for each in (runs, controls)}
    if not shared or len(sides) == 1:
        return None
    delta, by_split = mean_by_split([(unit, _difference(runs, controls, unit)) for unit in shared])
    of_splits = n_splits_of(arms)
    verdict = Verdict(*arm, against, len(shared), len(by_split), delta, of_splits)
    if of_splits == 1:
        components = within_split(runs, controls, shared, arms)
    elif len(by_split) > 1:
        components = [between_splits(by_split, test_to_train(runs[shared[0]]))]
    else:
        components = []  # on one of several splits, which is not to be tested as the only one
    pair = (arm[1], frozenset(sides))
    if not components:
        return _Judged(verdict, [], pair)
    half = half_width(components)
    p = p_value(delta, components)
    tested = replace(verdict, low=delta - half, high=delta + half, p=p)
    return _Judged(tested, components, pair)


def _difference(runs: Runs, controls: Runs, unit: Unit) -> float:
    own, theirs = runs[unit].test_rmse, controls[unit].test_rmse
    assert own is not None
    assert theirs is not None
    return own - theirs


_Side = tuple[tuple[Unit, str | None, str], ...]
_Pair = tuple[Peft, frozenset[_Side]]


def _side(runs: Runs, units: Sequence[Unit], arms: Mapping[Arm, Runs]) -> _Side:
    """Names the rows that one side of a pair trained on, and with which model.

    What chose nothing is `none` by another name, and what chose the whole pool is `all`. Two
    selections of the very same points share their runs.
    """

    def rows(unit: Unit, cell: CellResult) -> str:
        if cell.n_selected == 0:
            return "none"
        whole = arms.get(("all", cell.peft, cell.model), {}).get(unit)
        if whole and whole.n_selected == cell.n_selected:
            return "all"
        return cell.run_id or cell.selection

    return tuple((unit, runs[unit].model, rows(unit, runs[unit])) for unit in units)
