"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

StoreOption = Annotated[
    Path,
    typer.Option(
        "--store",
        metavar="DIR",
        envvar="LIPO_STORE",
        help="Folder of the MLflow store. MLFLOW_TRACKING_URI wins when it is set.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]

DEFAULT_STORE = Path("mlruns")
