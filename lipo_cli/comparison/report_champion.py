"""What a report says of the champion: which cell, why, and what it is worth beside the control."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lipo_cli.comparison.plan import cell_name, labelled
from lipo_cli.comparison.report_reading import n_splits
from lipo_cli.comparison.report_record import Material
from lipo_cli.comparison.report_verdicts import interval_text
from lipo_cli.comparison.summary import CONTROL, SummaryRow, why_no_champion


def champion_facts(material: Material) -> list[tuple[str, str]]:
    """Returns which cell was offered as champion, why, and what became of it."""
    best, champion = material.record["best"], material.champion
    audit = material.record["audit"]
    if best is None:
        sound = audit is None or audit["level"] != "fail"
        # Records of before the reason was kept have what it follows from.
        why = material.not_offered or why_no_champion(material.cells, pool_is_sound=sound)
        return [("Offered", f"no cell: {why}")]
    digits = material.decimals
    label = labelled(best["selection"], best["model"])
    name = cell_name(label, best["peft"], best["seed"], best["split"])
    why = (
        "The lowest mean validation RMSE over the seeds that the selections and methods have in "
        "common; of its seeds the best. Test has no say in it."
    )
    if n_splits(material) > 1:
        why += " Of several splits the first alone counted."
    if audit is not None and audit["level"] == "fail":
        why += " Cells trained on any of the secondary set were left out: it failed its audit."
    facts = [
        ("Offered", name),
        (
            "Its RMSE",
            f"{best['val_rmse']:.{digits}f} on validation, {best['test_rmse']:.{digits}f} on test",
        ),
        ("Why it", why),
        *_beside_control(material, best),
    ]
    if material.refused is not None:
        facts.append(("In the registry", f"not: {material.refused}"))
    if champion is not None:
        state = "is now" if champion["replaced"] else "stays"
        facts.append(
            (
                "In the registry",
                f"models:/{champion['model']}@champion {state} version {champion['version']}: "
                f"{champion['reason']}",
            )
        )
    return facts


def _beside_control(material: Material, best: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Returns the champion's row beside the control: validation chose it, and may have erred."""
    rows = {row.selection: row for row in material.summary if _is_beside(row, best)}
    own, control = rows.get(best["selection"]), rows.get(CONTROL)
    if own is None or own is control or own.test_rmse is None:
        return []
    if control is None:
        return [("Beside the control", "there is no control `none` with the same method")]
    if control.test_rmse is None:
        return [("Beside the control", "the control `none` with the same method did not finish")]
    digits = material.decimals
    line = (
        f"test RMSE of its row {own.test_rmse:.{digits}f}, of `none` with the same method "
        f"{control.test_rmse:.{digits}f}"
    )
    if difference := interval_text(own.delta_none, own.delta_low, own.delta_high, digits):
        both = ", over the seeds that both finished" if own.n_seeds != control.n_seeds else ""
        line += f": {difference}{both}"
    return [("Beside the control", line)]


def _is_beside(row: SummaryRow, best: Mapping[str, Any]) -> bool:
    return (row.peft, row.model) == (best["peft"], best["model"])
