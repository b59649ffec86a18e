"""A fitted model as a folder of the user: whole or not at all, and never mixed with another."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

from lipo_cli.errors import DataError, SettingsError
from lipo_cli.tracking.signals import deferred_signals

_MARK = "manifest.json"
_OF_A_MODEL = frozenset(
    {
        _MARK,
        "adapter_config.json",
        "adapter_model.safetensors",
        "base",
        "config.json",
        "kernel.safetensors",
        "members",
        "model.safetensors",
        "tokenizer.json",
    }
)
"""What stands in the folder of a regressor, an ensemble, or a kernel readout."""
_OF_A_DESKTOP = frozenset({".DS_Store", "Thumbs.db", "desktop.ini"})


def check_model_folder(path: Path) -> None:
    """Checks that nothing but an earlier model would give way to a model written here.

    Raises:
        SettingsError: the folder holds something else.
    """
    if not path.is_dir() or not any(path.iterdir()):
        return
    if not _is_ours(path / _MARK):
        what = "something else than a fitted model"
    elif others := sorted(each.relative_to(path) for each in path.rglob("*") if _is_other(each)):
        what = f"{others[0]} beside a fitted model"
    else:
        return
    raise SettingsError(f"{path} holds {what}", where="--out", hint="name a new folder")


def _is_other(path: Path) -> bool:
    """Tells whether a file is none of a fitted model's, nor what a desktop leaves everywhere."""
    member = path.parent.name == "members" and path.name.isdecimal()
    return path.name not in _OF_A_MODEL | _OF_A_DESKTOP and not member


def _is_ours(manifest: Path) -> bool:
    """Tells whether a manifest is one of a fitted model: other programs write such files, too."""
    try:
        content = json.loads(manifest.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and {"format", "lipo", "peft"} <= content.keys()


def copy_model_folder(source: Path, target: Path) -> bool:
    """Copies beside the folder `target` and puts the copy in its place.

    Returns:
        Whether an earlier model gave way.

    Raises:
        SettingsError: something else came into the folder meanwhile.
        DataError: it cannot be written.
    """
    try:
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as beside:
            # Contents alone: weights are often saved for their owner only, and this is to share.
            copy = Path(
                shutil.copytree(source, Path(beside) / target.name, copy_function=shutil.copyfile)
            )
            check_model_folder(target)
            earlier = Path(beside) / "earlier"
            with deferred_signals():  # between the two, the earlier model lies in a scratch folder
                if replaces := target.is_dir() and any(target.iterdir()):
                    target.rename(earlier)
                try:
                    copy.replace(target)
                except OSError:
                    if earlier.is_dir():
                        earlier.rename(target)
                    raise
            return replaces
    except OSError as error:
        raise DataError(f"cannot be written: {error.strerror or error}", where=target) from None
