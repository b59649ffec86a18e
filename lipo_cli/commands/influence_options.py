"""The options of influence functions."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from lipo_cli.errors import SettingsError

PANEL = "Influence"

Parameters = Annotated[
    Literal["all", "head", "output"] | None,
    typer.Option(
        "--parameters",
        help="What may move: all that was trained, the head, or its last map. (default: all)",
        rich_help_panel=PANEL,
    ),
]
Curvature = Annotated[
    Literal["gauss-newton", "hessian"] | None,
    typer.Option(
        "--curvature",
        help="Of the training loss. (default: gauss-newton)",
        rich_help_panel=PANEL,
    ),
]
Solver = Annotated[
    Literal["auto", "exact", "cg", "lissa", "ekfac"] | None,
    typer.Option(
        "--solver",
        help="auto: solved exactly where the gradients fit --table-gib in some parts, else LiSSA "
        "over batches; exact: that, or an error, the curvature of all train molecules; ekfac: "
        "block-diagonal curvature of linear maps, nothing to solve "
        "(pip install 'lipo\\[ekfac]'). (default: auto)",
        rich_help_panel=PANEL,
    ),
]
Damping = Annotated[
    float | None,
    typer.Option(
        "--damping",
        help="Added to the curvature, as a share of its largest eigenvalue. (default: 0.01)",
        rich_help_panel=PANEL,
    ),
]
Tolerance = Annotated[
    float | None,
    typer.Option(
        "--tolerance",
        help="Relative residual at which a solver stops. (default: 0.001)",
        rich_help_panel=PANEL,
    ),
]
CurvatureRows = Annotated[
    int | None,
    typer.Option(
        "--curvature-rows",
        help="Measure the curvature on this many train molecules. (default: all where "
        "--table-gib holds their gradients, else 1000)",
        rich_help_panel=PANEL,
    ),
]
TableGib = Annotated[
    float | None,
    typer.Option(
        "--table-gib",
        help="Disk that gradients may take at a time, for exact algebra. (default: 6)",
        rich_help_panel=PANEL,
    ),
]
Target = Annotated[
    Literal["validation", "test"] | None,
    typer.Option(
        "--target",
        help="The split whose loss is to fall. test LEAKS: the values are marked, and nothing may "
        "be chosen by them. (default: validation)",
        rich_help_panel=PANEL,
    ),
]
TargetRows = Annotated[
    str | None,
    typer.Option(
        "--target-rows",
        metavar="R,R,...",
        help="These data rows (from 0) of the primary file instead of the whole split; a column "
        "of values for each goes into by_target.csv.",
        rich_help_panel=PANEL,
    ),
]


def parse_rows(text: str) -> tuple[int, ...]:
    """Reads data rows, such as `12,40,77`.

    Raises:
        SettingsError: the text is no list of whole numbers.
    """
    try:
        return tuple(int(word) for word in text.split(","))
    except ValueError:
        raise SettingsError(
            f"{text!r} is no list of data rows", where="--target-rows", hint="for example 12,40,77"
        ) from None
