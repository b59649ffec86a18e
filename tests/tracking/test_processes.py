"""What only shows with real processes: a fresh database met at once, signals, kill -9."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lipo_cli.tracking.stale import find_stale, repair
from lipo_cli.tracking.store import Store, open_store
from lipo_cli.tracking.versions import list_versions, show_version

PREAMBLE = """
import sys, time
from pathlib import Path
from lipo_cli.tracking.registry import promote_champion
from lipo_cli.tracking.runs import start_run
from lipo_cli.tracking.store import open_store
root, number = Path(sys.argv[1]), int(sys.argv[2])
"""
WRITE = """
store = open_store(root)
folder = Path(sys.argv[3])
with start_run(store, "lipo", f"run {number}", tags={"lipo.kind": "cell"}) as run:
    for epoch in range(20):
        run.history([{"epoch": epoch, "val_rmse": 1 / (epoch + 1), "train_loss": 0.5}])
    run.metrics({"val_rmse": 0.7 - number / 100})
    uri = run.model(folder, ["CCO"])
promote_champion(store, run.run_id, uri, "m", metric_value=0.7 - number / 100, scope="s")
"""
WAIT = """
store = open_store(root)
with start_run(store, "lipo", "waits") as run:
    print(run.run_id, flush=True)
    if number == 1:
        from lipo_cli.tracking.signals import deferred_signals
        with deferred_signals():
            print("writing", flush=True)
            time.sleep(1)
            run.tag("written", "yes")
    time.sleep(60)
"""


def start(code: str, root: Path, number: int, *more: str) -> subprocess.Popen[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST")}
    return subprocess.Popen(
        [sys.executable, "-c", PREAMBLE + code, str(root), str(number), *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=root.parent,
        env=environment,
    )


@pytest.mark.slow
def test_four_processes_meet_a_fresh_store_at_once(tmp_path: Path, stand_in: Path) -> None:
    root = tmp_path / "mlruns"
    processes = [start(WRITE, root, number, str(stand_in)) for number in range(4)]
    for process in processes:
        _, errors = process.communicate(timeout=240)
        assert process.returncode == 0, errors
    store = open_store(root)
    client = store.client()
    runs = client.search_runs([client.get_experiment_by_name("lipo").experiment_id])
    assert sorted(run.info.run_name for run in runs) == [f"run {n}" for n in range(4)]
    assert {run.info.status for run in runs} == {"FINISHED"}
    for run in runs:
        assert len(client.get_metric_history(run.info.run_id, "train_loss")) == 20
    # The best of the four holds the title, whoever came first; nobody worse registered after it.
    assert show_version(store, "models:/m@champion").tags["val_rmse"] == repr(0.7 - 3 / 100)
    values = [float(v.tags["val_rmse"]) for v in reversed(list_versions(store, "m"))]
    assert values == sorted(values, reverse=True)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_the_run_as_killed(store_root: Path, number: signal.Signals) -> None:
    process = start(WAIT, store_root, 0)
    assert process.stdout is not None
    run_id = process.stdout.readline().strip()
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode != 0
    assert open_store(store_root).client().get_run(run_id).info.status == "KILLED"


def test_signal_in_the_middle_of_a_write_waits_for_it(store_root: Path) -> None:
    process = start(WAIT, store_root, 1)
    assert process.stdout is not None
    run_id = process.stdout.readline().strip()
    assert process.stdout.readline().strip() == "writing"
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    run = open_store(store_root).client().get_run(run_id)
    assert run.info.status == "KILLED"
    assert run.data.tags["written"] == "yes"


def test_kill_9_leaves_a_run_that_is_found_and_repaired(store: Store) -> None:
    assert store.root is not None
    process = start(WAIT, store.root, 0)
    assert process.stdout is not None
    run_id = process.stdout.readline().strip()
    assert find_stale(store) == []
    assert repair(store) == []
    process.kill()
    # A process that nobody waited for yet has ended all the same.
    deadline = time.monotonic() + 10
    while not find_stale(store) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert [run.run_id for run in repair(store)] == [run_id]
    assert store.client().get_run(run_id).info.status == "KILLED"
    process.communicate()


@pytest.mark.slow
@pytest.mark.server
def test_runs_and_champion_through_a_server(
    store_root: Path, stand_in: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lipo_cli.commands.ui import server_command, server_environment
    from lipo_cli.tracking.registry import promote_champion
    from lipo_cli.tracking.runs import find_finished, start_run
    from lipo_cli.tracking.versions import regressor_folder

    port = 5000 + os.getpid() % 20000
    local = open_store(store_root)
    command, environment = server_command(local, "127.0.0.1", port), server_environment(local)
    server = subprocess.Popen(
        command,
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
        store = _wait_for_server()
        assert store.root is None
        with start_run(store, "over http", "x", tags={"lipo.fingerprint": "f"}) as run:
            run.history([{"epoch": 1, "val_rmse": 0.5}])
            uri = run.model(stand_in, ["CCO"])
        found = find_finished(store, "over http", "f")
        assert found is not None
        assert found.epochs(["val_rmse"]) == [{"epoch": 1, "val_rmse": 0.5}]
        promote_champion(store, run.run_id, uri, "m", metric_value=0.5, scope="s")
        folder = regressor_folder(store, "models:/m@champion")
        assert json.loads((folder / "manifest.json").read_text()) == {}
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(timeout=30)


def _wait_for_server() -> Store:
    from lipo_cli.errors import TrackingError

    deadline = time.monotonic() + 240
    while True:
        try:
            return open_store()
        except TrackingError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)
