"""The published files, where they come from, and their download into the user cache."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import pooch
import requests

from lipo_cli.chem.reading import file_sha256
from lipo_cli.errors import DataError, NetworkError
from lipo_cli.progress import Progress, SilentProgress

TIMEOUT_SECONDS = 30
GITHUB = "https://raw.githubusercontent.com"


@dataclass(frozen=True)
class RemoteFile:
    """A published file.

    Attributes:
        name: What it is called here.
        urls: Where its bytes are, the first being the source and the others copies.
        sha256: Of its bytes.
        what: What it holds, for people.
    """

    name: str
    urls: tuple[str, ...]
    sha256: str
    what: str


PRIMARY = RemoteFile(
    name="lipophilicity.csv",
    urls=(
        f"{GITHUB}/GeorgeBatch/moleculenet/417251a08054c16d88bac8e9be895e66ee56742c"
        "/data/lipophilicity_original.csv",
        f"{GITHUB}/aspuru-guzik-group/selfies/eb6177e5f20cfd8787f2ac4423f5b38dce6eeeb8"
        "/tests/test_sets/molnet/lipo.csv",
    ),
    sha256="3d2a409dc8bdf620876bb7257faf4996df29a19dd0244d0b4a6a8064c306cded",
    what="MoleculeNet Lipophilicity: 4,200 molecules with measured logD at pH 7.4",
)
SECONDARY = RemoteFile(
    name="secondary.csv",
    urls=(
        f"{GITHUB}/nimadindar/MolFormer-Tuning/90ca30af0bb952963afb065c6d770d500e160f7d"
        "/datasets/External-Dataset_for_Task2.csv",
    ),
    sha256="1b211fd80fc6e46e14f3593a934f7c0e4e33f0e0559e8cba5b8b257c4975bc2a",
    what="its secondary set: 300 molecules with labels of unstated origin",
)
SOURCES: Mapping[str, tuple[RemoteFile, ...]] = MappingProxyType(
    {"lipophilicity": (PRIMARY, SECONDARY)}
)
"""The files of each dataset that can be downloaded."""


def cache_folder() -> Path:
    """Returns the folder for downloads: `LIPO_CACHE_DIR`, or the user's cache of the system."""
    given = os.environ.get("LIPO_CACHE_DIR")
    return Path(given) / "data" if given else Path(pooch.os_cache("lipo")) / "data"


def fetch(
    name: str, progress: Progress | None = None, *, folder: Path | None = None
) -> tuple[Path, ...]:
    """Downloads the files of a dataset and checks them; a file that is already right is kept.

    Args:
        name: The dataset.
        progress: Hears of each file.
        folder: Where to; None: the user cache.

    Returns:
        The paths of the files.

    Raises:
        DataError: nothing of that name can be downloaded, or the folder cannot be written.
        NetworkError: a file cannot be had, or is not what was published.
    """
    if name not in SOURCES:
        known = ", ".join(sorted(SOURCES))
        raise DataError(f"{name!r} cannot be downloaded", hint=f"what can: {known}")
    progress = progress or SilentProgress()
    folder = folder or cache_folder()
    progress.start(f"fetching {name}", len(SOURCES[name]), "files")
    paths = []
    for remote in SOURCES[name]:
        paths.append(_fetch_file(remote, folder))
        progress.advance(file=remote.name)
    progress.finish()
    return tuple(paths)


def check_published(path: Path, remote: RemoteFile) -> None:
    """Refuses a file that bears a published name and has other bytes.

    Raises:
        DataError: the checksum differs, or the file cannot be read.
    """
    found = file_sha256(path)
    if found != remote.sha256:
        raise DataError(
            f"is not the published {remote.name}: its sha256 is {found[:12]}..., not"
            f" {remote.sha256[:12]}...",
            where=path,
            hint="`lipo data fetch` gets the published file; to use this one as your own data,"
            " name its path with --dataset",
        )


def _fetch_file(remote: RemoteFile, folder: Path) -> Path:
    target = folder / remote.name
    if target.is_file() and file_sha256(target) == remote.sha256:
        return target
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"cannot be made: {error.strerror}", where=folder) from None
    failures = []
    for url in remote.urls:
        failure = _try(url, remote, folder)
        if failure is None:
            return target
        failures.append(failure)
    raise NetworkError(
        f"{remote.name} could not be downloaded: {failures[0]}",
        where=remote.urls[0],
        hint=f"download it by hand, put it into a folder as {remote.name} and name the folder with"
        f" --data-dir or LIPO_DATA_DIR; its sha256 is {remote.sha256}",
    )


def _try(url: str, remote: RemoteFile, folder: Path) -> str | None:
    """Downloads from one address; returns None, or why it failed."""
    pooch.get_logger().setLevel(logging.WARNING)
    downloader = pooch.HTTPDownloader(timeout=TIMEOUT_SECONDS)
    try:
        pooch.retrieve(
            url,
            known_hash=f"sha256:{remote.sha256}",
            fname=remote.name,
            path=folder,
            downloader=downloader,
        )
    except ValueError:
        # Pooch says so of a checksum; it has not kept the file.
        return "what came has the wrong checksum"
    except requests.HTTPError as error:
        code = error.response.status_code if error.response is not None else "with an error"
        return f"the server answers {code}"
    except requests.Timeout:
        return f"no answer within {TIMEOUT_SECONDS} seconds"
    except requests.ConnectionError:
        return "the server cannot be reached"
    except (requests.RequestException, OSError) as error:
        return f"{type(error).__name__}: {error}"
    return None
