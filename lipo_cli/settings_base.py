"""What all settings have in common, and how they are built from files and flags."""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lipo_cli.errors import SettingsError

Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
"""The range that NumPy, scikit-learn and torch all take."""


class Settings(BaseModel):
    """The base of all settings."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def fingerprint(self, **more: object) -> str:
        """Returns 16 hex digits that name these settings and whatever else decides the result."""
        content = {"settings": self.model_dump(mode="json"), **more}
        text = json.dumps(content, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def flat(self) -> dict[str, str]:
        """Returns the settings as MLflow parameters: dotted names, text values."""
        return dict(_flatten(self.model_dump(mode="json")))


def _flatten(content: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    for key, value in content.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            pairs.extend(_flatten(value, f"{name}."))
        else:
            pairs.append((name, value if isinstance(value, str) else json.dumps(value)))
    return pairs


S = TypeVar("S", bound=Settings)


def build(cls: type[S], *layers: Mapping[str, Any]) -> S:
    """Builds settings from layers of nested values, the last one winning.

    Raises:
        SettingsError: a name is unknown or a value makes no sense.
    """
    content: dict[str, Any] = {}
    for layer in layers:
        content = _merge(content, layer)
    try:
        return cls.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        # The place in a list is no name that anyone typed; what stands there is shown.
        parts = [str(part) for part in first["loc"] if not isinstance(part, int)]
        name = ".".join(parts) or None  # a rule about several says which, itself
        if "error" in (context := first.get("ctx", {})):
            # A validator of ours: it says what is wrong itself.
            raise SettingsError(str(context["error"]), where=name, hint="see --help") from None
        what = f"{first['msg']} (given: {first['input']!r})"
        if first["type"] == "extra_forbidden":
            what = "there is no setting of this name (in lipo.toml, or the file of --config)"
        raise SettingsError(what, where=name, hint="see --help") from None


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        if isinstance(value, Mapping) and isinstance(merged.get(key), Mapping):
            merged[key] = _merge(merged[key], value)
        else:
            merged[key] = value
    return merged


def read_settings_file(path: Path) -> dict[str, Any]:
    """Reads a TOML file (`lipo.toml`, a preset) or the JSON saved beside a result.

    Raises:
        SettingsError: the file is missing or is not what its name says.
    """
    try:
        text = path.read_text(encoding="utf-8")
        loaded = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError("cannot read the settings", where=path, hint=str(error)) from None
    except (json.JSONDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"not valid: {error}", where=path) from None
    if not isinstance(loaded, dict):
        raise SettingsError("settings must be a table of names and values", where=path)
    return loaded
