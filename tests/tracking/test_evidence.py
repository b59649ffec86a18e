"""What speaks for a version, from its tags, its run and its comparison, as far as they exist."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from lipo_cli.tracking.evidence import evidence_for
from lipo_cli.tracking.registry import promote_champion
from lipo_cli.tracking.runs import start_run
from lipo_cli.tracking.store import Store

NAME = "lipophilicity"
ROWS = [
    {"selection": "none", "peft": "full", "test_rmse": 9.0, "n_seeds": 3},
    {"selection": "none", "peft": "lora", "test_rmse": 0.8, "n_seeds": 3},
    {"selection": "tsds", "peft": "full", "test_rmse": 9.0, "n_seeds": 3},
    {"selection": "tsds", "peft": "lora", "test_rmse": 0.7, "n_seeds": 3, "delta_none": -0.1},
]


def register(
    store: Store,
    folder: Path,
    tmp_path: Path,
    selection: str = "tsds",
    *,
    result: str = json.dumps({"summary": ROWS}),
    audit: Mapping[str, object] | None = None,
) -> tuple[str, str]:
    """Registers a cell of a comparison as `lipo compare` does; returns the ids of their runs."""
    cell = {"selection": selection, "peft": "lora", "seed": 0, "dataset": "mine", "split": "random"}
    with start_run(store, "lipo", "comparison", tags=audit) as comparison:
        with start_run(store, "lipo", "cell", tags=cell, parent_run_id=comparison.run_id) as run:
            run.metrics({"test_rmse": 0.71, "test_mae": 0.5, "val_rmse": 0.6})
            run.params({"training.model": "small"})
            uri = run.model(folder, ["CCO"])
        if result:
            file = tmp_path / "result.json"
            file.write_text(result)
            comparison.file(file, "result")
        promote_champion(
            store,
            run.run_id,
            uri,
            NAME,
            metric_value=0.6,
            scope="s",
            evidence=cell,
            comparison_run_id=comparison.run_id,
        )
    return run.run_id, comparison.run_id


def test_numbers_control_and_audit_are_gathered(
    store: Store, stand_in: Path, tmp_path: Path
) -> None:
    audit = {"audit": "warn", "audit_line": "Audit of b.csv: 1 to look at."}
    run_id, comparison = register(store, stand_in, tmp_path, audit=audit)
    found = evidence_for(store, NAME)
    assert (found.version.version, found.version.run_id) == ("1", run_id)
    assert found.comparison_run_id == comparison
    assert found.settings == {
        "dataset": "mine",
        "split": "random",
        "scope": "s",
        "selection": "tsds",
        "peft": "lora",
        "seed": "0",
        "base": "small",
    }
    assert (found.val_rmse, found.test_rmse, found.test_mae) == (0.6, 0.71, 0.5)
    assert found.summary == ROWS[3]
    assert found.control == ROWS[1]
    assert (found.audit, found.audit_line) == ("warn", audit["audit_line"])


def test_the_control_has_no_control(store: Store, stand_in: Path, tmp_path: Path) -> None:
    register(store, stand_in, tmp_path, "none")
    found = evidence_for(store, NAME)
    assert found.summary == ROWS[1]
    assert found.control is None


@pytest.mark.parametrize("result", ["", json.dumps({"summary": [1]})])
def test_a_comparison_without_a_table_leaves_the_rest(
    store: Store, stand_in: Path, tmp_path: Path, result: str
) -> None:
    register(store, stand_in, tmp_path, result=result)
    found = evidence_for(store, NAME)
    assert (found.summary, found.control, found.audit) == (None, None, None)
    assert found.test_rmse == 0.71


@pytest.mark.parametrize("base", ["small", "path/to/adapted"])
def test_of_several_pretrained_models_its_own_rows_speak(
    store: Store, stand_in: Path, tmp_path: Path, base: str
) -> None:
    rows = [
        {"selection": s, "peft": "lora", "model": model, "test_rmse": 0.5 + 0.1 * i + 0.2 * j}
        for i, s in enumerate(("none", "tsds"))
        for j, model in enumerate(("small", "path/to/adapted"))
    ]
    register(store, stand_in, tmp_path, result=json.dumps({"summary": rows}))
    # A cell's tag has the last component, the version's tag the path as it was given.
    version = store.client().get_model_version_by_alias(NAME, "champion")
    store.client().set_model_version_tag(NAME, version.version, "base", base)
    found = evidence_for(store, NAME)
    own = [row for row in rows if row["model"] == base]
    assert [found.control, found.summary] == own


def forget(store: Store, tags: tuple[str, ...]) -> None:
    for tag in tags:
        store.client().delete_model_version_tag(NAME, "1", tag)


def test_an_older_version_asks_its_run(store: Store, stand_in: Path, tmp_path: Path) -> None:
    _, comparison = register(store, stand_in, tmp_path, audit={"audit": "ok"})
    forget(store, ("test_rmse", "test_mae", "comparison", "audit", "dataset"))
    found = evidence_for(store, NAME)
    assert (found.test_rmse, found.settings["dataset"]) == (0.71, "mine")
    assert (found.comparison_run_id, found.audit) == (comparison, "ok")
    assert found.control == ROWS[1]


def test_a_version_speaks_when_its_run_is_gone(
    store: Store, stand_in: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lipo_cli.errors import TrackingError
    from lipo_cli.tracking import evidence

    def gone(*_: Any) -> None:
        raise TrackingError("no such run")

    register(store, stand_in, tmp_path, audit={"audit": "fail"})
    monkeypatch.setattr(evidence, "read_run", gone)
    found = evidence_for(store, NAME)
    assert (found.test_rmse, found.settings["dataset"], found.audit) == (0.71, "mine", "fail")
    assert (found.summary, found.control) == (None, None)
