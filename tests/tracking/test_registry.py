from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from lipo_cli.errors import ModelError, TrackingError
from lipo_cli.tracking.registry import Champion, promote_champion, set_champion
from lipo_cli.tracking.runs import find_finished, start_run
from lipo_cli.tracking.store import Store
from lipo_cli.tracking.versions import list_versions, regressor_folder, show_version

NAME = "lipophilicity"


def challenge(
    store: Store, folder: Path, rmse: float, scope: str = "demo", dataset: str = "mine"
) -> Champion:
    """Logs a model in a run of its own and lets it challenge the champion."""
    with start_run(store, "lipo", "x") as run:
        uri = run.model(folder, ["CCO"])
    evidence = {"selection": "tsds", "peft": "lora", "seed": 0, "dataset": dataset}
    return promote_champion(
        store, run.run_id, uri, NAME, metric_value=rmse, scope=scope, evidence=evidence
    )


def test_first_model_becomes_champion_with_its_evidence(store: Store, stand_in: Path) -> None:
    champion = challenge(store, stand_in, 0.7)
    assert champion.replaced
    assert champion.previous_version is None
    shown = show_version(store, f"models:/{NAME}@champion")
    assert shown.version == champion.version == "1"
    assert shown.run_id == champion.run_id
    assert shown.aliases == ("champion",)
    expected = {
        "val_rmse": "0.7",
        "scope": "demo",
        "selection": "tsds",
        "peft": "lora",
        "seed": "0",
        "dataset": "mine",
    }
    assert shown.tags == expected
    assert "selection tsds" in shown.description


def test_only_a_lower_rmse_on_the_same_scope_replaces(store: Store, stand_in: Path) -> None:
    first = challenge(store, stand_in, 0.7)
    worse = challenge(store, stand_in, 0.71)
    assert not worse.replaced
    assert (worse.version, worse.run_id, worse.val_rmse) == ("1", first.run_id, 0.7)
    assert "is not below 0.7 of" in worse.reason
    tie = challenge(store, stand_in, 0.7)
    assert not tie.replaced
    better = challenge(store, stand_in, 0.69)
    assert better.replaced
    assert (better.version, better.previous_version) == ("2", "1")
    assert "0.69 is below 0.7 of version 1" in better.reason
    assert [v.version for v in list_versions(store)] == ["2", "1"]


def test_another_scope_leaves_the_title_and_registers(store: Store, stand_in: Path) -> None:
    challenge(store, stand_in, 0.9, scope="lipophilicity-reference")
    champion = challenge(store, stand_in, 0.5, scope="lipophilicity-scaffold")
    assert not champion.replaced
    assert (champion.version, champion.val_rmse) == ("1", 0.9)
    assert "another dataset or split" in champion.reason
    assert f"lipo model promote models:/{NAME}/2" in champion.reason
    assert show_version(store, f"models:/{NAME}@champion").version == "1"
    assert set_champion(store, f"models:/{NAME}/2").aliases == ("champion",)
    assert show_version(store, f"models:/{NAME}@champion").version == "2"


def test_the_demo_champion_yields_to_measured_data_and_not_back(
    store: Store, stand_in: Path
) -> None:
    challenge(store, stand_in, 0.3, scope="demo:1", dataset="demo")
    champion = challenge(store, stand_in, 0.7, scope="lipo:1", dataset="lipophilicity")
    assert champion.replaced
    assert "demo" in champion.reason
    again = challenge(store, stand_in, 0.2, scope="demo:1", dataset="demo")
    assert not again.replaced
    assert show_version(store, f"models:/{NAME}@champion").tags["dataset"] == "lipophilicity"


def test_nobody_promotes_what_is_not_there(store: Store, stand_in: Path) -> None:
    challenge(store, stand_in, 0.3)
    for uri, reason in (
        (f"models:/{NAME}/7", "has no version '7'"),
        (f"{NAME}@best", "has no alias 'best'"),
        ("9", "names no version"),
        (NAME, "names no version"),
    ):
        with pytest.raises(ModelError, match=reason) as caught:
            set_champion(store, uri)
        assert f"{NAME} has version 1 (@champion)" in str(caught.value)
        assert "models:/NAME/VERSION" in str(caught.value)


def test_version_keeps_what_its_runs_measured(store: Store, stand_in: Path) -> None:
    audit = {"audit": "warn", "audit_line": "1 to look at", "dataset": "mine"}
    with start_run(store, "lipo", "comparison", tags=audit) as comparison:
        with start_run(store, "lipo", "x") as run:
            run.metrics({"test_rmse": 0.75, "test_mae": 0.5, "seconds": 3})
            uri = run.model(stand_in, ["CCO"])
        promote_champion(
            store,
            run.run_id,
            uri,
            NAME,
            metric_value=0.7,
            scope="s",
            evidence={"peft": "lora"},
            comparison_run_id=comparison.run_id,
        )
    shown = show_version(store, f"models:/{NAME}@champion")
    assert shown.tags == {
        "val_rmse": "0.7",
        "scope": "s",
        "peft": "lora",
        "test_rmse": "0.75",
        "test_mae": "0.5",
        "audit": "warn",
        "audit_line": "1 to look at",
        "comparison": comparison.run_id,
    }
    assert "test_rmse" not in shown.description


def test_champion_without_evidence_is_replaced(store: Store, stand_in: Path) -> None:
    challenge(store, stand_in, 0.5)
    store.client().delete_model_version_tag(NAME, "1", "val_rmse")
    champion = challenge(store, stand_in, 0.9)
    assert champion.replaced
    assert "no validation RMSE" in champion.reason


def test_number_of_numpy_is_a_plain_number_in_the_tag(store: Store, stand_in: Path) -> None:
    challenge(store, stand_in, np.float64(0.7))
    assert show_version(store, f"models:/{NAME}/1").tags["val_rmse"] == "0.7"
    assert not challenge(store, stand_in, np.float64(0.8)).replaced


@pytest.mark.parametrize("rmse", [math.nan, math.inf])
def test_nan_is_never_champion(store: Store, stand_in: Path, rmse: float) -> None:
    with pytest.raises(TrackingError, match="cannot be promoted"):
        challenge(store, stand_in, rmse)
    assert list_versions(store) == []


def test_same_run_promoted_twice_is_registered_once(store: Store, stand_in: Path) -> None:
    with start_run(store, "lipo", "x") as run:
        uri = run.model(stand_in, ["CCO"])
    for _ in range(2):
        champion = promote_champion(store, run.run_id, uri, NAME, metric_value=0.7, scope="s")
    assert not champion.replaced
    assert champion.reason == "version 1 is this very run"
    assert len(list_versions(store, NAME)) == 1


def test_version_that_lost_its_alias_is_taken_again(store: Store, stand_in: Path) -> None:
    with start_run(store, "lipo", "x") as run:
        uri = run.model(stand_in, ["CCO"])
    promote_champion(store, run.run_id, uri, NAME, metric_value=0.7, scope="s")
    store.client().delete_registered_model_alias(NAME, "champion")
    champion = promote_champion(store, run.run_id, uri, NAME, metric_value=0.7, scope="s")
    assert champion.replaced
    assert champion.version == "1"


def test_deleted_champion_leaves_the_title_free(store: Store, stand_in: Path) -> None:
    challenge(store, stand_in, 0.5)
    store.client().delete_model_version(NAME, "1")
    champion = challenge(store, stand_in, 0.9)
    assert (champion.replaced, champion.version) == (True, "2")


def test_unknown_models_are_one_line_with_the_way_out(store: Store) -> None:
    for uri in ("models:/nothing@champion", "models:/nothing/3"):
        with pytest.raises(ModelError, match=r"no such registered model.*lipo model list"):
            regressor_folder(store, uri)
    with pytest.raises(ModelError, match="m-123"):
        regressor_folder(store, "models:/m-123")
    with pytest.raises(TrackingError):
        list_versions(store, "nothing")


def test_run_whose_model_is_gone_is_computed_again(store: Store, stand_in: Path) -> None:
    tags = {"lipo.fingerprint": "f"}
    with start_run(store, "lipo", "x", tags=tags) as run:
        uri = run.model(stand_in, ["CCO"])
    found = find_finished(store, "lipo", "f")
    assert found is not None
    assert found.model_uri == uri
    (regressor_folder(store, uri).parents[1] / "MLmodel").unlink()
    assert find_finished(store, "lipo", "f") is None


def test_folder_that_is_no_regressor_is_refused(store: Store, tmp_path: Path) -> None:
    with (
        pytest.raises(TrackingError, match="no saved regressor"),
        start_run(store, "lipo", "x") as run,
    ):
        run.model(tmp_path, ["CCO"])


def test_the_evidence_of_a_champion_is_that_of_the_larger_comparison(
    store: Store, stand_in: Path
) -> None:
    with start_run(store, "lipo", "x") as run:
        uri = run.model(stand_in, ["CCO"])
    steps = ((3, "warn", "warn"), (9, "ok", "ok"), (4, "fail", "ok"), (9, None, None))
    for n_cells, audit, shown in steps:
        tags = {} if audit is None else {"audit": audit}
        with start_run(store, "lipo", "c", tags=tags) as comparison:
            promote_champion(
                store,
                run.run_id,
                uri,
                NAME,
                metric_value=0.7,
                scope="demo",
                evidence={"seed": 0, "n_cells": n_cells},
                comparison_run_id=comparison.run_id,
            )
        (version,) = list_versions(store)
        assert version.tags.get("audit") == shown
    assert version.tags["n_cells"] == "9"
