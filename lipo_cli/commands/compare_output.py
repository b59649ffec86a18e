"""What a comparison leaves behind: the folder of its result, and the same for machines."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import filelock

from lipo_cli.commands.console import json_ready, say, warn
from lipo_cli.commands.select_source import SOURCE, write_source
from lipo_cli.comparison.figures import draw_all
from lipo_cli.comparison.result import Comparison, cells_table
from lipo_cli.comparison.statistics import verdicts_of
from lipo_cli.comparison.tuning_figures import draw_tuning
from lipo_cli.errors import TrackingError
from lipo_cli.settings import SCORING_METHODS, CompareSettings
from lipo_cli.valuation.table import VALUE_FILES, write_values

_LOCK_TIMEOUT_S = 600.0


def as_dict(result: Comparison) -> dict[str, Any]:
    """Returns the comparison as JSON: dataset, cells, summary, overlaps, champion."""
    prepared = result.prepared
    pool = prepared.pool
    return {
        "dataset": {
            "name": prepared.dataset.name,
            "description": prepared.dataset.description,
            "sha256": prepared.dataset.primary.sha256,
            "split": prepared.split.name,
            "n_train": len(prepared.split.train),
            "n_val": len(prepared.split.val),
            "n_test": len(prepared.split.test),
            "secondary_sha256": pool.table.sha256 if pool else None,
            "n_secondary": len(pool) if pool else 0,
            "overlap": pool.overlap.as_dict() if pool else None,
        },
        "run_id": result.run_id,
        "cells": [cell.as_dict() for cell in result.cells],
        "summary": [row.as_dict() for row in result.summary],
        "verdicts": [verdict.as_dict() for verdict in result.verdicts],
        "validation_verdicts": [
            verdict.as_dict() for verdict in verdicts_of([c.on_validation() for c in result.cells])
        ],
        "overlaps": [vars(overlap) for overlap in result.overlaps],
        "scores": {
            method: {**scored.figures, "reason": scored.reason, "optimal": scored.sentence}
            for method, scored in result.scored.items()
        },
        "champion": result.champion,
        "not_offered": result.not_offered,
        "refused": None if result.refused is None else str(result.refused),
        "tuning": [tuned.as_dict() for tuned in result.tunings.found.values()],
        "left_out": result.left_out,
        "constants": [constant.as_dict() for constant in result.constants],
    }


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Lets one process at a time write a result into a folder, read it again and log it.

    Two equal comparisons side by side find each other's cells, end together, and write there.

    Raises:
        TrackingError: another process holds it for longer than writing can take.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(folder / ".lock", timeout=_LOCK_TIMEOUT_S)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise TrackingError(
            f"another process has been writing its result here for {_LOCK_TIMEOUT_S:.0f} s",
            where=folder,
            hint="the same command again finds every cell",
        ) from None
    except OSError as error:  # some network file systems know no locks
        warn(f"{folder} is written without a lock: {error.strerror or error}")
    try:
        yield
    finally:
        lock.release()


def _clear(folder: Path, run_id: str | None) -> None:
    """Removes the files of an earlier result, of which some would stay beside this one's."""
    if not all((folder / name).is_file() for name in ("result.json", "settings.json")):
        return
    try:
        earlier = json.loads((folder / "result.json").read_text(encoding="utf-8"))["run_id"]
    except (OSError, ValueError, KeyError, TypeError):
        earlier = None
    if earlier not in (None, run_id):
        say(f"{folder}: replaces the result of run {earlier}")
    old = [*(folder / "figures").glob("*.png")]
    for method in SCORING_METHODS:
        old += [folder / "values" / method / name for name in (*VALUE_FILES, SOURCE)]
    for path in old:
        path.unlink(missing_ok=True)


def write_result(result: Comparison, settings: CompareSettings, folder: Path) -> list[Path]:
    """Writes result.json, settings.json, tables, values and figures; returns the files.

    An earlier result in the folder, of whatever comparison, is replaced whole.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _clear(folder, result.run_id)
    result_file, settings_file = folder / "result.json", folder / "settings.json"
    content = json.dumps(json_ready(as_dict(result)), indent=1, allow_nan=False, default=str)
    result_file.write_text(content + "\n", encoding="utf-8")
    settings_file.write_text(settings.model_dump_json(indent=1) + "\n", encoding="utf-8")
    cells_file = folder / "cells.csv"
    cells_table(result.cells).to_csv(cells_file, index=False)
    paths = [result_file, settings_file, cells_file]
    for method, scored in result.scored.items():
        inside = folder / "values" / method
        paths += write_values(inside, scored.table, scored.curve)
        table, scope = result.prepared.require_pool().table, result.prepared.scope()
        said = (scored.reason, scored.sentence)
        paths.append(write_source(inside, table, method, scope, said=said))
    label = result.prepared.dataset.label_name()
    several = len(result.tunings.found) > len({key[0] for key in result.tunings.found})
    for number, tuned in enumerate(result.tunings.found.values(), start=1):
        ending = f"_{tuned.cell.peft}" + (f"_{number}" if several else "")
        paths += draw_tuning(tuned, folder / "figures", label, ending)
    return paths + draw_all(result, folder / "figures", label)
