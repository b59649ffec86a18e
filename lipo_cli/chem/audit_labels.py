"""Questions about the labels of a secondary set, and about what they were made from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lipo_cli.chem.finding import Figures, Finding, Level, level_of
from lipo_cli.chem.neighbour_labels import (
    LARGEST_K,
    MOST_DECIMALS,
    NeighbourRule,
    decimals,
    find_neighbour_rule,
    neighbour_rmse,
)
from lipo_cli.chem.overlap import OverlapReport, drop_overlap
from lipo_cli.chem.row_order import row_order_test
from lipo_cli.chem.splits import Split
from lipo_cli.chem.tables import MoleculeTable

FEWEST_MATCHES = 5
FEWEST_SHARED = 3
FEWEST_FITTED = 30
"""Below so many labels a good fit of the best of ten rules is luck."""


@dataclass(frozen=True)
class LabelEvidence:
    """What the label questions need, computed once.

    Attributes:
        secondary: The set in question, n rows.
        primary: The measured set, m rows.
        split: Of the primary set.
        asked: Positions of the secondary rows whose neighbours are looked up, [a].
        distances: Their squared fingerprint distances, [a, m].
        similarity: Highest Tanimoto similarity to the primary set, [n].
        drawn: Some primary positions, [d].
        among_primary: Their squared distances to the primary set, themselves excepted, [d, m].
        seed: Of the permutation tests.
    """

    secondary: MoleculeTable
    primary: MoleculeTable
    split: Split
    asked: npt.NDArray[np.int64]
    distances: npt.NDArray[np.int64]
    similarity: npt.NDArray[np.float64]
    drawn: npt.NDArray[np.int64]
    among_primary: npt.NDArray[np.int64]
    seed: int


def label_findings(evidence: LabelEvidence) -> tuple[list[Finding], Figures]:
    """Asks all questions about labels; returns the findings and their figures."""
    findings: list[Finding] = []
    figures: Figures = {}
    for ask in (_neighbour_rule, _neighbour_fit, _overlap, _granularity, _row_order, _range):
        found, numbers = ask(evidence)
        findings += found
        figures |= numbers
    return findings, figures


def _neighbour_rule(evidence: LabelEvidence) -> tuple[list[Finding], Figures]:
    n = len(evidence.primary)
    words = evidence.split.columns(n)
    rule = find_neighbour_rule(
        evidence.distances,
        evidence.secondary.labels[evidence.asked],
        evidence.primary.labels,
        in_val=words == "val",
        in_test=words == "test",
        seed=evidence.seed,
    )
    name = "neighbour labels"
    if rule is None:
        return [Finding(name, "too few molecules to tell", "ok", "No rule could be tried.")], {}
    figures: Figures = {
        "neighbour_k": rule.k,
        "neighbour_unambiguous": rule.n_unambiguous,
        "neighbour_matched": rule.n_matched,
        "neighbour_ambiguous_matched": rule.n_ambiguous_matched,
        "neighbour_p_value": rule.p_value,
        "neighbour_test_rows_min": rule.test_rows[0],
        "neighbour_test_rows_max": rule.test_rows[1],
        "neighbour_val_rows_min": rule.val_rows[0],
        "neighbour_val_rows_max": rule.val_rows[1],
    }
    if rule.p_value > 1e-3 or rule.n_matched < FEWEST_MATCHES or rule.share < 0.05:
        value = f"best rule (k={rule.k}) gives {rule.n_matched} of {rule.n_unambiguous} labels"
        if len(evidence.asked) < len(evidence.secondary):
            value += f" (of {len(evidence.asked):,} rows drawn)"
        text = "No mean of the 1 to 10 nearest primary labels reproduces these labels."
        return [Finding(name, value, "ok", text)], figures
    level: Level = "fail" if rule.share >= 0.2 and rule.p_value < 1e-6 else "warn"
    return [Finding(name, _rule_value(rule), level, _rule_text(rule))], figures


def _rule_value(rule: NeighbourRule) -> str:
    ambiguous = rule.n_rows - rule.n_unambiguous
    return (
        f"mean of the {rule.k} nearest primary labels fits {rule.n_matched} of"
        f" {rule.n_unambiguous} unambiguous rows and {rule.n_ambiguous_matched} of {ambiguous}"
        f" tied ones; {_between(rule.test_rows)} of {rule.n_rows} rows use a test label"
    )


def _rule_text(rule: NeighbourRule) -> str:
    least = rule.test_rows[0] / rule.n_rows
    return (
        f"The labels are not measurements: they are the mean label of the {rule.k} nearest primary"
        f" molecules (Morgan fingerprints, radius 2), so they carry no new information and leak"
        f" test labels through at least {least:.0%} of the rows (validation labels through"
        f" {_between(rule.val_rows)} rows)."
    )


def _between(bounds: tuple[int, int]) -> str:
    low, high = bounds
    return f"{low}" if low == high else f"{low} to {high}"


def _neighbour_fit(evidence: LabelEvidence) -> tuple[list[Finding], Figures]:
    """A rule with weights or another metric escapes the exact search, but not this one.

    Molecules of the primary set are left out: another laboratory's value of a molecule is near the
    first one's, and no rule.
    """
    foreign = evidence.distances.min(axis=1) > 0
    if foreign.sum() < FEWEST_FITTED:
        text = "No fit could be judged."
        return [Finding("neighbour fit", "too few molecules to tell", "ok", text)], {}
    drawn_labels = evidence.primary.labels[evidence.drawn]
    most = min(LARGEST_K, len(evidence.primary) - 1)
    ratios = {}
    for k in range(1, most + 1):
        there = neighbour_rmse(
            evidence.distances[foreign],
            evidence.secondary.labels[evidence.asked][foreign],
            evidence.primary.labels,
            k,
        )
        here = neighbour_rmse(evidence.among_primary, drawn_labels, evidence.primary.labels, k)
        ratios[k] = there / max(here, 1e-12)
    k = min(ratios, key=lambda candidate: ratios[candidate])
    level = level_of(-ratios[k], warn=-0.7, fail=-0.5)
    value = f"error of the {k}-nearest rule {ratios[k]:.2f} times that on the primary set"
    text = (
        "Neighbours predict these labels no better than measured ones."
        if level == "ok"
        else "Neighbours predict these labels better than measurements can be predicted: they look"
        " computed from the primary set."
    )
    return [Finding("neighbour fit", value, level, text)], {"neighbour_fit_ratio": ratios[k]}


def _overlap(evidence: LabelEvidence) -> tuple[list[Finding], Figures]:
    _, report = drop_overlap(evidence.secondary, evidence.primary, evidence.split)
    dropped = report.dropped_val + report.dropped_test
    value = (
        f"in the primary set: {report.canonical_duplicates} molecules,"
        f" {report.skeleton_duplicates} without stereochemistry; {dropped} of them in validation or"
        " test"
    )
    overlap = Finding(
        "overlap",
        value if report.skeleton_duplicates else "none",
        level_of(report.skeleton_duplicates, warn=1),
        f"Those in validation or test ({dropped}) are dropped before scoring."
        if report.skeleton_duplicates
        else "No molecule is in the primary set, with or without stereochemistry.",
    )
    figures: Figures = dict(report.as_dict())
    return [overlap, _disagreement(evidence, report)], figures


def _disagreement(evidence: LabelEvidence, report: OverlapReport) -> Finding:
    name = "label disagreement"
    rmse, n_shared = report.label_rmse_on_shared, report.canonical_duplicates
    if rmse is None:
        return Finding(name, "no shared molecule", "ok", "Nothing to compare.")
    share = rmse / max(float(evidence.primary.labels.std()), 1e-12)
    level = level_of(share, warn=0.45, fail=0.7) if n_shared >= FEWEST_SHARED else "ok"
    text = (
        f"The labels of the same molecule differ by {share:.0%} of the primary labels' standard"
        " deviation; two laboratories differ by about 30%."
    )
    return Finding(name, f"RMSE {rmse:.2f} on {n_shared} shared molecules", level, text)


def _granularity(evidence: LabelEvidence) -> tuple[list[Finding], Figures]:
    step, primary_step = _step(evidence.secondary), _step(evidence.primary)
    labels = evidence.secondary.labels
    commonest = int(np.unique(labels, return_counts=True)[1].max()) / len(labels)
    figures: Figures = {
        "label_step": step,
        "primary_label_step": primary_step,
        "commonest_label_share": commonest,
    }
    ratio = round(primary_step / step) if step and primary_step else 1
    text = "The labels are written as finely as the primary ones, or more finely by whole digits."
    value = f"steps of {step:g}" if step else "no common step"
    if step and primary_step:
        value += f" (primary {primary_step:g})"
    level: Level = "ok"
    if 1 < ratio < 10 and step and primary_step and abs(ratio * step - primary_step) < 1e-9:
        level = "warn"
        text = (
            f"Labels in steps of 1/{ratio} of the primary step look like means of {ratio} labels."
        )
    elif commonest > 0.1:
        level = "warn"
        text = "One value is very frequent: it may stand for a limit of the measurement."
    return [Finding("label granularity", value, level, text)], figures


def _step(table: MoleculeTable) -> float | None:
    """Returns the largest step of which all labels that were not averaged here are multiples."""
    labels = table.labels[table.frame["n_merged"].to_numpy() == 1]
    if len(labels) == 0 or decimals(labels) >= MOST_DECIMALS:
        return None
    places = decimals(labels)
    units = np.rint(labels * 10**places).astype(np.int64)
    return float(np.gcd.reduce(units)) / 10**places or None


def _row_order(evidence: LabelEvidence) -> tuple[list[Finding], Figures]:
    findings: list[Finding] = []
    figures: Figures = {}
    asked = (
        ("row order by similarity", "similarity", evidence.similarity),
        ("row order by label", "label", evidence.secondary.labels),
    )
    for name, what, values in asked:
        test = row_order_test(values, evidence.seed)
        if test is None:
            findings.append(Finding(name, "too few rows to tell", "ok", "Nothing to compare."))
            continue
        figures[f"row_order_{what}_explained"] = test.explained
        figures[f"row_order_{what}_p_value"] = test.p_value
        # Never a failure: the labels may be sound, and lipo breaks ties alone by file order.
        level: Level = "warn" if test.explained >= 0.1 and test.p_value < 0.01 else "ok"
        blocks = ", ".join(f"{mean:.2f}" for mean in test.block_means)
        quantity = "similarity to the primary set" if what == "similarity" else "label"
        text = (
            f"The rows are ordered by {quantity} (means of ten blocks: {blocks}): shuffle them, or"
            " a ranking that falls back on file order looks meaningful."
            if level != "ok"
            else f"The order of the rows says little about the {quantity}."
        )
        value = f"explains {test.explained:.0%} of the variance (p = {test.p_value:.3f})"
        findings.append(Finding(name, value, level, text))
    return findings, figures


def _range(evidence: LabelEvidence) -> tuple[list[Finding], Figures]:
    labels, known = evidence.secondary.labels, evidence.primary.labels
    outside = float(((labels < known.min()) | (labels > known.max())).mean())
    spread = float(labels.std() / max(known.std(), 1e-12))
    value = (
        f"{labels.min():.2f} to {labels.max():.2f} (primary {known.min():.2f} to {known.max():.2f})"
    )
    level = level_of(outside, warn=0.02)
    text = f"{outside:.1%} of the labels lie outside the primary range; spread {spread:.2f} times."
    if spread < 0.5:
        level, text = "warn", f"The labels spread only {spread:.2f} times as much: smoothed?"
    figures: Figures = {"outside_range_share": outside, "label_spread_ratio": spread}
    return [Finding("label range", value, level, text)], figures
