"""What several rooms' tests share. The environment is set before anything heavy is imported."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("MPLBACKEND", "agg")

# Whoever is started in the background is born with Ctrl-C ignored and hands that down; the tests
# that send Ctrl-C to a child mean a child of somebody's terminal.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

if TYPE_CHECKING:
    from lipo_cli.tracking.store import Store

SHARED = Path(__file__).resolve().parents[2] / "shared"
# The user's own store, settings and terminal must not reach into a test, nor a test into them.
FOREIGN = ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "LIPO_STORE", "LIPO_DEBUG")


def _folder(variable: str, default: Path, marker: str) -> Path:
    named = os.environ.get(variable)
    folder = Path(named) if named else default
    if not (folder / marker).is_file():
        pytest.skip(f"{variable} is not set and there is no {marker} in ../shared/{default.name}")
    return folder


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder with the real data."""
    return _folder("LIPO_DATA_DIR", SHARED / "data", "lipophilicity.csv")


@pytest.fixture(scope="session")
def parity_dir() -> Path:
    """The folder with a tiny published-style checkpoint and its expected outputs."""
    return _folder("LIPO_PARITY_DIR", SHARED / "parity", "expected.safetensors")


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Hides the user's settings, and puts the signal handlers back."""
    for name in FOREIGN:
        # Set first, so that a variable that the test adds is taken away again at its end.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def migrated_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty store's database, its migrations done once for all tests."""
    from lipo_cli.tracking.store import DATABASE, open_store

    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        root = tmp_path_factory.mktemp("migrated") / "mlruns"
        open_store(root)
    return root / DATABASE


@pytest.fixture
def store_root(migrated_database: Path, tmp_path: Path) -> Path:
    """A ready store of the test's own, not opened yet: for commands and other processes."""
    root = tmp_path / "mlruns"
    root.mkdir()
    database = root / migrated_database.name
    shutil.copy(migrated_database, database)
    connection = sqlite3.connect(database)
    with connection:
        connection.execute(
            "UPDATE experiments SET artifact_location = ?", ((root / "artifacts" / "0").as_uri(),)
        )
    connection.close()
    return root


@pytest.fixture
def store(store_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """An open store of the test's own; fails a test that touches MLflow's global one."""
    from lipo_cli.tracking.store import open_store

    here = tmp_path / "elsewhere"
    here.mkdir()
    monkeypatch.chdir(here)
    yield open_store(store_root)
    strays = [name for name in ("mlflow.db", "mlruns") if (here / name).exists()]
    assert not strays, f"something wrote to MLflow's global store: {strays}"
