"""Options that say how a model is fine-tuned, shared by the commands that train."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

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
        help="Epochs without a better validation RMSE before it stops. (default: it does not)",
        rich_help_panel=_PANEL,
    ),
]
EqualSteps = Annotated[
    bool | None,
    typer.Option(
        "--equal-steps/--no-equal-steps",
        help="An epoch takes as many rows as primary train has, dealt out in turn from all that "
        "is trained on: more data take no more steps. Off: an epoch is all rows. (default: on in "
        "`lipo compare`, off in `lipo finetune`)",
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
Averaging = Annotated[
    float | None,
    typer.Option(
        "--averaging",
        help="Decay of the weights' moving average; 0: none. (default: 0.99)",
        rich_help_panel=_PANEL,
    ),
]
Tta = Annotated[
    int | None,
    typer.Option(
        "--tta",
        metavar="K",
        help="SMILES of a molecule averaged at prediction, weighted as in training. (default: 1)",
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
    typer.Option("--lora-rank", help="Rank of LoRA. (default: 32)", rich_help_panel=_PANEL),
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
