"""The options that `lipo compare` alone has."""

from __future__ import annotations

from typing import Annotated

import typer

Selection = Annotated[
    list[str] | None,
    typer.Option(
        "--selection",
        "-s",
        help="Which secondary points join training: none, all, random:k=K, tsds, tsds:positive, "
        "tsds:top=K, tsds:bottom=K, tsds:diverse=K/CAP (no two more similar than CAP); influence, "
        "knn or loo in the place of tsds; uncertain:top=K. Repeatable. "
        "(default: tsds, influence and knn)",
    ),
]
Peft = Annotated[
    list[str] | None,
    typer.Option(
        "--peft",
        "-p",
        help="Fine-tuning method: full, bitfit, lora, ia3. Repeatable. (default: all four)",
    ),
]
Models = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        help="Pretrained model: `small` (shipped), a folder, or a hub name. Repeatable: the same "
        "cells with each, the differences to the first. (default: small)",
    ),
]
Seeds = Annotated[
    int | None,
    typer.Option("--seeds", help="Seeds per cell; one seed proves little. (default: 1)"),
]
Preset = Annotated[
    str | None,
    typer.Option(
        "--preset",
        metavar="NAME",
        help="A recipe: quick (two minutes), reference (the published grid by our protocol), seed "
        "(the published tables by their recipe, beside their numbers). It wins over lipo.toml; "
        "--config and flags win over it.",
    ),
]
Budget = Annotated[
    float | None,
    typer.Option(
        "--budget",
        metavar="MINUTES",
        help="Run what fits into this time by the rate measured here: fewer seeds, then methods, "
        "then selections; the controls stay. What was left out is said.",
    ),
]


Jobs = Annotated[
    int,
    typer.Option(
        "--jobs",
        "-j",
        min=1,
        help="Cells trained side by side, each in a process with its share of the cores and a "
        "gigabyte or two of memory: for machines with more cores than one small model keeps busy.",
    ),
]
Splits = Annotated[
    int | None,
    typer.Option(
        "--splits",
        help="Repeat everything on this many splits, of seeds from --split-seed on; needs --split "
        "random or scaffold_balanced. (default: 1)",
    ),
]
ModelName = Annotated[
    str | None,
    typer.Option(
        "--model-name",
        metavar="NAME",
        help="Register the best model under this name: models:/NAME@champion. (default: "
        "lipophilicity)",
    ),
]
