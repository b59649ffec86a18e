"""Where the trials of a tuning are kept: a journal file, or a database of the user's.

Optuna is imported inside the functions: a command that tunes nothing does without it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import filelock

from lipo_cli.errors import SettingsError, TrackingError
from lipo_cli.redact import without_passwords

if TYPE_CHECKING:
    from optuna.storages import BaseStorage, RDBStorage

_POSTGRES = ("postgres://", "postgresql://")
_WITH_DRIVER = "postgresql+psycopg://"
_SQLITE = "sqlite"
_EXAMPLE = "for example postgresql://user:password@host/database"


def check_url(url: str) -> str:
    """Returns the address of a database as SQLAlchemy reads it; connects to nothing.

    Raises:
        SettingsError: it is no address, its dialect is unknown, or its driver is not installed.
    """
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    where = "--tune-storage"
    if any(sign.isspace() for sign in url):
        raise SettingsError(
            "an address holds no blanks", where=where, hint="write one in a password as %20"
        )
    for plain in _POSTGRES:
        if url.startswith(plain):
            url = _WITH_DRIVER + url.removeprefix(plain)
    try:
        address = make_url(url)
        address.get_dialect().import_dbapi()
    except ImportError:
        postgres = url.startswith("postgres")
        raise SettingsError(
            "the driver of this database is not installed",
            where=where,
            hint="pip install 'lipo[postgres]'" if postgres else "install it with pip",
        ) from None
    except (ArgumentError, ValueError, AttributeError):
        raise SettingsError(
            "this is no address of a database that SQLAlchemy knows", where=where, hint=_EXAMPLE
        ) from None
    if address.get_backend_name() == _SQLITE and address.database in (None, "", ":memory:"):
        raise SettingsError("a database in memory is gone with the command", where=where)
    return url


def shown(url: str | None) -> str:
    """Names a storage without its password."""
    return "journal file" if url is None else without_passwords(url)


@contextmanager
def open_storage(url: str | None, journal: Path) -> Iterator[BaseStorage]:
    """Opens the storage of a study for the length of a block.

    Args:
        url: A database, as `check_url` returned it; None: the journal file.
        journal: The study's own file.

    Raises:
        TrackingError: it cannot be opened or read, or is a SQLite file that another process uses.
    """
    if url is None:
        yield _open_journal(journal)
        return
    with _alone(url):
        database = _open_database(url)
        try:
            yield database
        finally:
            database.remove_session()
            database.engine.dispose()


@contextmanager
def storage_errors(where: str | Path) -> Iterator[None]:
    """Turns whatever Optuna or a database raises into one line without a password.

    Raises:
        TrackingError: Optuna refused: a database that went away, a journal that is damaged.
    """
    try:
        yield
    except Exception as error:  # a damaged journal shows as any error inside Optuna
        text = str(error).strip().splitlines()
        reason = text[0].rstrip(".") if text else ""
        raise TrackingError(
            f"the trials cannot be read or written: {type(error).__name__} {reason}".rstrip(),
            where=without_passwords(str(where)),
            hint="trials that were finished stay in MLflow; a damaged journal can be moved away",
        ) from None


def _open_journal(path: Path) -> BaseStorage:
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _drop_torn_line(path)
    except OSError as error:
        raise TrackingError(f"cannot be written: {error.strerror}", where=path) from None
    with storage_errors(path):
        return JournalStorage(JournalFileBackend(str(path)))


def _drop_torn_line(path: Path) -> None:
    """Cuts off what a process that was killed while it wrote left without an end.

    The next line would be appended to it, and neither could be read.
    """
    from optuna.storages.journal import JournalFileSymlinkLock

    if not path.exists() or path.stat().st_size == 0:
        return
    lock = JournalFileSymlinkLock(str(path))
    lock.acquire()
    try:
        with path.open("rb+") as file:
            content = file.read()
            if not content.endswith(b"\n"):
                file.truncate(content.rfind(b"\n") + 1)
                os.fsync(file.fileno())
    finally:
        lock.release()


def _open_database(url: str) -> RDBStorage:
    from optuna.storages import RDBStorage

    with storage_errors(url):
        return RDBStorage(url, engine_kwargs={"pool_pre_ping": True})


@contextmanager
def _alone(url: str) -> Iterator[None]:
    """Keeps other processes out of a SQLite file, which breaks under several."""
    from sqlalchemy import make_url

    address = make_url(url)
    if address.get_backend_name() != _SQLITE:
        yield
        return
    database = Path(address.database or "").resolve()
    lock = filelock.FileLock(f"{database}.lock", timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise TrackingError(
            "another process tunes in this SQLite file, which holds one at a time",
            where=database,
            hint="leave --tune-storage out, or use PostgreSQL",
        ) from None
    except OSError as error:
        raise TrackingError(f"cannot be written: {error.strerror}", where=database) from None
    try:
        yield
    finally:
        lock.release()
