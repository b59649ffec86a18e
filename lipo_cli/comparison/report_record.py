"""What a report is made from: the files of a result, the same beside it and in its MLflow run.

A comparison writes them; a report is always built from what was written, never from what is in
memory, so that one that is rebuilt later equals the first.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from lipo_cli.chem.audit import AuditReport
from lipo_cli.chem.tables import MoleculeTable
from lipo_cli.comparison.cell_result import CellResult
from lipo_cli.comparison.cells import effective
from lipo_cli.comparison.constant import Constant
from lipo_cli.comparison.digits import decimals
from lipo_cli.comparison.result import Comparison
from lipo_cli.comparison.summary import Overlap, SummaryRow
from lipo_cli.comparison.tuning_methods import Key, Tunings
from lipo_cli.comparison.verdict import Verdict
from lipo_cli.errors import LipoError, TrackingError
from lipo_cli.settings import CompareSettings, ScoringMethod
from lipo_cli.valuation.table import read_curve, read_values

RECORD = "report.json"
"""Beside result.json and settings.json: what a report says that they do not."""
REPORT = "report.html"
FORMAT = 1
_AGAIN = "the same `lipo compare` again finds its cells and writes what is missing"

T = TypeVar("T")


@dataclass(frozen=True)
class Material:
    """The files of a comparison's result, read.

    Attributes:
        record: `report.json`.
        dataset: Counts and checksums of what went in.
        settings: Every setting, nested.
        run_id: The comparison's run.
        champion: What became of its best cell; None where no cell was offered.
        cells: Every cell, without curves and predictions.
        summary: One row per selection, method and model.
        overlaps: How far the selections agree.
        verdicts: The tested differences.
        scores: Numbers and sentences about each scoring.
        values: The value table of each scoring method.
        curves: The removal curve of each.
        figures: PNG files by name, in reading order.
        tuning: What was found for each method, where it was tuned.
        constants: The error of train's mean label on every split.
        refused: Why the offered champion is not in the registry, where it could not be registered.
        not_offered: Why no cell was offered as champion; None where one was.
        left_out: What a time budget did not allow, in words.
    """

    record: Mapping[str, Any]
    dataset: Mapping[str, Any]
    settings: Mapping[str, Any]
    run_id: str
    champion: Mapping[str, Any] | None
    cells: list[CellResult]
    tuning: list[Mapping[str, Any]]
    summary: list[SummaryRow]
    overlaps: list[Overlap]
    verdicts: list[Verdict]
    scores: Mapping[str, Mapping[str, Any]]
    values: dict[ScoringMethod, pd.DataFrame]
    curves: dict[ScoringMethod, pd.DataFrame]
    figures: dict[str, bytes]
    constants: list[Constant]
    refused: str | None
    not_offered: str | None
    left_out: list[str]

    @property
    def decimals(self) -> int:
        """How many decimals show about a thousandth of the median test RMSE."""
        return decimals(row.test_rmse for row in self.summary)


def write_record(
    folder: Path,
    comparison: Comparison,
    settings: CompareSettings,
    audit: AuditReport | None,
    environment: Mapping[str, str],
    command: str,
    figures: Iterable[Path],
) -> Path:
    """Writes what a report needs beside the result's other files.

    Args:
        folder: Of the result.
        comparison: The result.
        settings: Of the comparison.
        audit: Of the secondary set.
        environment: Versions and machine, by name.
        command: What makes the comparison again.
        figures: Those that were drawn, in reading order.

    Returns:
        The file.
    """
    prepared, best = comparison.prepared, comparison.best
    primary = prepared.dataset.primary
    content = {
        "format": FORMAT,
        "made": datetime.now(UTC).strftime("%Y-%m-%d"),
        "label": prepared.dataset.label_name(),
        "primary": _table_facts(primary),
        "secondary": _table_facts(prepared.pool.table) if prepared.pool else None,
        "overlap": prepared.pool.overlap.sentence() if prepared.pool else None,
        "audit": None if audit is None else audit.as_dict(),
        "best": None if best is None else best.as_dict(),
        "chosen": {
            name: prepared.pool.rows[positions].tolist()
            for name, positions in comparison.chosen.items()
            if prepared.pool is not None and name in _scored(comparison)
        },
        "methods": list(comparison.scored),
        "figures": [path.name for path in figures],
        "changed": changed_settings(settings),
        "came_to": came_to(settings, comparison.tunings),
        "environment": dict(environment),
        "command": command,
    }
    path = folder / RECORD
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return path


def changed_settings(settings: CompareSettings) -> list[str]:
    """Returns the dotted names of the settings that are not at their defaults."""
    default = type(settings)().flat()
    return [name for name, text in settings.flat().items() if default.get(name) != text]


def came_to(settings: CompareSettings, tunings: Tunings) -> list[dict[str, Any]]:
    """Returns what settings that are not set, or `auto`, or were tuned, came to on this machine.

    One entry for each method, and where it was tuned for each pretrained model and split: `peft`,
    `model`, `split`, and the `values` by name.
    """
    given = settings.training.model_dump(mode="json")
    keys: list[Key] = [*tunings.found] or [(peft, None, None) for peft in settings.peft]
    found = []
    for peft, model, split in keys:
        tuned = tunings.found.get((peft, model, split))
        training = settings.training if tuned is None else tuned.training(settings.training)
        plain = effective(training, peft).model_dump(mode="json")
        values = {name: value for name, value in plain.items() if value != given[name]}
        found.append({"peft": peft, "model": model, "split": split, "values": values})
    return found


def read_material(folder: Path, figures: Path | None = None, where: str | None = None) -> Material:
    """Reads the files of a result.

    Args:
        folder: With result.json, settings.json, report.json and `values/METHOD`.
        figures: The folder of the figures; None: `figures` in that one.
        where: What errors name instead of the folder.

    Raises:
        TrackingError: a file is missing, broken, or of another version of lipo.
    """
    place = where or str(folder)
    try:
        return _material(folder, figures or folder / "figures")
    except FileNotFoundError as error:
        what = f"{Path(error.filename).name} is not among its files, so that it has no report"
        raise TrackingError(what, where=place, hint=_AGAIN) from None
    except (KeyError, TypeError, AttributeError) as error:
        what = f"written by another version of lipo ({type(error).__name__}: {error})"
        raise TrackingError(what, where=place, hint=_AGAIN) from error
    except LipoError as error:
        inside = f"{Path(error.where).name}: " if error.where else ""
        raise TrackingError(f"{inside}{error.what}", where=place, hint=_AGAIN) from error
    except (OSError, ValueError) as error:
        raise TrackingError(f"cannot be read: {error}", where=place, hint=_AGAIN) from error


def _material(folder: Path, figures: Path) -> Material:
    record, result, settings = (
        json.loads((folder / name).read_text(encoding="utf-8"))
        for name in (RECORD, "result.json", "settings.json")
    )
    if record["format"] != FORMAT:
        raise TrackingError(f"its report has format {record['format']}: this lipo reads {FORMAT}")
    methods: list[ScoringMethod] = record["methods"]
    inside = {method: folder / "values" / method for method in methods}
    return Material(
        record=record,
        dataset=result["dataset"],
        settings=settings,
        run_id=result["run_id"],
        champion=result["champion"],
        tuning=result.get("tuning", []),
        cells=_revived(CellResult, result["cells"]),
        summary=_revived(SummaryRow, result["summary"]),
        overlaps=_revived(Overlap, result["overlaps"]),
        verdicts=_revived(Verdict, result.get("verdicts", [])),
        scores=result["scores"],
        values={method: read_values(path / "values.csv") for method, path in inside.items()},
        curves={method: read_curve(path) for method, path in inside.items()},
        figures={name: (figures / name).read_bytes() for name in record["figures"]},
        constants=_revived(Constant, result.get("constants", [])),
        refused=result.get("refused"),
        not_offered=result.get("not_offered"),
        left_out=result.get("left_out", []),
    )


def _scored(comparison: Comparison) -> set[str]:
    """Returns the selections that rest on values: the others choose nothing in particular."""
    return {
        name
        for name in comparison.chosen
        if name.partition(":")[0] in {str(method) for method in comparison.scored}
    }


def _table_facts(table: MoleculeTable) -> dict[str, Any]:
    return {
        "file": table.path.name,
        "sha256": table.sha256,
        "n_molecules": len(table),
        "n_rows_read": table.n_rows_read,
        "n_bad_rows": len(table.bad_rows),
        "n_merged_rows": table.n_merged_rows,
        "label_column": table.label_column,
    }


def _revived(kind: type[T], entries: Iterable[Mapping[str, Any]]) -> list[T]:
    """Builds dataclasses from what their `asdict` wrote; fields that are gone are passed over."""
    names = {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    return [kind(**{k: v for k, v in entry.items() if k in names}) for entry in entries]
