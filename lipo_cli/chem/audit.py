"""What a secondary set must be asked before anyone scores it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from lipo_cli.chem.audit_labels import LabelEvidence, label_findings
from lipo_cli.chem.audit_molecules import molecule_findings
from lipo_cli.chem.finding import Finding
from lipo_cli.chem.fingerprints import highest_tanimoto, morgan_bits, squared_distances
from lipo_cli.chem.splits import Split
from lipo_cli.chem.tables import MoleculeTable
from lipo_cli.errors import DataError

__all__ = ["AuditReport", "Finding", "audit_secondary"]

Verdict = Literal["ok", "warn", "fail"]
MOST_ASKED = 5000
"""Secondary rows whose neighbours are looked up: of more, a draw. It bounds time and memory, and
a rule that made some share of the labels makes the same share of a draw."""
LOO_ROWS = 500
"""Primary rows that the neighbour rule is tried on, to know how well it does on measurements."""


@dataclass(frozen=True)
class AuditReport:
    """What was found about a secondary set.

    Attributes:
        findings: One per question, in a fixed order.
        verdict: One sentence.
        one_line: The summary that other commands print first.
        level: The worst level of the findings.
        figures: The numbers behind the findings, by name.
    """

    findings: tuple[Finding, ...]
    verdict: str
    one_line: str
    level: Verdict
    figures: Mapping[str, float | int | None]

    def as_dict(self) -> dict[str, object]:
        """Returns the report as plain values."""
        return {
            "level": self.level,
            "verdict": self.verdict,
            "one_line": self.one_line,
            "findings": [asdict(finding) for finding in self.findings],
            "figures": dict(self.figures),
        }

    def finding(self, name: str) -> Finding:
        """Returns the finding of that name.

        Raises:
            KeyError: there is none.
        """
        return {finding.name: finding for finding in self.findings}[name]


def audit_secondary(
    secondary: MoleculeTable,
    primary: MoleculeTable,
    split: Split,
    *,
    features: tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]] | None = None,
    seed: int = 0,
) -> AuditReport:
    """Audits a secondary set against the primary set that it shall be added to.

    Args:
        secondary: The set in question.
        primary: The measured set.
        split: Of the primary set: labels made from its test rows are leaks.
        features: Of the secondary and of the primary set, [n, d] and [m, d], for the distribution
            shift (say, embeddings); None: standardised computed properties.
        seed: Of the permutation tests.

    Raises:
        DataError: a set has no labels or fewer than 2 rows.
    """
    for table in (secondary, primary):
        if len(table) < 2 or not np.isfinite(table.labels).all():
            raise DataError("an audit takes 2 labelled molecules or more", where=table.path)
    evidence = _label_evidence(secondary, primary, split, seed)
    label_part, label_figures = label_findings(evidence)
    molecule_part, molecule_figures = molecule_findings(
        secondary, primary, split, features=features, seed=seed
    )
    findings = (*label_part, *molecule_part)
    level = _worst(findings)
    return AuditReport(
        findings=findings,
        verdict=_verdict(findings, level),
        one_line=_one_line(secondary, findings, level),
        level=level,
        figures={**label_figures, **molecule_figures},
    )


def _label_evidence(
    secondary: MoleculeTable, primary: MoleculeTable, split: Split, seed: int
) -> LabelEvidence:
    bits, primary_bits = morgan_bits(secondary.smiles), morgan_bits(primary.smiles)
    rng = np.random.default_rng(seed)
    drawn = np.sort(rng.choice(len(primary), min(LOO_ROWS, len(primary)), replace=False))
    asked = np.arange(len(secondary))
    if len(secondary) > MOST_ASKED:
        asked = np.sort(rng.choice(len(secondary), MOST_ASKED, replace=False))
    among_primary = squared_distances(primary_bits[drawn], primary_bits)
    among_primary[np.arange(len(drawn)), drawn] = np.iinfo(np.int64).max
    return LabelEvidence(
        secondary=secondary,
        primary=primary,
        split=split,
        asked=asked.astype(np.int64),
        distances=squared_distances(bits[asked], primary_bits),
        similarity=highest_tanimoto(bits, primary_bits),
        drawn=drawn.astype(np.int64),
        among_primary=among_primary,
        seed=seed,
    )


def _worst(findings: tuple[Finding, ...]) -> Verdict:
    levels = {finding.level for finding in findings}
    return "fail" if "fail" in levels else "warn" if "warn" in levels else "ok"


def _verdict(findings: tuple[Finding, ...], level: Verdict) -> str:
    named = [f for f in findings if f.level == level]
    if level == "fail":
        # The first failure is the gravest: the order of the questions is that of their weight.
        others = f" Also failed: {', '.join(f.name for f in named[1:])}." if named[1:] else ""
        return f"Not fit for use as it is. {named[0].explanation}{others}"
    if level == "warn":
        names = ", ".join(f.name for f in named)
        return f"Usable with care: nothing disqualifies it, but look at: {names}."
    return "Nothing speaks against using it."


def _one_line(secondary: MoleculeTable, findings: tuple[Finding, ...], level: Verdict) -> str:
    n_fail = sum(f.level == "fail" for f in findings)
    n_warn = sum(f.level == "warn" for f in findings)
    head = f"Audit of {secondary.path.name} ({len(secondary):,} molecules)"
    if level == "ok":
        return f"{head}: nothing found."
    shown = "; ".join(f"{f.name}: {f.value}" for f in findings if f.level == level)
    if not n_fail:
        return f"{head}: {n_warn} to look at. {shown}."
    also = ", ".join(f.name for f in findings if f.level == "warn")
    rest = f"; also look at: {also}" if also else ""
    return f"{head}: {n_fail} failed. {shown}{rest}."
