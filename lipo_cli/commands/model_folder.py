"""A fitted model as a folder of the user: whole or not at all, and never mixed with another."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from lipo_cli.errors import DataError, SettingsError

_MARK = "manifest.json"


def check_model_folder(path: Path) -> None:
    """Checks that nothing but an earlier model would give way to a model written here.

    Raises:
        SettingsError: the folder holds something else.
    """
    if path.is_dir() and any(path.iterdir()) and not (path / _MARK).is_file():
        raise SettingsError(
            f"{path} holds something else than a fitted model",
            where="--out",
            hint="name a new folder",
        )


def copy_model_folder(source: Path, target: Path) -> None:
    """Copies beside the folder `target` and puts the copy in its place.

    Raises:
        DataError: it cannot be written.
    """
    try:
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as beside:
            # Contents alone: weights are often saved for their owner only, and this is to share.
            copy = Path(
                shutil.copytree(source, Path(beside) / target.name, copy_function=shutil.copyfile)
            )
            if target.is_dir() and any(target.iterdir()):
                target.rename(Path(beside) / "earlier")
            copy.replace(target)
    except OSError as error:
        raise DataError(f"cannot be written: {error.strerror or error}", where=target) from None
