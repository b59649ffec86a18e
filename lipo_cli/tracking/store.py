"""Where the runs are: `mlruns/` here, or whatever MLFLOW_TRACKING_URI names.

`mlruns/` holds `mlflow.db` (SQLite) and `artifacts/`. Several processes that meet a fresh database
at once break its migrations, so it is initialised once, under a file lock.
"""

from __future__ import annotations

import os
import socket
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import filelock
import sqlalchemy.exc
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.store.entities.paged_list import PagedList
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

from lipo_cli.errors import TrackingError
from lipo_cli.redact import without_passwords

T = TypeVar("T")

DATABASE = "mlflow.db"
ARTIFACTS = "artifacts"
LOCK_TIMEOUT_S = 120.0
CONNECT_TIMEOUT_S = 5.0

_SQLITE = "sqlite:///"


@dataclass(frozen=True)
class Store:
    """An MLflow store that is ready to use; plain text, so it crosses processes.

    Attributes:
        uri: The tracking URI.
        root: The folder of a local store; None for a server.
    """

    uri: str
    root: Path | None

    @property
    def shown(self) -> str:
        """The address for people: without a password."""
        return without_passwords(self.uri)

    @property
    def artifacts(self) -> Path | None:
        """The folder under which new experiments keep their files; None: the server decides."""
        return self.root / ARTIFACTS if self.root is not None else None

    def client(self) -> MlflowClient:
        """Returns a client of this store, whatever MLflow's global state says."""
        return MlflowClient(tracking_uri=self.uri)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the store's lock against other processes; a server is not locked.

        Raises:
            TrackingError: another process holds it for too long.
        """
        if self.root is None:
            yield
            return
        with _lock(self.root):
            yield


def open_store(root: Path = Path("mlruns"), *, create: bool = True) -> Store:
    """Opens the store, and makes it where there is none.

    Args:
        root: The folder of the local store; MLFLOW_TRACKING_URI wins when it is set.
        create: Make a local store that does not exist; False: that is an error.

    Raises:
        TrackingError: the store cannot be made, read or reached.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI", "").strip()
    if not uri:
        folder = root.expanduser().resolve()
        return _open_sqlite(_sqlite_uri(folder / DATABASE), folder, create=create)
    if uri.startswith(_SQLITE):
        database = Path(uri.removeprefix(_SQLITE)).resolve()
        return _open_sqlite(_sqlite_uri(database), database.parent, create=create)
    return _open_remote(uri)


@contextmanager
def tracking_errors(where: str | Path | None = None) -> Iterator[None]:
    """Turns MLflow's exceptions, and those of the disk under it, into one line each.

    Raises:
        TrackingError: MLflow or the file system refused.
    """
    try:
        yield
    except (MlflowException, OSError) as error:
        raise TrackingError(first_line(error), where=where) from error


def pages(ask: Callable[..., PagedList[T]]) -> Iterator[PagedList[T]]:
    """Yields every page of a search of MLflow's client, which gives a part of long answers.

    Args:
        ask: The search, all its arguments given but `page_token`.
    """
    token: str | None = None
    while True:
        page = ask(page_token=token)
        yield page
        token = page.token
        if not token:
            return


def first_line(error: BaseException) -> str:
    """Returns the first line of an exception's text, without its final full stop."""
    lines = str(error).strip().splitlines()
    return lines[0].strip().rstrip(".") if lines else type(error).__name__


def database_path(store: Store) -> Path | None:
    """Returns the file of a SQLite store; None for any other."""
    if not store.uri.startswith(_SQLITE):
        return None
    return Path(store.uri.removeprefix(_SQLITE))


def _sqlite_uri(database: Path) -> str:
    if any(sign in str(database) for sign in "?#%"):
        # SQLAlchemy would read another path out of such a URI.
        raise TrackingError(
            "the path of the store must not contain '?', '#' or '%'",
            where=database,
            hint="choose another folder with --store",
        )
    return f"{_SQLITE}{database}"


@contextmanager
def _lock(root: Path) -> Iterator[None]:
    lock = filelock.FileLock(root / ".lock", timeout=LOCK_TIMEOUT_S)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise TrackingError(
            f"another process has held the store for {LOCK_TIMEOUT_S:.0f} s", where=root
        ) from None
    try:
        yield
    finally:
        lock.release()


def _open_sqlite(uri: str, root: Path, *, create: bool) -> Store:
    store = Store(uri, root)
    database = Path(uri.removeprefix(_SQLITE))
    if root.exists() and not root.is_dir():
        raise TrackingError("is a file, not a folder", where=root, hint="--store DIR")
    if not create and not database.is_file():
        raise TrackingError(
            "there is no store here yet",
            where=root,
            hint="`lipo compare` makes one; or --store DIR",
        )
    try:
        root.mkdir(parents=True, exist_ok=True)
        with _lock(root):
            _check_database(database)
            # Its constructor makes the tables; only here is the artifact root ours to name.
            make_tables: Any = SqlAlchemyStore
            make_tables(uri, (root / ARTIFACTS).as_uri()).engine.dispose()
    except OSError as error:
        raise TrackingError(
            f"cannot write the store: {error.strerror}", where=root, hint="--store DIR"
        ) from None
    except MlflowException as error:
        hint = None
        if "out-of-date database schema" in str(error):
            hint = f"another version of MLflow wrote it; copy it, then `mlflow db upgrade {uri}`"
        raise TrackingError(first_line(error), where=database, hint=hint) from error
    except sqlalchemy.exc.SQLAlchemyError as error:
        raise TrackingError(first_line(error), where=database) from error
    return store


def _check_database(database: Path) -> None:
    """Refuses a broken file at once, which MLflow would try ten times over two minutes."""
    if not database.exists():
        return
    if not os.access(database, os.R_OK | os.W_OK):
        raise TrackingError("no permission to write the database", where=database)
    try:
        connection = sqlite3.connect(database, timeout=20)
        try:
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise TrackingError(
            f"not a usable SQLite database: {error}",
            where=database,
            hint="move it away, or choose another store with --store DIR",
        ) from None


def _open_remote(uri: str) -> Store:
    if uri.startswith(("http://", "https://")):
        try:
            parts = urlsplit(uri)
            port = parts.port or (443 if parts.scheme == "https" else 80)
        except ValueError:
            raise TrackingError(
                "this is no address of a server",
                where=uri,
                hint="correct MLFLOW_TRACKING_URI, or unset it",
            ) from None
        try:
            # MLflow would go on trying a dead server for minutes.
            socket.create_connection((parts.hostname or "", port), CONNECT_TIMEOUT_S).close()
        except OSError as error:
            raise TrackingError(
                f"no MLflow server answers: {error.strerror or error}",
                where=uri,
                hint="start it, or unset MLFLOW_TRACKING_URI",
            ) from None
    store = Store(uri, None)
    try:
        store.client().search_experiments(max_results=1)
    except MlflowException as error:
        hint = "see `mlflow server --allowed-hosts`" if "403" in str(error) else None
        raise TrackingError(first_line(error), where=uri, hint=hint) from error
    except Exception as error:  # whatever a database driver or HTTP library raises
        raise TrackingError(first_line(error), where=uri) from error
    return store
