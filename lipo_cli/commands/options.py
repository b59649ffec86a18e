"""Options that several commands share."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from lipo_cli.errors import SettingsError

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

_DATA = "Data"

DatasetOption = Annotated[
    str | None,
    typer.Option(
        "--dataset",
        "-d",
        metavar="NAME|FILE",
        help="`lipophilicity`, `demo`, the path of a CSV or TSV file (may be .gz), or `auto`:"
        " lipophilicity where it is on this machine, else demo. (default: auto)",
        rich_help_panel=_DATA,
    ),
]
SecondaryOption = Annotated[
    str | None,
    typer.Option(
        "--secondary",
        metavar="FILE",
        help="The secondary set to choose from. (default: the one of the dataset)",
        rich_help_panel=_DATA,
    ),
]
DataDirOption = Annotated[
    str | None,
    typer.Option(
        "--data-dir",
        metavar="DIR",
        help="Folder with the real data. (default: LIPO_DATA_DIR, then the user cache)",
        rich_help_panel=_DATA,
    ),
]
SmilesColumnOption = Annotated[
    str | None,
    typer.Option(
        "--smiles-column",
        metavar="NAME",
        help="Column of the SMILES. (default: found by its usual names)",
        rich_help_panel=_DATA,
    ),
]
LabelColumnOption = Annotated[
    str | None,
    typer.Option(
        "--label-column",
        metavar="NAME",
        help="Column of the measured property. (default: found by its usual names)",
        rich_help_panel=_DATA,
    ),
]
OnInvalidOption = Annotated[
    Literal["error", "skip"] | None,
    typer.Option(
        "--on-invalid",
        help="What a row that cannot be used does. (default: error)",
        rich_help_panel=_DATA,
    ),
]
DuplicatesOption = Annotated[
    Literal["mean", "keep"] | None,
    typer.Option(
        "--duplicates",
        help="Rows of one molecule: averaged into one, or kept. (default: mean)",
        rich_help_panel=_DATA,
    ),
]
SplitOption = Annotated[
    Literal["reference", "random", "scaffold", "scaffold_balanced", "column"] | None,
    typer.Option(
        "--split",
        help="How rows go to train, validation and test. (default: reference)",
        rich_help_panel=_DATA,
    ),
]
SplitSeedOption = Annotated[
    int | None,
    typer.Option(
        "--split-seed",
        help="Seed of the splits random and scaffold_balanced. (default: 0)",
        rich_help_panel=_DATA,
    ),
]
FractionsOption = Annotated[
    str | None,
    typer.Option(
        "--fractions",
        metavar="TRAIN,VAL,TEST",
        help="Shares of the splits other than reference and column. (default: 0.8,0.1,0.1)",
        rich_help_panel=_DATA,
    ),
]
SplitFileOption = Annotated[
    str | None,
    typer.Option(
        "--split-file",
        metavar="FILE",
        help="For --split column: a table with SMILES and split. (default: the dataset itself)",
        rich_help_panel=_DATA,
    ),
]
KeepStereoGroupsOption = Annotated[
    bool | None,
    typer.Option(
        "--keep-stereo-groups/--no-keep-stereo-groups",
        help="A random split keeps molecules that differ by stereo only together. (default: keep)",
        rich_help_panel=_DATA,
    ),
]


def data_layer(**flags: Any) -> dict[str, Any]:
    """Returns the flags that were given, as a layer of `DataSettings`.

    Raises:
        SettingsError: `fractions` is not three numbers.
    """
    layer = {name: value for name, value in flags.items() if value is not None}
    if "fractions" in layer:
        layer["fractions"] = _fractions(str(layer["fractions"]))
    if "split_file" in layer and "split" not in layer:
        # A split file is of no use to the other splits: naming one is choosing it.
        layer["split"] = "column"
    return layer


def _fractions(text: str) -> tuple[float, ...]:
    try:
        shares = tuple(float(part) for part in text.split(","))
    except ValueError:
        shares = ()
    if len(shares) != 3:
        raise SettingsError(
            f"{text!r} is not three shares", where="--fractions", hint="for example 0.8,0.1,0.1"
        )
    return shares


def prepare_out(path: Path, *, folder: bool = False) -> None:
    """Makes sure, before the work starts, that its result can be written.

    Creates the missing folders; with `folder`, that of `path` itself.

    Raises:
        SettingsError: the path is of the other kind, or nothing can be written there.
    """
    if folder and path.exists() and not path.is_dir():
        raise SettingsError(f"{path} is a file, not a folder", where="--out")
    if not folder and path.exists() and not path.is_file() and not path.is_dir():
        return  # a pipe or a device: written to as it stands
    if not folder and path.is_dir():
        raise SettingsError(f"{path} is a folder, not a file", where="--out")
    place = path if folder else path.parent
    try:
        place.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        raise SettingsError(f"{path} cannot be written: {error.strerror}", where="--out") from None
