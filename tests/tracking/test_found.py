from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from lipo_cli.tracking.runs import find_finished, find_unfinished, start_run
from lipo_cli.tracking.store import Store

TAGS = {"lipo.fingerprint": "0123456789abcdef"}
FINGERPRINT = TAGS["lipo.fingerprint"]


def finished(store: Store) -> str:
    with start_run(store, "lipo", "x", tags=TAGS) as run:
        run.table(pd.DataFrame({"a": [1, 2]}), "values")
        run.metrics({"val_rmse": 0.5})
    return run.run_id


def file_of(store: Store, run_id: str, name: str) -> Path:
    assert store.root is not None
    (path,) = store.root.rglob(f"{run_id}/artifacts/{name}")
    return path


def test_finished_run_is_found_by_its_fingerprint(store: Store) -> None:
    run_id = finished(store)
    found = find_finished(store, "lipo", FINGERPRINT)
    assert found is not None
    assert found.run_id == run_id
    assert found.metrics == {"val_rmse": 0.5}
    assert find_finished(store, "lipo", "another") is None
    assert find_finished(store, "another", FINGERPRINT) is None


def test_killed_and_failed_runs_are_not_finished(store: Store) -> None:
    for error in (KeyboardInterrupt, ValueError):
        with pytest.raises(error), start_run(store, "lipo", "x", tags=TAGS) as run:
            raise error
    assert find_finished(store, "lipo", FINGERPRINT) is None
    unfinished = find_unfinished(store, "lipo", FINGERPRINT)
    assert unfinished is not None
    assert unfinished.run_id == run.run_id


def test_running_run_is_neither(store: Store) -> None:
    with start_run(store, "lipo", "x", tags=TAGS):
        assert find_finished(store, "lipo", FINGERPRINT) is None
        assert find_unfinished(store, "lipo", FINGERPRINT) is None


def test_run_that_lost_a_file_is_computed_again(store: Store) -> None:
    run_id = finished(store)
    file_of(store, run_id, "tables/values.csv").unlink()
    assert find_finished(store, "lipo", FINGERPRINT) is None


def test_run_with_a_file_cut_short_is_computed_again(store: Store) -> None:
    run_id = finished(store)
    file_of(store, run_id, "tables/values.csv").write_text("a")
    assert find_finished(store, "lipo", FINGERPRINT) is None


def test_run_without_its_list_of_files_is_computed_again(store: Store) -> None:
    run_id = finished(store)
    file_of(store, run_id, "artifacts.json").unlink()
    assert find_finished(store, "lipo", FINGERPRINT) is None


def test_whole_run_is_found_behind_a_broken_one(store: Store) -> None:
    whole, broken = finished(store), finished(store)
    file_of(store, broken, "tables/values.csv").unlink()
    found = find_finished(store, "lipo", FINGERPRINT)
    assert found is not None
    assert found.run_id == whole


def test_deleted_run_is_not_found(store: Store) -> None:
    store.client().delete_run(finished(store))
    assert find_finished(store, "lipo", FINGERPRINT) is None
