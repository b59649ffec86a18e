"""`mlflow models serve` on loopback, with the champion that a comparison registered."""

from __future__ import annotations

import csv
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from lipo_cli.main import main
from lipo_cli.tracking.store import Store
from tests.fixtures.bench import make_bench

SMILES = ["OCC", "c1ccccc1", "CC(=O)Oc1ccccc1C(=O)O", "C[C@H](N)C(=O)O"]


@contextmanager
def served(store: Store, folder: Path) -> Iterator[str]:
    """Serves the champion natively; yields its address, and ends the server however it goes."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--env-manager", "local"]
    command += ["-m", "models:/lipophilicity@champion", "-h", "127.0.0.1", "-p", str(port)]
    environment = {
        **os.environ,
        "MLFLOW_TRACKING_URI": store.uri,
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        # MLflow starts uvicorn by its name.
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    log = folder / "serve.log"
    with log.open("w") as stream:
        server = subprocess.Popen(
            command,
            env=environment,
            cwd=folder,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 240
        while not _answers(f"{address}/ping"):
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.5)
        yield address
    finally:
        _end(server)
    assert not _answers(f"{address}/ping"), "a worker outlived the server"


def _end(server: subprocess.Popen[bytes]) -> None:
    """Asks the server and its worker to end, and sees to it after half a minute."""
    os.killpg(server.pid, signal.SIGTERM)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        server.poll()  # reaps the leader, which may be over before its worker is
        try:
            os.killpg(server.pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    os.killpg(server.pid, signal.SIGKILL)
    server.wait(timeout=30)


def _answers(address: str) -> bool:
    try:
        return bool(urllib.request.urlopen(address, timeout=5).status == 200)
    except OSError:
        return False


def asked(address: str, body: dict) -> np.ndarray:
    """Returns what the server predicts."""
    request = urllib.request.Request(
        f"{address}/invocations",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    answer = json.loads(urllib.request.urlopen(request, timeout=60).read())
    return np.array([row["prediction"] for row in answer["predictions"]])


@pytest.mark.slow
@pytest.mark.server
def test_the_served_champion_of_a_comparison_predicts_as_lipo_does(
    store: Store, tmp_path: Path
) -> None:
    where = ["--store", str(store.root)]
    flags = [*make_bench(tmp_path), "--secondary", str(tmp_path / "secondary.csv")]
    assert main(["compare", *flags, "-s", "random:k=6", "-p", "lora", *where]) == 0
    table, predicted = tmp_path / "mine.csv", tmp_path / "predicted.csv"
    table.write_text("smiles\n" + "".join(f"{text}\n" for text in SMILES))
    assert main(["predict", str(table), "--out", str(predicted), *where]) == 0
    with predicted.open() as stream:
        ours = [float(row["prediction"]) for row in csv.DictReader(stream)]
    with served(store, tmp_path) as address:
        rows = {"columns": ["smiles"], "data": [[text] for text in SMILES]}
        for body in ({"dataframe_split": rows}, {"inputs": SMILES}):
            np.testing.assert_allclose(asked(address, body), ours, atol=2e-6)
