"""What a report says of each selection: the tested differences, and what they come to in words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from lipo_cli.comparison.plan import labelled
from lipo_cli.comparison.report_record import Material
from lipo_cli.comparison.statistics import Verdict
from lipo_cli.comparison.summary import CONTROL, SummaryRow
from lipo_cli.settings import Peft

SIGNIFICANT = 0.05


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


def verdicts_of(material: Material) -> list[SelectionVerdicts]:
    """Returns what there is to say of each selection, in the order of the summary.

    Where nothing was tested (an older record, or no control), the bare differences are said.
    """
    found = []
    for name in dict.fromkeys(row.selection for row in material.summary if row.selection != "none"):
        rows = [row for row in material.summary if row.selection == name]
        tested = [verdict for verdict in material.verdicts if verdict.selection == name]
        if tested:
            lines = [VerdictLine(with_minus(v.sentence()), _meaning(v)) for v in tested]
            short = _in_short(tested)
        else:
            lines = [line for row in rows for line in _untested(row)]
            short = "No test was made; the differences are" if lines else "No control to compare"
        if all(row.n_selected == 0 for row in rows):
            short = "It chose no point: its cells are the control `none` over again"
            lines = []
        found.append(SelectionVerdicts(name, rows[0].role == "control", short, lines))
    return found


def headline(material: Material) -> str:
    """Returns in one line which selections are shown to help or to harm against `none`."""
    ours = [verdict for verdict in material.verdicts if verdict.against == CONTROL]
    told = [verdict for verdict in ours if verdict.p_holm is not None]
    if not told:
        return "This run cannot tell whether added data helps: no difference was tested."
    said = []
    for words, some in (
        ("Shown to lower the error against `none`", [v for v in told if _better(v)]),
        ("Shown to raise it", [v for v in told if _significant(v) and not _better(v)]),
    ):
        names = [f"{labelled(v.selection, v.model)} / {v.peft}" for v in some]
        said.append(f"{words}: {', '.join(names) or 'nothing'}.")
    return " ".join(said)


def difference_of(row: SummaryRow, verdicts: Sequence[Verdict], digits: int) -> str:
    """Returns the mean difference to the control `none` with its interval, as the verdict has it.

    Args:
        row: The selection with its method.
        verdicts: Every verdict.
        digits: Decimals.

    Returns:
        For example "-0.012 [-0.020, -0.004]", with a true minus; empty for the control itself.
    """
    key: tuple[str, Peft, str | None] = (row.selection, row.peft, row.model)
    delta, low, high = row.delta_none, row.delta_low, row.delta_high
    for verdict in verdicts:
        named = (verdict.selection, verdict.peft, verdict.model)
        if named == key and verdict.against == CONTROL:
            delta, low, high = verdict.delta, verdict.low, verdict.high
    return interval_text(delta, low, high, digits)


def interval_text(delta: float | None, low: float | None, high: float | None, digits: int) -> str:
    """Returns a difference with its interval where it has one; empty without a difference."""
    if delta is None:
        return ""
    if low is None or high is None:
        return with_minus(f"{delta:+.{digits}f}")
    return with_minus(f"{delta:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]")


def with_minus(line: str) -> str:
    """Returns a line whose negative numbers bear a true minus, which is read aloud as one."""
    return re.sub(r"(?<![\w.)])-(?=\d)", "\N{MINUS SIGN}", line)


def _meaning(verdict: Verdict) -> str:
    if verdict.p_holm is None:
        return "one seed: cannot be told from the noise of retraining"
    if verdict.p_holm < SIGNIFICANT:
        return f"{'better' if verdict.delta < 0 else 'worse'} than {verdict.against}"
    if verdict.detectable is None:
        return "no difference shown"
    return (
        f"no difference shown; one of {verdict.detectable:.2g} or more would have been seen "
        "four times in five"
    )


def _in_short(verdicts: Sequence[Verdict]) -> str:
    parts = []
    for against in dict.fromkeys(verdict.against for verdict in verdicts):
        ours = [verdict for verdict in verdicts if verdict.against == against]
        told = [v for v in ours if v.p_holm is not None]
        said = []
        for word, some in (
            ("better", [v for v in told if _better(v)]),
            ("worse", [v for v in told if _significant(v) and not _better(v)]),
            ("no difference shown", [v for v in told if not _significant(v)]),
            ("cannot be told from one seed", [v for v in ours if v.p_holm is None]),
        ):
            if some:
                pefts = ", ".join(dict.fromkeys(verdict.peft for verdict in some))
                said.append(f"{word} ({pefts})")
        parts.append(f"against {against}: {', '.join(said)}")
    line = "; ".join(parts)
    return line[:1].upper() + line[1:]


def _better(verdict: Verdict) -> bool:
    return _significant(verdict) and verdict.delta < 0


def _significant(verdict: Verdict) -> bool:
    return verdict.p_holm is not None and verdict.p_holm < SIGNIFICANT


def _untested(row: SummaryRow) -> list[VerdictLine]:
    lines = []
    name = f"{row.label} / {row.peft}"
    meaning = (
        "one seed: cannot be told from the noise of retraining"
        if row.n_seeds < 2
        else "95 % interval over training seeds, not corrected for several comparisons"
    )
    if row.delta_none is not None:
        text = interval_text(row.delta_none, row.delta_low, row.delta_high, 3)
        lines.append(VerdictLine(f"{name}: {text} against none", meaning))
    if row.delta_random is not None:
        text = interval_text(row.delta_random, None, None, 3)
        against = f"{name}: {text} against random points of equal size"
        lines.append(VerdictLine(against, "no interval"))
    return lines
