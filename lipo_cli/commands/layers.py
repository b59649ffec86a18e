"""From a file of settings and the flags of a command to its settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from lipo_cli.commands.options import data_layer
from lipo_cli.errors import SettingsError

if TYPE_CHECKING:
    from lipo_cli.settings import Settings

S = TypeVar("S", bound="Settings")

_OF_A_SPLIT = ("split", "split_seed", "fractions", "split_file", "keep_stereo_groups")


def settings_from(
    kind: type[S], config: Path | None, flags: Mapping[str, Any], *presets: Mapping[str, Any]
) -> S:
    """Builds the settings of a command: defaults < `lipo.toml` < presets < `--config` < flags.

    What is typed wins over what lies in the folder, and a file of the user's over one of ours;
    with `--config`, `lipo.toml` is not read. What `lipo.toml` says of its dataset, or of its split,
    is not said of that which a preset names.

    Args:
        kind: The settings.
        config: The file that `--config` named.
        flags: The parameters of the command's function, its `locals()`; None means not given.
        *presets: Layers of the preset that `--preset` named, the last one winning.

    Raises:
        SettingsError: a name is unknown or a value makes no sense.
    """
    from lipo_cli.settings import build

    file = file_layer(config, kind)
    given = flags_layer(kind, flags)
    layers = (*presets, file) if config is not None else (_beside(file, presets, given), *presets)
    return build(kind, *layers, given)


def _beside(
    file: Mapping[str, Any], presets: Sequence[Mapping[str, Any]], flags: Mapping[str, Any]
) -> Mapping[str, Any]:
    """Returns the layer of `lipo.toml` without what is of a dataset or split that gives way.

    Args:
        file: The layer of `lipo.toml`.
        presets: The layers of the preset.
        flags: The layer of the flags, before which a preset gives way in turn.
    """
    from lipo_cli.settings import SETS_IN_A_FOLDER

    given = file.get("data")
    named = {k: v for p in presets for k, v in p.get("data", {}).items()}
    named = {k: v for k, v in named.items() if k not in flags.get("data", {})}
    if not isinstance(given, Mapping) or not {"dataset", "split"} & named.keys():
        return file
    if "dataset" in named:
        kept = {"data_dir"} if named["dataset"] in SETS_IN_A_FOLDER else set()
    else:
        kept = {name for name in given if name not in _OF_A_SPLIT}
    if gone := tuple(n for n, value in given.items() if n not in kept and value != named.get(n)):
        _say_once(f"lipo.toml: [data] {', '.join(gone)} not used: the preset names its own")
    return {**file, "data": {name: given[name] for name in given if name in kept}}


@cache
def _say_once(line: str) -> None:
    from lipo_cli.commands.console import say

    say(line)


def flags_layer(kind: type[Settings], flags: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the flags that were given, as a layer of these settings and of their tables.

    A flag goes to every field of its name: one `--seed` of `lipo score` seeds both the model and
    the sampling. What is no field (`out`, `as_json`) is the command's own business.
    """
    from lipo_cli.settings import DataSettings, Settings

    layer: dict[str, Any] = {}
    for name, field in kind.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, Settings):
            layer[name] = flags_layer(inner, flags)
        elif flags.get(name) is not None:
            layer[name] = flags[name]
    return data_layer(**layer) if kind is DataSettings else layer


def file_layer(config: Path | None, settings: type[Settings]) -> dict[str, Any]:
    """Reads `--config`, or `lipo.toml` of this directory, or nothing.

    `lipo.toml` serves compare, finetune, score and data: of its tables, a command takes those that
    it knows. A file named by `--config` is for this command, and must fit it whole.

    Raises:
        SettingsError: the file is missing or malformed, or has a name that no command knows.
    """
    from lipo_cli import settings as all_settings

    if config is not None:
        return all_settings.read_settings_file(config)
    default = Path("lipo.toml")
    if not default.is_file():
        return {}
    content = all_settings.read_settings_file(default)
    readers = (
        all_settings.CompareSettings,
        all_settings.FinetuneSettings,
        all_settings.ScoreSettings,
    )
    known = {name for kind in readers for name in kind.model_fields}
    if unknown := sorted(content.keys() - known):
        raise SettingsError(
            f"no command knows '{unknown[0]}'", where=default, hint=_table_of(unknown[0])
        )
    return {name: value for name, value in content.items() if name in settings.model_fields}


def _table_of(name: str) -> str:
    """Says in which table of `lipo.toml` a name that stands outside them belongs."""
    from lipo_cli.settings import (
        DataSettings,
        InfluenceSettings,
        KnnSettings,
        TrainingSettings,
        TsdsSettings,
        TuningSettings,
    )

    tables: dict[str, type[Settings]] = {
        "data": DataSettings,
        "training": TrainingSettings,
        "tsds": TsdsSettings,
        "influence": InfluenceSettings,
        "knn": KnnSettings,
        "tuning": TuningSettings,
    }
    found = [f"[{title}]" for title, kind in tables.items() if name in kind.model_fields]
    return f"it belongs under {' or '.join(found)}" if found else "see --help"
