"""The folder of a saved regressor: its manifest, its weights file, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from pydantic import ValidationError
from safetensors.torch import save_file

from lipo_cli.errors import ModelError
from lipo_cli.model.base import Base, resolve_base, sha256_of
from lipo_cli.settings import PEFT_METHODS, Peft, TrainingSettings

FORMAT = 1
_HASHES = ("weights_sha256", "config_sha256", "tokenizer_sha256")
_IDENTITY = ("name", "sha256", "config_sha256", "fingerprint")
_BASE_FILES = {"model.safetensors": "sha256", "config.json": "config_sha256"}
BASE_FOLDER = "base"
MAX_BASE_BYTES = 64 * 2**20
"""Larger base weights are named, not copied: every logged and registered run would hold its own
copy, and the published checkpoint of 187 MB can be had by its name at any time."""
_NEEDED = {"format", "peft", "base", "settings", *_HASHES}


def weights_name(peft: Peft) -> str:
    """Returns the weights file of a method; PEFT's own name where PEFT can read it too."""
    return "adapter_model.safetensors" if peft in ("lora", "ia3") else "model.safetensors"


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes sorted, indented JSON."""
    text = json.dumps(content, indent=1, sort_keys=True, default=str)
    path.write_text(text + "\n", encoding="utf-8")


def first_misfit(own: dict[str, torch.Tensor], state: dict[str, torch.Tensor]) -> str | None:
    """Returns the first name that is in one of the two only or differs in shape, or None."""
    odd = own.keys() ^ state.keys()
    odd |= {name for name in own.keys() & state.keys() if own[name].shape != state[name].shape}
    return min(odd, default=None)


def write_adapter(model: PeftModel, folder: Path, base_name: str) -> None:
    """Writes the adapter in PEFT's own two files, the base named instead of null."""
    state = {k: v.cpu().contiguous() for k, v in get_peft_model_state_dict(model).items()}
    save_file(state, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = model.peft_config["default"].to_dict()
    config["base_model_name_or_path"] = base_name
    config["inference_mode"] = True
    plain = {k: sorted(v) if isinstance(v, set) else v for k, v in config.items()}
    write_json(folder / "adapter_config.json", plain)


def read_adapter(model: PeftModel, state: dict[str, torch.Tensor], folder: Path) -> None:
    """Fills an adapter.

    Raises:
        ModelError: a weight of the adapter is missing, or one is there that it has not.
    """
    if odd := first_misfit(get_peft_model_state_dict(model), state):
        raise ModelError(f"the weights do not fit this adapter: {odd}", where=folder)
    set_peft_model_state_dict(model, state)


def write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    """Writes `manifest.json` last: it carries the SHA-256 of the files beside it."""
    for key, name in _hashed_files(manifest["peft"]):
        manifest[key] = sha256_of(folder / name)
    write_json(folder / "manifest.json", manifest)


def read_json(file: Path) -> dict[str, Any]:
    """Reads a manifest that is there.

    Raises:
        ModelError: it is not JSON, or no table of names and values.
    """
    try:
        manifest: Any = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ModelError("the manifest cannot be read", where=file, hint=str(error)) from None
    if not isinstance(manifest, dict):
        raise ModelError("the manifest is not a table of names and values", where=file)
    return manifest


def _hashed_files(peft: Peft) -> list[tuple[str, str]]:
    # Not the weights alone: with another tokenizer they predict, silently, something else.
    return list(zip(_HASHES, (weights_name(peft), "config.json", "tokenizer.json"), strict=True))


def read_manifest(folder: Path) -> dict[str, Any]:
    """Reads and checks the manifest of a saved regressor.

    Raises:
        ModelError: a file is missing, damaged, or not the one described.
    """
    file = folder / "manifest.json"
    if not file.is_file():
        raise ModelError(
            "not a saved regressor: no manifest.json",
            where=folder,
            hint="give a folder that `lipo finetune --out` wrote, or models:/NAME@champion",
        )
    manifest = read_json(file)
    _check_content(manifest, file)
    for key, name in _hashed_files(manifest["peft"]):
        if not (folder / name).is_file():
            raise ModelError(f"no {name}", where=folder, hint="the folder is not whole")
        if sha256_of(folder / name) != manifest[key]:
            raise ModelError(
                f"{name} is not the file that the manifest describes",
                where=folder,
                hint="the folder is damaged or mixed; export the model again",
            )
    return dict(manifest)


def _check_content(manifest: dict[str, Any], file: Path) -> None:
    if manifest.get("format", FORMAT) != FORMAT:
        raise ModelError(
            f"written in format {manifest['format']}, this lipo reads {FORMAT}", where=file
        )
    if missing := sorted(_NEEDED - manifest.keys()):
        raise ModelError(f"the manifest lacks {', '.join(missing)}", where=file)
    base = manifest["base"]
    if not (isinstance(base, dict) and all(isinstance(base.get(k), str) for k in _IDENTITY)):
        raise ModelError("the manifest names no base model", where=file)
    if manifest["peft"] not in PEFT_METHODS:
        raise ModelError(f"the manifest's method is {manifest['peft']!r}", where=file)


def read_settings(manifest: dict[str, Any], folder: Path, **changes: object) -> TrainingSettings:
    """Returns the settings in a manifest.

    Raises:
        ModelError: they are none that this version knows.
    """
    try:
        return TrainingSettings.model_validate({**manifest["settings"], **changes})
    except (TypeError, ValidationError) as error:
        raise ModelError(
            "the manifest's settings make no sense", where=folder / "manifest.json", hint=str(error)
        ) from None


def portable_name(name: str) -> str:
    """Returns the last component of a folder's path; shipped and hub names as they are."""
    return Path(name).name if Path(name).is_absolute() else name


def write_base(
    source: Path, wanted: dict[str, str], folder: Path, *, whatever_size: bool = False
) -> bool:
    """Copies a base model's config and weights, as they lie on disk, to `folder/base`.

    Args:
        source: Where they lie.
        wanted: Their checksums.
        folder: The folder of the saved model.
        whatever_size: Whether weights of more than `MAX_BASE_BYTES` are copied, too.

    Returns:
        Whether it did: larger weights stay where they are.

    Raises:
        ModelError: the base is gone, or has changed since it was loaded.
    """
    for name, key in _BASE_FILES.items():
        file = source / name
        if not file.is_file() or sha256_of(file) != wanted[key]:
            raise ModelError(
                f"{name} of the base model is gone or has changed since it was loaded",
                where=source,
                hint="put it back and save again",
            )
    size = (source / "model.safetensors").stat().st_size
    if size > MAX_BASE_BYTES and not whatever_size:
        return False
    target = folder / BASE_FOLDER
    target.mkdir(exist_ok=True)
    for name in _BASE_FILES:
        if not ((target / name).is_file() and (target / name).samefile(source / name)):
            shutil.copyfile(source / name, target / name)
    return True


def matching_base(given: str | None, manifest: dict[str, Any], folder: Path) -> Base:
    """Finds the base model of an adapter: the one given, else in the folder, else by its name.

    Raises:
        ModelError: it is not to be found, or it is another.
    """
    wanted: dict[str, str] = manifest["base"]
    inside = folder / BASE_FOLDER
    # Asked of the manifest too: a folder may stand in another's place whose base it has not.
    if given is None and manifest.get("self_contained") is True and inside.is_dir():
        given, hint = str(inside.resolve()), "the folder is damaged or mixed; export it again"
    else:
        hint = "give the base it was trained on"
    found = resolve_base(wanted["name"] if given is None else given)
    for what, own, other in (
        ("weights", wanted["sha256"], found.sha256),
        ("config.json", wanted["config_sha256"], found.config_sha256),
    ):
        if own != other:
            raise ModelError(
                f"this adapter was trained on another '{wanted['name']}' "
                f"({what} {own[:12]}, found {other[:12]})",
                where=found.folder if found.folder == inside.resolve() else folder,
                hint=hint,
            )
    return found
