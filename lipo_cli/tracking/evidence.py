"""What speaks for a registered version: its own numbers, its controls, the audit of its data."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lipo_cli.errors import TrackingError
from lipo_cli.tracking.found import PARENT_TAG, FoundRun, read_run
from lipo_cli.tracking.registry import AUDIT_TAGS, COMPARISON_TAG, METRIC_TAG
from lipo_cli.tracking.store import Store
from lipo_cli.tracking.versions import RegisteredVersion, show_version

CONTROL = "none"
SETTINGS = ("dataset", "label", "split", "scope", "selection", "peft", "seed", "base")
"""What a version is known by, as far as it is known."""
RESULT = "result/result.json"
"""Where `lipo compare` keeps its tables in its run."""


@dataclass(frozen=True)
class Evidence:
    """A registered version with what its run and its comparison say; None: not known.

    Attributes:
        version: The version.
        settings: dataset, label column, split, selection, peft, seed and base, as far as known.
        val_rmse: Validation RMSE, raw label units: it chose the epoch and the champion.
        test_rmse: Test RMSE of this very model, measured at the end.
        test_mae: Its test MAE.
        summary: The row of the comparison's table (selection and method, over all seeds).
        control: The row of the control `none` with the same method; None for the control itself.
        constant: The RMSEs of train's mean label on the comparison's first split, which crowned it.
        audit: The level of the secondary set's audit: ok, warn or fail.
        audit_line: What it found, in one line.
        comparison_run_id: The comparison that it comes from.
    """

    version: RegisteredVersion
    settings: Mapping[str, str]
    val_rmse: float | None
    test_rmse: float | None
    test_mae: float | None
    summary: Mapping[str, Any] | None
    control: Mapping[str, Any] | None
    constant: Mapping[str, Any] | None
    audit: str | None
    audit_line: str | None
    comparison_run_id: str | None


def evidence_for(store: Store, uri: str) -> Evidence:
    """Gathers what speaks for a registered version.

    The version's own tags come first; its run and its comparison are asked for the rest, and may
    be gone.

    Raises:
        ModelError: nothing bears that name.
    """
    version = show_version(store, uri)
    run = _read_run(store, version.run_id)
    known = {**(run.tags if run else {}), **version.tags}
    comparison_id = version.tags.get(COMPARISON_TAG) or known.get(PARENT_TAG)
    comparison = _read_run(store, comparison_id)
    said = {**(comparison.tags if comparison else {}), **version.tags}
    settings = {name: known[name] for name in SETTINGS if name in known}
    if "base" not in settings and run is not None and "training.model" in run.params:
        settings["base"] = run.params["training.model"]
    summary, control, constant = _rows(comparison, settings)
    level, line = (said.get(name) for name in AUDIT_TAGS)
    return Evidence(
        version=version,
        settings=settings,
        val_rmse=_number(METRIC_TAG, version, run),
        test_rmse=_number("test_rmse", version, run),
        test_mae=_number("test_mae", version, run),
        summary=summary,
        control=control,
        constant=constant,
        audit=level,
        audit_line=line,
        comparison_run_id=comparison_id,
    )


def _read_run(store: Store, run_id: str | None) -> FoundRun | None:
    """Reads a run that may have been deleted since."""
    try:
        return read_run(store, run_id) if run_id else None
    except TrackingError:
        return None


def _number(name: str, version: RegisteredVersion, run: FoundRun | None) -> float | None:
    try:
        value = float(version.tags[name])
    except (KeyError, ValueError):
        value = run.metrics.get(name, math.nan) if run is not None else math.nan
    return value if math.isfinite(value) else None


_Row = Mapping[str, Any] | None


def _rows(comparison: FoundRun | None, settings: Mapping[str, str]) -> tuple[_Row, _Row, _Row]:
    """Finds the rows of the selection, its control and the mean label in the comparison's table."""
    if comparison is None:
        return None, None, None
    try:
        result = json.loads(comparison.artifact(RESULT).read_text(encoding="utf-8"))
        by_name = {row["selection"]: row for row in result["summary"] if _is_of(row, settings)}
        constant = next(iter(result.get("constants", [])), None)
    except (TrackingError, OSError, ValueError, KeyError, TypeError, AttributeError):
        # A comparison that was cut off has no table; what the version itself says still stands.
        return None, None, None
    selection = settings.get("selection")
    control = None if selection == CONTROL else by_name.get(CONTROL)
    return by_name.get(selection), control, constant


def _is_of(row: Mapping[str, Any], settings: Mapping[str, str]) -> bool:
    """Says whether a row is of the version's method, and of its model where it names one."""
    model, base = row.get("model"), settings.get("base")
    # A comparison's models differ in their last components, by which some records know them.
    same = model is None or (base is not None and Path(model).name == Path(base).name)
    return same and row["peft"] == settings.get("peft")
