"""Datasets by name or path: a primary set and, if there is one, the secondary set beside it."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lipo_cli.chem.columns import LABEL, has_column
from lipo_cli.chem.downloads import PRIMARY, SECONDARY, cache_folder, check_published, fetch
from lipo_cli.chem.tables import MoleculeTable, read_header, read_table
from lipo_cli.errors import DataError
from lipo_cli.settings import DataSettings

__all__ = [
    "DEMO_FOLDER",
    "Dataset",
    "fetch",
    "find_lipophilicity",
    "load_dataset",
    "read_selection",
]

NAMES = ("auto", "lipophilicity", "demo")
DEMO_FOLDER = Path(__file__).parent / "demo"
CORRUPTED = "corrupted"
"""The demo's column that says which secondary labels are wrong."""

GET_REAL_DATA = "for the real data: lipo data fetch, or --data-dir FOLDER"
GET_DEMO = "for the small built-in set: --dataset demo"


@dataclass(frozen=True)
class Dataset:
    """What a command works on.

    Attributes:
        name: `lipophilicity`, `demo`, or the name of the user's file.
        description: What it is, one line.
        hint: How to get the other one, of the two that lipo knows; empty for your own file.
        primary: The measured set that is split into train, validation and test.
        secondary: The pool to choose from, None without one.
    """

    name: str
    description: str
    hint: str
    primary: MoleculeTable
    secondary: MoleculeTable | None

    def label_name(self) -> str:
        """Returns what the labels are, for the axes of figures."""
        if self.name in ("lipophilicity", "demo"):
            return "logD"
        return self.primary.label_column or "label"

    @property
    def known_corruption(self) -> npt.NDArray[np.bool_] | None:
        """Which secondary rows are known to be wrong, shape [n]; None where nobody knows.

        For judging a ranking afterwards. No scorer may read it.
        """
        if self.secondary is None or CORRUPTED not in self.secondary.frame.columns:
            return None
        return np.array([flag == "1" for flag in self.secondary.frame[CORRUPTED]], dtype=bool)


def load_dataset(settings: DataSettings) -> Dataset:
    """Reads the primary and the secondary set that the settings name.

    `auto` is lipophilicity where it is on this machine, and the demo elsewhere.

    Raises:
        DataError: a file is missing, not the published one, or cannot be read as a table.
    """
    if settings.dataset == "demo":
        return _demo(settings)
    if settings.dataset in ("auto", "lipophilicity"):
        folder = find_lipophilicity(settings.data_dir)
        if folder is not None:
            return _with_warning(_lipophilicity(folder, settings), settings)
        if settings.dataset == "auto":
            return _with_warning(_demo(settings), settings)
        raise DataError(
            f"{PRIMARY.name} is not on this machine",
            where=_searched(settings.data_dir),
            hint=f"{GET_REAL_DATA}; {GET_DEMO}",
        )
    return _own_file(settings)


def read_selection(path: str | Path, settings: DataSettings) -> MoleculeTable:
    """Reads the chosen rows of a secondary set; those that `selected` rejects are passed over.

    Raises:
        DataError: the file cannot be read as a table, or no row of it is selected.
    """
    return _read_secondary(path, settings, selected_only=True)


def find_lipophilicity(data_dir: str | None) -> Path | None:
    """Returns the folder that holds the real data: `data_dir`, `LIPO_DATA_DIR`, the user cache.

    Raises:
        DataError: `data_dir` is given and does not hold it.
    """
    if data_dir is not None:
        if (Path(data_dir) / PRIMARY.name).is_file():
            return Path(data_dir)
        raise DataError(
            f"holds no {PRIMARY.name}",
            where=data_dir,
            hint=f"lipo data fetch --data-dir {data_dir} puts it there",
        )
    for folder in _places():
        if (folder / PRIMARY.name).is_file():
            return folder
    return None


def _places() -> list[Path]:
    given = os.environ.get("LIPO_DATA_DIR")
    return [*([Path(given)] if given else []), cache_folder()]


def _with_warning(dataset: Dataset, settings: DataSettings) -> Dataset:
    """Adds to the hint that `LIPO_DATA_DIR` was looked into in vain."""
    given = os.environ.get("LIPO_DATA_DIR")
    if settings.data_dir is not None or not given or (Path(given) / PRIMARY.name).is_file():
        return dataset
    warning = f"LIPO_DATA_DIR is {given}, which holds no {PRIMARY.name}"
    return replace(dataset, hint=f"{warning}; {dataset.hint}")


def _searched(data_dir: str | None) -> str:
    return data_dir or ", ".join(str(folder) for folder in _places())


def _lipophilicity(folder: Path, settings: DataSettings) -> Dataset:
    check_published(folder / PRIMARY.name, PRIMARY)
    primary = _read(folder / PRIMARY.name, settings)
    beside = folder / SECONDARY.name
    if settings.secondary is None and beside.is_file():
        check_published(beside, SECONDARY)
        secondary: MoleculeTable | None = _read_secondary(beside, settings, own=True)
    else:
        secondary = _given_secondary(settings)
    return Dataset(
        name="lipophilicity",
        description=f"{PRIMARY.what} ({folder})",
        hint=GET_DEMO,
        primary=primary,
        secondary=secondary,
    )


def _demo(settings: DataSettings) -> Dataset:
    secondary = _given_secondary(settings)
    if secondary is None:
        secondary = _read_secondary(DEMO_FOLDER / "secondary.csv", settings, own=True)
    return Dataset(
        name="demo",
        description="built-in molecules with a synthetic logD, two fifths of the secondary labels"
        " wrong on purpose",
        hint=GET_REAL_DATA,
        primary=_read(DEMO_FOLDER / "primary.csv", settings),
        secondary=secondary,
    )


def _own_file(settings: DataSettings) -> Dataset:
    path = Path(settings.dataset)
    if not path.exists() and path.name == settings.dataset and "." not in path.name:
        raise DataError(
            f"no dataset or file is called {settings.dataset!r}",
            hint=f"names: {', '.join(NAMES)}; or the path of a CSV or TSV file",
        )
    return Dataset(
        name=path.name,
        description=f"your file {path}",
        hint="",
        primary=_read(path, settings),
        secondary=_given_secondary(settings),
    )


def _given_secondary(settings: DataSettings) -> MoleculeTable | None:
    return None if settings.secondary is None else _read_secondary(settings.secondary, settings)


def _read(path: Path, settings: DataSettings) -> MoleculeTable:
    return read_table(
        path,
        smiles_column=settings.smiles_column,
        label_column=settings.label_column,
        on_invalid=settings.on_invalid,
        duplicates=settings.duplicates,
    )


def _read_secondary(
    path: str | Path, settings: DataSettings, *, own: bool = False, selected_only: bool = False
) -> MoleculeTable:
    """Reads a secondary set under the primary's column names, where those were given.

    SMILES are SMILES under any name. A label under another name may be another property, unless
    the set is the dataset's `own`, whose label is known to be the same one.
    """
    header = read_header(Path(path))
    smiles, label = settings.smiles_column, settings.label_column
    if label is not None and not has_column(header, label):
        if not own:
            raise DataError(
                f"has no column {label!r}, which {LABEL.flag} names for the primary set",
                where=path,
                hint=f"rename the column of the same property to {label!r}; "
                f"its columns are: {', '.join(header[:12])}",
            )
        label = None
    return read_table(
        path,
        smiles_column=smiles if smiles is not None and has_column(header, smiles) else None,
        label_column=label,
        on_invalid=settings.on_invalid,
        duplicates=settings.duplicates,
        selected_only=selected_only,
    )
