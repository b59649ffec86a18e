"""Which saved regressor the user means, and what it is: said before it predicts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lipo_cli.comparison.digits import rmse_text
from lipo_cli.errors import LipoError, ModelError

REGISTRY = "models:/"


@dataclass(frozen=True)
class ModelSource:
    """A saved regressor, found but not loaded.

    Attributes:
        folder: Where it lies on this machine.
        title: Which version of which model it is, in one line.
        about: The same as data: model, version, dataset, split, peft, selection, val_rmse as far
            as they are known.
    """

    folder: Path
    title: str
    about: Mapping[str, Any]


def find_model(model: str, store: Path) -> ModelSource:
    """Finds a regressor by its folder or by its name in the registry of the store.

    Raises:
        ModelError: the folder holds no saved regressor, or there is no such registered model.
        TrackingError: there is no store.
    """
    if model.startswith(REGISTRY):
        return _in_registry(model, store)
    folder = Path(model)
    inside = folder / "artifacts" / "regressor"
    if (inside / "manifest.json").is_file():
        folder = inside  # a downloaded MLflow model
    if not (folder / "manifest.json").is_file():
        problem = "not a saved regressor: no manifest.json" if folder.exists() else "does not exist"
        raise ModelError(problem, where=model, hint=_hint(store))
    return _in_folder(folder, model)


def _in_registry(model: str, store: Path) -> ModelSource:
    from lipo_cli.tracking.store import open_store
    from lipo_cli.tracking.versions import is_registered, regressor_folder, show_version

    opened = open_store(store, create=False)
    if not is_registered(model):
        return _in_folder(regressor_folder(opened, model), model)
    version = show_version(opened, model)
    known = ("dataset", "split", "peft", "selection", "seed", "val_rmse")
    about = {
        "model": version.model,
        "version": version.version,
        "aliases": list(version.aliases),
        **{name: version.tags[name] for name in known if name in version.tags},
    }
    aliases = "".join(f", @{alias}" for alias in version.aliases)
    title = f"{version.model} version {version.version}{aliases}{_described(about)}"
    # By its number: the alias may be given to another version at any time.
    return ModelSource(regressor_folder(opened, version.uri), title, about)


def _in_folder(folder: Path, name: str) -> ModelSource:
    """Describes a folder by its manifest, which the regressor's loading checks in full."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        known = {key: manifest[key] for key in ("dataset", "peft", "val_rmse") if key in manifest}
    except (OSError, ValueError, TypeError):
        known = {}
    about = {"model": name, **known}
    return ModelSource(folder, f"{name}{_described(about)}", about)


def _described(about: Mapping[str, Any]) -> str:
    parts = [
        str(about.get("peft", "")),
        f"fine-tuned on {about['dataset']}" if "dataset" in about else "",
        f"split {about['split']}" if "split" in about else "",
        f"selection {about['selection']}" if "selection" in about else "",
        f"validation RMSE {short_number(about['val_rmse'])}" if "val_rmse" in about else "",
    ]
    said = ", ".join(part for part in parts if part)
    return f": {said}" if said else ""


def short_number(value: object) -> str:
    """Returns a few digits of a number that may be text; other text as it is."""
    try:
        return rmse_text(float(str(value)))
    except ValueError:
        return str(value)


def _hint(store: Path) -> str:
    """Says what could have been meant: the form of a registered model, and which there are."""
    from lipo_cli.tracking.store import open_store
    from lipo_cli.tracking.versions import FORMS, list_versions, what_there_is

    try:
        there = f"; {what_there_is(list_versions(open_store(store, create=False)))}"
    except LipoError:
        there = ""
    return f"name a folder that lipo saved, or a registered model as {FORMS}{there}"
