"""`lipo ui`: MLflow's web interface on the right store."""

from __future__ import annotations

import os
import socket
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from lipo_cli.commands.options import DEFAULT_STORE, StoreOption
from lipo_cli.errors import TrackingError

if TYPE_CHECKING:
    from lipo_cli.tracking.store import Store

# Seven workers of 250 MB each run MLflow's job queue, of which nothing here makes use.
_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
}
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def ui(
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Port.")] = 5000,
    host: Annotated[
        str, typer.Option("--host", help="Address; 0.0.0.0 opens it to the network.")
    ] = "127.0.0.1",
    allowed_hosts: Annotated[
        str | None,
        typer.Option(
            "--allowed-hosts",
            metavar="NAMES",
            help="Names under which it may be reached from elsewhere, with commas. "
            "MLflow answers 403 to every other one.",
        ),
    ] = None,
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Open MLflow's web interface on the runs."""
    from lipo_cli.commands.console import say, warn
    from lipo_cli.tracking.store import open_store

    opened = open_store(store, create=False)  # an empty page would look like lost runs
    if opened.uri.startswith(("http://", "https://")):
        say(f"a server already shows these runs: {opened.shown}")
        return
    check_port(host, port)
    if host not in _LOOPBACK:
        warn(f"anyone who reaches {host}:{port} can read and change the runs")
    say(f"http://{host}:{port} shows {opened.root or opened.shown} in a moment; Ctrl-C ends it")
    # MLflow begins with pages for language models' traces, and hides the model registry there.
    say("runs and models are under 'Model training', at its top left")
    command = server_command(opened, host, port, allowed_hosts)
    sys.stdout.flush()
    os.execve(sys.executable, command, server_environment(opened))


def server_environment(store: Store) -> dict[str, str]:
    """Returns the environment of the server.

    The address of a database is in it, since everybody can read a command line and some hold a
    password.
    """
    return {**os.environ, **_ENVIRONMENT, "MLFLOW_BACKEND_STORE_URI": store.uri}


def server_command(
    store: Store, host: str, port: int, allowed_hosts: str | None = None
) -> list[str]:
    """Returns the command line of the server, without any guessing left to MLflow."""
    command = [sys.executable, "-m", "mlflow", "server"]
    command += ["--host", host, "--port", str(port), "--workers", "1"]
    if store.artifacts is not None:
        command += ["--default-artifact-root", store.artifacts.as_uri()]
        command += ["--artifacts-destination", store.artifacts.as_uri()]
    if allowed_hosts is not None:
        command += ["--allowed-hosts", allowed_hosts]
    return command


def check_port(host: str, port: int) -> None:
    """Finds out that a port is taken before the server takes its seconds to fail.

    Raises:
        TrackingError: the port is taken or the address is not this machine's.
    """
    try:
        kind, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(kind, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise TrackingError(
            f"cannot listen: {error.strerror or error}",
            where=f"{host}:{port}",
            hint="choose another one with --port or --host",
        ) from None
