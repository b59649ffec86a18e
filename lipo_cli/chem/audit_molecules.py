"""Questions about the molecules of a secondary set: repeats, and unlikeness to the primary."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from lipo_cli.chem.finding import Figures, Finding, level_of
from lipo_cli.chem.properties import PROPERTIES, property_matrix
from lipo_cli.chem.shift import MOST_ROWS, mmd_test, standardised
from lipo_cli.chem.splits import Split
from lipo_cli.chem.tables import MoleculeTable

SHOWN = ("molecular weight", "rings", "Crippen logP")
ALPHA = 0.01

Features = npt.NDArray[np.float64]


def molecule_findings(
    secondary: MoleculeTable,
    primary: MoleculeTable,
    split: Split,
    *,
    features: tuple[Features, Features] | None,
    seed: int,
) -> tuple[list[Finding], Figures]:
    """Asks all questions about molecules; returns the findings and their figures.

    Args:
        secondary: The set in question.
        primary: The measured set.
        split: Of the primary set; the shift is measured against its train rows.
        features: Of the secondary and the primary set, or None for computed properties.
        seed: Of the draws and shuffles.
    """
    rng = np.random.default_rng(seed)
    ours = _drawn(np.arange(len(secondary)), rng)
    theirs = _drawn(split.train, rng)
    properties = property_matrix([secondary.smiles[i] for i in ours])
    known = property_matrix([primary.smiles[i] for i in theirs])
    if features is None:
        shifted = (standardised(properties, known), standardised(known, known))
    else:
        reference = features[1][split.train]
        shifted = (
            standardised(features[0], reference),
            standardised(reference, reference),
        )
    duplicates, duplicate_figures = _duplicates(secondary)
    shift, shift_figures = _shift(shifted, seed, "features" if features else "properties")
    differences, difference_figures = _differences(properties, known)
    return [duplicates, shift, differences], {
        **duplicate_figures,
        **shift_figures,
        **difference_figures,
    }


def _drawn(positions: npt.NDArray[np.int64], rng: np.random.Generator) -> npt.NDArray[np.int64]:
    if len(positions) <= MOST_ROWS:
        return positions
    return np.sort(rng.choice(positions, MOST_ROWS, replace=False))


def _duplicates(secondary: MoleculeTable) -> tuple[Finding, Figures]:
    groups: dict[str, list[float]] = {}
    for skeleton, label in zip(secondary.skeletons, secondary.labels, strict=True):
        groups.setdefault(skeleton, []).append(float(label))
    stereo = [labels for labels in groups.values() if len(labels) > 1]
    largest = float(secondary.frame["label_spread"].max())
    merged = secondary.n_merged_rows
    n_stereo = sum(len(labels) for labels in stereo) - len(stereo)
    figures: Figures = {
        "merged_rows": merged,
        "largest_label_spread": largest,
        "stereo_repeats": n_stereo,
    }
    value = f"{merged} rows merged into another, {n_stereo} molecules differ by stereo only"
    text = "Rows of the same molecule are merged by the mean of their labels."
    if merged:
        text = f"{text} Their labels differ by at most {largest:.2f}."
    return Finding("duplicates", value, level_of(largest, warn=1.0), text), figures


def _shift(samples: tuple[Features, Features], seed: int, of: str) -> tuple[Finding, Figures]:
    test = mmd_test(samples[0], samples[1], seed)
    level = level_of(test.ratio, warn=2.0) if test.p_value <= ALPHA else "ok"
    text = (
        f"The molecules are unlike those of primary train ({of}): what is learned from them may"
        " not carry over, and may be just what was missing."
        if level == "warn"
        else f"The molecules are much like those of primary train ({of})."
    )
    value = f"MMD {test.ratio:.1f} times the within-set level (p = {test.p_value:.3f})"
    return Finding("distribution shift", value, level, text), {
        "mmd": test.mmd,
        "mmd_ratio": test.ratio,
        "mmd_p_value": test.p_value,
    }


def _differences(ours: Features, theirs: Features) -> tuple[Finding, Figures]:
    names = list(PROPERTIES)
    figures: Figures = {}
    parts: list[str] = []
    for name in SHOWN:
        column = names.index(name)
        mean, known = float(ours[:, column].mean()), float(theirs[:, column].mean())
        spread = max(float(theirs[:, column].std()), 1e-12)
        figures[f"{name} (secondary)"] = mean
        figures[f"{name} (primary)"] = known
        figures[f"{name} (difference in sd)"] = (mean - known) / spread
        parts.append(f"{name} {mean:.1f} against {known:.1f}")
    largest = max(abs(float(figures[f"{name} (difference in sd)"] or 0.0)) for name in SHOWN)
    text = f"The means differ by at most {largest:.2f} standard deviations of primary train."
    return Finding("properties", "; ".join(parts), level_of(largest, warn=1.0), text), figures
