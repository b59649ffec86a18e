"""The command line that makes a comparison again."""

from __future__ import annotations

import inspect
import shlex
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_origin, get_type_hints

from typer.models import OptionInfo

from lipo_cli.comparison.report_text import bare
from lipo_cli.settings import Settings

if TYPE_CHECKING:
    from lipo_cli.settings import CompareSettings

WITH_FILE = "lipo compare --config settings.json"
_FROM_MODELS = "training.model"
"""What the first `--model` of several sets too."""


def command_of(settings: CompareSettings) -> str:
    """Returns the shortest `lipo compare` that gives these settings; files without their folders.

    Args:
        settings: Resolved settings of a comparison.

    Returns:
        The flags that differ from the defaults; where a setting has no flag, `--config` with the
        file that stands beside the report.
    """
    from lipo_cli.commands.compare import compare  # which calls this

    options = _options(compare)
    words = ["lipo", "compare"]
    for path, value in _changed(settings):
        name = path.rpartition(".")[2]
        if path == "reference_peft" and value == settings.peft[0]:
            continue  # what it comes to where nobody names it
        if path == _FROM_MODELS and settings.models:
            continue
        if path == _FROM_MODELS:
            name = "models"
        if name not in options or value is None:
            return WITH_FILE
        words += list(_flag(options[name], name, value))
    return shlex.join(words)


def _changed(settings: Settings, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields the dotted names and values of the fields that are not at their defaults."""
    inner: list[tuple[str, Settings]] = []
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        if isinstance(value, Settings):
            inner.append((name, value))
        elif value != field.get_default(call_default_factory=True):
            yield f"{prefix}{name}", value
    for name, group in inner:
        yield from _changed(group, f"{prefix}{name}.")


def _options(command: Callable[..., None]) -> Mapping[str, tuple[str, ...]]:
    """Returns the option names of a command by parameter: the long one, and that of "no"."""
    hints = get_type_hints(command, include_extras=True)
    found = {}
    for name in inspect.signature(command).parameters:
        hint = hints[name]
        if get_origin(hint) is not Annotated:
            continue
        for extra in get_args(hint)[1:]:
            if isinstance(extra, OptionInfo):
                found[name] = _names(extra)
    return found


def _names(option: OptionInfo) -> tuple[str, ...]:
    # Typer keeps what stands first as `default`.
    declared = [text for text in (option.default, *(option.param_decls or ())) if text is not ...]
    names = [str(text) for text in declared if str(text).startswith("--")]
    return tuple(names[0].split("/")) if names else ()


def _flag(names: tuple[str, ...], name: str, value: Any) -> Iterator[str]:
    if isinstance(value, bool):
        yield names[0] if value else names[1]
    elif name == "fractions":
        yield from (names[0], ",".join(str(share) for share in value))
    elif isinstance(value, tuple | list):
        for item in value:
            yield from (names[0], bare(str(item)))
    else:
        yield from (names[0], bare(str(value)))
