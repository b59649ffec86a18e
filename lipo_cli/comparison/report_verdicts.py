"""What a report says of each selection: the tested differences, and what they come to in words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath

from lipo_cli.comparison.digits import difference_text
from lipo_cli.comparison.plan import labelled
from lipo_cli.comparison.report_record import Material
from lipo_cli.comparison.summary import CONTROL, SummaryRow
from lipo_cli.comparison.verdict import Verdict


@dataclass(frozen=True)
class VerdictLine:
    """One difference: its sentence, and what it means."""

    sentence: str
    meaning: str


@dataclass(frozen=True)
class SelectionVerdicts:
    """A selection: in short, and difference by difference."""

    selection: str
    is_control: bool
    short: str
    lines: Sequence[VerdictLine]


def selection_verdicts(material: Material) -> list[SelectionVerdicts]:
    """Returns what there is to say of each selection, in the order of the summary.

    Where nothing was tested (an older record, or no control), the bare differences are said.
    """
    found = []
    judged = {verdict.selection for verdict in material.verdicts}
    # The control itself is judged where several pretrained models are compared.
    names = [r.selection for r in material.summary if r.selection != CONTROL or CONTROL in judged]
    for name in dict.fromkeys(names):
        rows = [row for row in material.summary if row.selection == name]
        tested = [verdict for verdict in material.verdicts if verdict.selection == name]
        sizes = {
            cell.n_selected
            for cell in material.cells
            if cell.selection == name and cell.status == "finished"
        }
        if tested:
            lines = [VerdictLine(with_minus(v.numbers()), _meaning(v)) for v in tested]
            short = _in_short(tested)
        else:
            lines = [line for row in rows for line in _untested(row, material.decimals)]
            short = "No test was made; the differences are" if lines else "No control to compare"
        if sizes == {0} and name != CONTROL:
            short = "It chose no point: its cells are the control `none` over again"
        found.append(SelectionVerdicts(name, rows[0].role == "control", short, lines))
    return found


def headline(material: Material) -> str:
    """Returns in one line what is shown to help or to harm: selections, and pretrained models."""
    tested = [verdict for verdict in material.verdicts if verdict.p_holm is not None]
    first = material.summary[0].model if material.summary else None
    of_models = [
        v for v in tested if first is not None and v.against == labelled(v.selection, first)
    ]
    rest = [v for v in tested if v not in of_models]
    of_selections = [v for v in rest if v.against == CONTROL]
    said = []
    if of_selections or not tested:
        said.append(_shown(of_selections, "against `none`"))
    elif rest:  # no control, or none of its cells finished
        others = _shown(rest, "against another selection", beside=True)
        said.append(f"Nothing was tested against `none`. {others}")
    if of_models:
        said.append(_shown(of_models, f"against the first model, {PurePath(first or '').name}"))
    return " ".join(said)


def _shown(told: Sequence[Verdict], against: str, *, beside: bool = False) -> str:
    if not told:
        return "This run cannot tell what helps: no difference was tested."
    said = []
    for words, some in (
        (f"Shown to lower the error {against}", [v for v in told if _better(v)]),
        ("Shown to raise it", [v for v in told if v.significant and not _better(v)]),
    ):
        names = [
            f"{labelled(v.selection, v.model)} / {v.peft}" + f" against {v.against}" * beside
            for v in some
        ]
        said.append(f"{words}: {', '.join(names) or 'nothing'}.")
    return " ".join(said)


def interval_text(delta: float | None, low: float | None, high: float | None, digits: int) -> str:
    """Returns a difference with its interval where it has one, with a true minus."""
    return with_minus(difference_text(delta, low, high, digits))


def with_minus(line: str) -> str:
    """Returns a line whose negative numbers bear a true minus, which is read aloud as one."""
    return re.sub(r"(?<![\w.)])-(?=\d)", "\N{MINUS SIGN}", line)


def _meaning(verdict: Verdict) -> str:
    if verdict.significant:
        return f"{verdict.outcome()} than {verdict.against}"
    return verdict.outcome() + (" four times in five" if verdict.detectable is not None else "")


def _in_short(verdicts: Sequence[Verdict]) -> str:
    parts = []
    for against in dict.fromkeys(verdict.against for verdict in verdicts):
        ours = [verdict for verdict in verdicts if verdict.against == against]
        told = [v for v in ours if v.p_holm is not None]
        untold = [v for v in ours if v.p_holm is None]
        whole = [v for v in untold if v.n_splits == v.of_splits]
        said = []
        for word, some in (
            ("better", [v for v in told if _better(v)]),
            ("worse", [v for v in told if v.significant and not _better(v)]),
            ("no difference shown", [v for v in told if not v.significant]),
            ("cannot be told from one split", [v for v in untold if v not in whole]),
            ("the same to the digit", [v for v in whole if v.is_the_same]),
            ("cannot be told from one seed", [v for v in whole if not v.is_the_same]),
        ):
            if some:
                who = ", ".join(dict.fromkeys(_how(verdict) for verdict in some))
                said.append(f"{word} ({who})")
        parts.append(f"against {against}: {', '.join(said)}")
    line = "; ".join(parts)
    return line[:1].upper() + line[1:]


def _how(verdict: Verdict) -> str:
    """Names the method, and the pretrained model where several are compared."""
    model = verdict.model
    return verdict.peft if model is None else f"{verdict.peft} on {PurePath(model).name}"


def _better(verdict: Verdict) -> bool:
    return verdict.significant and verdict.delta < 0


def _untested(row: SummaryRow, digits: int) -> list[VerdictLine]:
    lines = []
    name = f"{row.label} / {row.peft}"
    if row.n_seeds < 2:
        meaning = "one seed: cannot be told from the noise of retraining"
    elif row.delta_low is None:
        meaning = "mean over seeds, without an interval: a control for others"
    else:
        meaning = "95 % interval over training seeds, not corrected for several comparisons"
    if row.delta_none is not None:
        text = interval_text(row.delta_none, row.delta_low, row.delta_high, digits)
        lines.append(VerdictLine(f"{name}: {text} against none", meaning))
    if row.delta_random is not None:
        text = interval_text(row.delta_random, None, None, digits)
        against = f"{name}: {text} against random points of equal size"
        lines.append(VerdictLine(against, "no interval"))
    return lines
