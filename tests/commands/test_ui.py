from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from lipo_cli.commands.ui import check_port, server_command, server_environment
from lipo_cli.errors import TrackingError
from lipo_cli.main import main
from lipo_cli.tracking.runs import start_run
from lipo_cli.tracking.store import Store, open_store


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_taken_port_is_told_before_the_server_starts(
    store_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    open_store(store_root)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["ui", "--port", str(port), "--store", str(store_root)]) == 7
    shown = capsys.readouterr().err
    assert f"127.0.0.1:{port}: cannot listen" in shown
    assert "--port" in shown
    check_port("127.0.0.1", free_port())


def test_a_folder_without_a_store_is_not_shown_as_an_empty_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ui", "--port", str(free_port()), "--store", str(tmp_path / "mlruns")]) == 7
    assert "there is no store here yet" in capsys.readouterr().err
    assert not (tmp_path / "mlruns").exists()


def test_address_of_another_machine_is_refused() -> None:
    with pytest.raises(TrackingError, match="cannot listen"):
        check_port("192.0.2.1", 5000)


def test_server_gets_the_right_store(store: Store) -> None:
    command = server_command(store, "127.0.0.1", 5123)
    assert server_environment(store)["MLFLOW_BACKEND_STORE_URI"] == store.uri
    assert command[command.index("--host") + 1] == "127.0.0.1"
    assert store.artifacts is not None
    assert command[command.index("--default-artifact-root") + 1] == store.artifacts.as_uri()


def test_no_password_stands_on_a_command_line() -> None:
    """Everybody on a machine can read those."""
    command = server_command(Store("postgresql://ann:secret@db/x", None), "127.0.0.1", 5123)
    assert not [word for word in command if "secret" in word]


def test_allowed_hosts_are_passed_on(store: Store) -> None:
    assert "--allowed-hosts" not in server_command(store, "0.0.0.0", 5123)
    command = server_command(store, "0.0.0.0", 5123, "lab.example,lab.example:*")
    assert command[command.index("--allowed-hosts") + 1] == "lab.example,lab.example:*"


def test_port_out_of_range_is_a_usage_error() -> None:
    assert main(["ui", "--port", "70000"]) == 2


@pytest.mark.slow
@pytest.mark.server
def test_ui_serves_the_runs_and_ends_on_sigterm(store_root: Path, tmp_path: Path) -> None:
    with start_run(open_store(store_root), "lipo shows", "x") as run:
        run.metrics({"val_rmse": 0.5})
    port = free_port()
    log = tmp_path / "log"
    with log.open("w") as stream:
        server = subprocess.Popen(
            [sys.executable, "-m", "lipo_cli", "ui", "--port", str(port)],
            env={**os.environ, "LIPO_STORE": str(store_root)},
            cwd=tmp_path,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )
    try:
        address = f"http://127.0.0.1:{port}"
        name = "lipo%20shows"
        query = f"{address}/api/2.0/mlflow/experiments/get-by-name?experiment_name={name}"
        deadline = time.monotonic() + 240
        while True:
            try:
                answer = urllib.request.urlopen(query, timeout=5).read().decode()
                break
            except OSError:
                assert server.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.5)
        assert run.experiment_id in answer
        assert "<title>MLflow</title>" in urllib.request.urlopen(address).read().decode()
        assert f"{address} shows {store_root}" in log.read_text()
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(timeout=30)
    assert not (tmp_path / "mlartifacts").exists()
