"""Recipes by name: TOML files beside this one, each a layer of settings with a comment per key.

A preset is what `--config` could name, shipped with the package. `seed` is more than a layer: its
tables `[task1]`, `[task2]`, ... are the comparisons that one command runs in turn.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lipo_cli.errors import SettingsError
from lipo_cli.settings_base import read_settings_file

FOLDER = Path(__file__).parent
_TASK = "task"
_FIGURES = "_figures"
"""Ends the names of files that hold numbers, not settings."""


@dataclass(frozen=True)
class Preset:
    """A recipe.

    Attributes:
        name: What `--preset` names.
        layer: Settings of one comparison, as a layer of nested values.
        tasks: Further layers by name, one for each comparison that is run in turn; empty where the
            preset is a single comparison.
        adapt: How the pretrained model is adapted to the molecules first; empty: it is not.
    """

    name: str
    layer: dict[str, Any]
    tasks: dict[str, dict[str, Any]] = field(default_factory=dict)
    adapt: dict[str, Any] = field(default_factory=dict)


def preset_names() -> list[str]:
    """Returns the names that `--preset` takes."""
    return sorted(p.stem for p in FOLDER.glob("*.toml") if not p.stem.endswith(_FIGURES))


def read_preset(name: str) -> Preset:
    """Reads a preset.

    Raises:
        SettingsError: there is none of that name.
    """
    if name not in preset_names():
        raise SettingsError(
            f"no preset is called {name!r}",
            where="--preset",
            hint=f"there are: {', '.join(preset_names())}",
        )
    content = read_settings_file(FOLDER / f"{name}.toml")
    adapt = content.pop("adapt", {})
    tasks = {key: content.pop(key) for key in sorted(content) if key.startswith(_TASK)}
    return Preset(name, content, tasks, adapt)
