"""Options of `lipo pretrain`. None means: not given, the settings' own default."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

_DATA = "Molecules"
_TRAINING = "Training"

File = Annotated[
    Path | None,
    typer.Argument(help="SMILES, one per line (.smi, .txt) or a CSV/TSV column; may be .gz."),
]
Out = Annotated[
    Path | None,
    typer.Option("--out", "-o", metavar="DIR", help="The checkpoint's folder.  \\[required]"),
]
Adapt = Annotated[
    bool | None,
    typer.Option(
        "--adapt",
        help="Go on with train + validation of a dataset; no FILE, and --from is needed.",
        show_default=False,
    ),
]
From = Annotated[
    str | None,
    typer.Option("--from", metavar="MODEL", help="Go on from this checkpoint (as --model)."),
]
Size = Annotated[
    Literal["tiny", "small", "base", "xl"] | None,
    typer.Option("--size", help="Size of a model from random weights.  \\[default: small]"),
]
SmilesColumn = Annotated[
    str | None,
    typer.Option("--smiles-column", help="Column of a CSV/TSV.", rich_help_panel=_DATA),
]
OnInvalid = Annotated[
    Literal["error", "skip"] | None,
    typer.Option(
        "--on-invalid",
        help="A line that holds no molecule.  \\[default: skip; with --adapt: error]",
        rich_help_panel=_DATA,
    ),
]
Exclude = Annotated[
    list[Path] | None,
    typer.Option(
        "--exclude",
        metavar="FILE",
        help="Leave out every molecule of this file, whatever its stereochemistry. Repeatable.",
        rich_help_panel=_DATA,
    ),
]
Validation = Annotated[
    float | None,
    typer.Option(
        "--validation",
        help="Held-out share.  \\[default: 1 %, 200 to 5,000 molecules]",
        rich_help_panel=_DATA,
    ),
]
Limit = Annotated[
    int | None,
    typer.Option("--limit", help="Read this many lines only.", rich_help_panel=_DATA),
]
Objective = Annotated[
    Literal["mlm", "descriptors", "both"] | None,
    typer.Option(
        "--objective",
        help="Masked tokens, RDKit descriptors, or both.  \\[default: both; with --adapt: mlm]",
        rich_help_panel=_TRAINING,
    ),
]
DescriptorWeight = Annotated[
    float | None,
    typer.Option(
        "--descriptor-weight",
        help="Weight of the descriptor loss.  \\[default: 3]",
        rich_help_panel=_TRAINING,
    ),
]
Clean = Annotated[
    float | None,
    typer.Option(
        "--clean",
        help="With both: share of molecules shown whole.  \\[default: 0.5]",
        rich_help_panel=_TRAINING,
    ),
]
Mask = Annotated[
    float | None,
    typer.Option(
        "--mask",
        help="Share of tokens to predict.  \\[default: 0.2]",
        rich_help_panel=_TRAINING,
    ),
]
Randomise = Annotated[
    float | None,
    typer.Option(
        "--randomise",
        help="Share of molecules written as random SMILES.  \\[default: 0.5]",
        rich_help_panel=_TRAINING,
    ),
]
Epochs = Annotated[
    int | None,
    typer.Option(
        "--epochs",
        help="Passes over the molecules.  \\[default: 1; with --adapt: 10]",
        rich_help_panel=_TRAINING,
    ),
]
Steps = Annotated[
    int | None,
    typer.Option("--steps", help="Optimiser steps, not epochs.", rich_help_panel=_TRAINING),
]
MaxMinutes = Annotated[
    float | None,
    typer.Option(
        "--max-minutes",
        help="Pause after this time; the same command goes on.",
        rich_help_panel=_TRAINING,
    ),
]
BatchSize = Annotated[
    int | None,
    typer.Option(
        "--batch-size",
        help="Molecules per batch.  \\[default: 128; with --adapt: 32]",
        rich_help_panel=_TRAINING,
    ),
]
Accumulate = Annotated[
    int | None,
    typer.Option("--accumulate", help="Batches per step.", rich_help_panel=_TRAINING),
]
LearningRate = Annotated[
    float | None,
    typer.Option(
        "--learning-rate",
        "--lr",
        help="Peak learning rate.  \\[default: by size; 2e-4 with --from, 5e-5 with --adapt]",
        rich_help_panel=_TRAINING,
    ),
]
Decay = Annotated[
    Literal["cosine", "linear"] | None,
    typer.Option(
        "--decay", help="How it falls to zero.  \\[default: cosine]", rich_help_panel=_TRAINING
    ),
]
Warmup = Annotated[
    float | None,
    typer.Option(
        "--warmup", help="Share of steps to its peak.  \\[default: 0.04]", rich_help_panel=_TRAINING
    ),
]
Dropout = Annotated[
    float | None,
    typer.Option("--dropout", help="Dropout between layers.", rich_help_panel=_TRAINING),
]
MaxLength = Annotated[
    int | None,
    typer.Option(
        "--max-length",
        help="Longest molecule in tokens; longer ones are left out.  \\[default: 202]",
        rich_help_panel=_TRAINING,
    ),
]
CheckpointEvery = Annotated[
    int | None,
    typer.Option(
        "--checkpoint-every",
        help="Steps between checkpoints.  \\[default: 500]",
        rich_help_panel=_TRAINING,
    ),
]
EvaluateEvery = Annotated[
    int | None,
    typer.Option(
        "--evaluate-every",
        help="Steps between validations.  \\[default: 40 in a run]",
        rich_help_panel=_TRAINING,
    ),
]
Workers = Annotated[
    int | None,
    typer.Option("--workers", help="Processes that prepare molecules.", rich_help_panel=_TRAINING),
]
Half = Annotated[
    bool | None,
    typer.Option("--half", help="Save half-precision weights.", show_default=False),
]
Seed = Annotated[int | None, typer.Option("--seed", help="Seed.  \\[default: 0]")]
Precision = Annotated[
    Literal["auto", "float32", "bf16"] | None,
    typer.Option(
        "--precision",
        help="auto: bf16 where the hardware multiplies it.  \\[default: auto]",
        rich_help_panel=_TRAINING,
    ),
]
Device = Annotated[
    Literal["auto", "cpu", "cuda"] | None,
    typer.Option(
        "--device", help="Where to compute.  \\[default: auto]", rich_help_panel=_TRAINING
    ),
]
Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="Settings: TOML, or `settings` of a pretrain.json as JSON. Flags win over it.",
    ),
]
Track = Annotated[
    bool, typer.Option("--track/--no-track", help="Log parameters and curves to MLflow.")
]
