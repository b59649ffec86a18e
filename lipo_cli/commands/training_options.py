"""Options that say how a model is fine-tuned, shared by the commands that train."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from lipo_cli.settings import Settings

_PANEL = "Fine-tuning"

Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        help="Pretrained model: `small` (shipped), a folder, or a hub name. (default: small)",
        rich_help_panel=_PANEL,
    ),
]
Epochs = Annotated[
    int | None, typer.Option("--epochs", help="Epochs at most.", rich_help_panel=_PANEL)
]
BatchSize = Annotated[
    int | None,
    typer.Option("--batch-size", help="Molecules per step. (default: 32)", rich_help_panel=_PANEL),
]
LearningRate = Annotated[
    float | None,
    typer.Option(
        "--learning-rate",
        "--lr",
        help="Peak learning rate. (default: the method's own)",
        rich_help_panel=_PANEL,
    ),
]
Patience = Annotated[
    int | None,
    typer.Option(
        "--patience",
        help="Epochs without a better validation RMSE before it stops. (default: 5)",
        rich_help_panel=_PANEL,
    ),
]
Randomise = Annotated[
    float | None,
    typer.Option(
        "--randomise",
        help="Share of training molecules written as random SMILES. (default: 0.5)",
        rich_help_panel=_PANEL,
    ),
]
MaxLength = Annotated[
    int | None,
    typer.Option(
        "--max-length",
        help="Longest molecule in tokens; longer ones are cut and counted. (default: 202)",
        rich_help_panel=_PANEL,
    ),
]
LoraRank = Annotated[
    int | None,
    typer.Option("--lora-rank", help="Rank of LoRA. (default: 8)", rich_help_panel=_PANEL),
]
Precision = Annotated[
    Literal["auto", "float32", "bf16"] | None,
    typer.Option(
        "--precision",
        help="auto: bf16 where the hardware multiplies it. (default: auto)",
        rich_help_panel=_PANEL,
    ),
]
Device = Annotated[
    Literal["auto", "cpu", "cuda"] | None,
    typer.Option("--device", help="Where to compute. (default: auto)", rich_help_panel=_PANEL),
]
ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="Settings: TOML, or the settings.json saved beside a result. Flags win over it.",
    ),
]


def training_layer(**flags: Any) -> dict[str, Any]:
    """Returns the flags that were given, as a layer of `TrainingSettings`."""
    return {name: value for name, value in flags.items() if value is not None}


def file_layer(config: Path | None, settings: type[Settings]) -> dict[str, Any]:
    """Reads `--config`, or `lipo.toml` of this directory, or nothing.

    `lipo.toml` serves compare, finetune and score: of its tables, a command takes those that it
    knows. A file named by `--config` is for this command, and must fit it whole.

    Raises:
        SettingsError: the file is missing or malformed, or has a name that no command knows.
    """
    from lipo_cli import settings as all_settings
    from lipo_cli.errors import SettingsError

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
    from lipo_cli.settings import DataSettings, TrainingSettings, TsdsSettings

    tables: dict[str, type[Settings]] = {
        "data": DataSettings,
        "training": TrainingSettings,
        "tsds": TsdsSettings,
    }
    found = [f"[{title}]" for title, kind in tables.items() if name in kind.model_fields]
    return f"it belongs under {' or '.join(found)}" if found else "see --help"
