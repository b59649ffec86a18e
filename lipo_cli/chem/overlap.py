"""Secondary molecules that are also in the primary set, and those that must not be scored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from lipo_cli.chem.splits import Positions, Split
from lipo_cli.chem.tables import MoleculeTable


@dataclass(frozen=True)
class OverlapReport:
    """How a secondary set overlaps with a primary set.

    Attributes:
        n_secondary: Molecules in the secondary set.
        n_kept: Those that may be scored.
        canonical_duplicates: Molecules with the same canonical SMILES as a primary one.
        skeleton_duplicates: The same without stereochemistry (includes the former).
        dropped_val: Dropped because the skeleton is in validation (and not in test).
        dropped_test: Dropped because the skeleton is in test.
        in_train: Kept although the skeleton is in train.
        label_rmse_on_shared: Root mean square difference of the labels of canonical duplicates,
            in the labels' units; None without any.
    """

    n_secondary: int
    n_kept: int
    canonical_duplicates: int
    skeleton_duplicates: int
    dropped_val: int
    dropped_test: int
    in_train: int
    label_rmse_on_shared: float | None

    def sentence(self) -> str:
        """Returns what was found and done, in one or two sentences."""
        if self.skeleton_duplicates == 0:
            return f"None of the {self.n_secondary:,} secondary molecules is in the primary set."
        dropped = self.dropped_val + self.dropped_test
        shared = (
            f"{self.skeleton_duplicates:,} of {self.n_secondary:,} secondary molecules are also in"
            f" the primary set without regard to stereochemistry ({self.canonical_duplicates:,}"
            f" with it): {dropped:,} dropped ({self.dropped_val:,} in validation,"
            f" {self.dropped_test:,} in test), {self.in_train:,} in train kept."
        )
        if self.label_rmse_on_shared is None:
            return shared
        return (
            f"{shared} Labels of the same molecule differ by {self.label_rmse_on_shared:.2f} RMSE."
        )

    def as_dict(self) -> dict[str, float | int | None]:
        """Returns the figures by name."""
        return asdict(self)


def drop_overlap(
    secondary: MoleculeTable, primary: MoleculeTable, split: Split
) -> tuple[Positions, OverlapReport]:
    """Drops the secondary molecules whose skeleton is in validation or test.

    Returns:
        Positions in the secondary frame that may be scored (ascending), and the report.
    """
    skeletons = np.array(secondary.skeletons, dtype=object)
    known = primary.skeletons
    in_part = {
        name: _are_in(skeletons, {known[i] for i in split.part(name)})
        for name in ("train", "val", "test")
    }
    kept = np.flatnonzero(~(in_part["val"] | in_part["test"]))
    differences = shared_label_differences(secondary, primary)
    report = OverlapReport(
        n_secondary=len(secondary),
        n_kept=len(kept),
        canonical_duplicates=int(_are_in(secondary.smiles, set(primary.smiles)).sum()),
        skeleton_duplicates=int(_are_in(skeletons, set(known)).sum()),
        dropped_val=int((in_part["val"] & ~in_part["test"]).sum()),
        dropped_test=int(in_part["test"].sum()),
        in_train=int(in_part["train"][kept].sum()),
        label_rmse_on_shared=(
            float(np.sqrt(np.mean(differences**2))) if len(differences) else None
        ),
    )
    return kept.astype(np.int64), report


def shared_label_differences(secondary: MoleculeTable, primary: MoleculeTable) -> np.ndarray:
    """Returns secondary minus primary label of every canonical duplicate, shape [n_shared].

    Primary rows of one molecule are averaged; rows without a label are left out.
    """
    known: dict[str, list[float]] = {}
    for smiles, label in zip(primary.smiles, primary.labels, strict=True):
        known.setdefault(smiles, []).append(float(label))
    differences = [
        float(label) - float(np.mean(known[smiles]))
        for smiles, label in zip(secondary.smiles, secondary.labels, strict=True)
        if smiles in known
    ]
    found = np.array(differences, dtype=np.float64)
    return found[np.isfinite(found)]


def _are_in(names: Sequence[str] | np.ndarray, known: set[str]) -> np.ndarray:
    return np.array([name in known for name in names], dtype=bool)
