from __future__ import annotations

import shutil
import sqlite3
import time
from pathlib import Path

import pytest

from lipo_cli.errors import TrackingError
from lipo_cli.tracking.runs import start_run
from lipo_cli.tracking.store import Store, open_store


def test_fresh_store_is_a_database_and_an_artifact_folder_beside_it(tmp_path: Path) -> None:
    root = tmp_path / "some where é" / "mlruns"
    store = open_store(root)
    assert (root / "mlflow.db").is_file()
    assert store.root == root
    assert store.artifacts == root / "artifacts"
    file = tmp_path / "note.txt"
    file.write_text("hello")
    with start_run(store, "lipo", "first") as run:
        run.file(file)
    assert [p.read_text() for p in root.rglob("artifacts/*/*/artifacts/note.txt")] == ["hello"]


def test_relative_root_is_the_same_store_from_another_folder(
    store_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(store_root.parent)
    store = open_store(Path("mlruns"))
    monkeypatch.chdir("/")
    assert store == open_store(store_root)
    assert store.client().search_experiments()


def test_tracking_uri_of_the_environment_wins(
    store_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{store_root}/mlflow.db")
    store = open_store(tmp_path / "another")
    assert store.root == store_root
    assert not (tmp_path / "another").exists()


def test_opening_does_not_change_the_environment(store: Store) -> None:
    import os

    with start_run(store, "lipo", "first"):
        pass
    assert "MLFLOW_TRACKING_URI" not in os.environ


def test_missing_store_is_not_made_by_a_reader(tmp_path: Path) -> None:
    with pytest.raises(TrackingError, match="no store here yet"):
        open_store(tmp_path / "mlruns", create=False)
    assert not (tmp_path / "mlruns").exists()


@pytest.mark.parametrize("sign", "?#%")
def test_path_that_sqlalchemy_would_misread_is_refused(tmp_path: Path, sign: str) -> None:
    with pytest.raises(TrackingError, match="must not contain"):
        open_store(tmp_path / f"a{sign}20b")


def test_broken_database_is_one_line_at_once(tmp_path: Path) -> None:
    root = tmp_path / "mlruns"
    root.mkdir()
    (root / "mlflow.db").write_bytes(b"this is not a database" * 100)
    began = time.monotonic()
    with pytest.raises(TrackingError, match=r"mlflow\.db: not a usable SQLite database") as caught:
        open_store(root)
    assert time.monotonic() - began < 2
    assert "\n" not in str(caught.value)


def test_lock_held_by_another_process_is_told(
    store_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import filelock

    store = open_store(store_root)
    monkeypatch.setattr("lipo_cli.tracking.store.LOCK_TIMEOUT_S", 0.1)
    with filelock.FileLock(store_root / ".lock"):
        with pytest.raises(TrackingError, match="another process has held the store"):
            open_store(store_root)
        with pytest.raises(TrackingError, match="another process"), store.locked():
            pass


def test_root_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mlruns").write_text("a file")
    with pytest.raises(TrackingError, match="is a file, not a folder"):
        open_store(tmp_path / "mlruns")


def test_database_of_another_mlflow_is_refused_with_the_way_out(
    store_root: Path,
) -> None:
    connection = sqlite3.connect(store_root / "mlflow.db")
    with connection:
        connection.execute("UPDATE alembic_version SET version_num = '451aebb31d03'")
    connection.close()
    with pytest.raises(TrackingError, match="mlflow db upgrade sqlite:"):
        open_store(store_root)


def test_dead_server_is_told_in_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    began = time.monotonic()
    with pytest.raises(TrackingError, match="no MLflow server answers"):
        open_store()
    assert time.monotonic() - began < 10


def test_nonsense_uri_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nonsense://x")
    with pytest.raises(TrackingError, match="nonsense"):
        open_store()


def test_moved_store_still_opens(store: Store, tmp_path: Path) -> None:
    with start_run(store, "lipo", "first") as run:
        run.metrics({"val_rmse": 0.7})
    assert store.root is not None
    shutil.copytree(store.root, tmp_path / "copy")
    copy = open_store(tmp_path / "copy")
    assert copy.client().get_run(run.run_id).data.metrics == {"val_rmse": 0.7}


@pytest.mark.parametrize("uri", ["http://localhost:50O0", "http://[::1:5000"])
def test_a_misspelt_address_is_one_line(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(TrackingError, match="no address"):
        open_store()


def test_a_password_with_a_slash_is_none_of_our_business(monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLAlchemy reads it; it is not looked at for a port."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://ann:s3/cret@127.0.0.1:9/x")
    with pytest.raises(TrackingError) as caught:
        open_store()
    assert "address" not in caught.value.what


def test_an_address_is_shown_without_its_password() -> None:
    store = Store("postgresql://ann:secret@db/mlflow", None)
    assert store.shown == "postgresql://ann:***@db/mlflow"
