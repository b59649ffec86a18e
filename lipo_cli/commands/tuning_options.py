"""Options of tuning, shared by the commands that tune."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from lipo_cli.errors import SettingsError

if TYPE_CHECKING:
    from lipo_cli.settings import Peft, TuningSettings

STORAGE_VARIABLE = "LIPO_TUNE_STORAGE"
_PANEL = "Tuning"

Trials = Annotated[
    int | None,
    typer.Option(
        "--tune",
        metavar="N",
        help="Search learning rate and LoRA rank first, in N trials judged by validation RMSE; the "
        "settings as they stand are the first. Killed, the same command goes on. (default: none)",
        rich_help_panel=_PANEL,
    ),
]
Also = Annotated[
    list[str] | None,
    typer.Option(
        "--tune-also",
        metavar="NAME",
        help="Search this, too: lora_alpha, lora_dropout, dropout, weight_decay. Repeatable.",
        rich_help_panel=_PANEL,
    ),
]
Storage = Annotated[
    str | None,
    typer.Option(
        "--tune-storage",
        metavar="URL",
        help="Keep the trials in this database, which several machines may share: "
        f"postgresql://USER:PASSWORD@HOST/NAME (pip install 'lipo\\[postgres]'). "
        f"{STORAGE_VARIABLE} in the environment hides the password from the list of processes. "
        "(default: a journal file in tuning/ of the store)",
        rich_help_panel=_PANEL,
    ),
]


def check_tuning(
    tuning: TuningSettings, methods: Sequence[Peft], also: Sequence[str] | None, storage: str | None
) -> str | None:
    """Checks the options of tuning before the work starts; returns the database, if one is meant.

    Raises:
        SettingsError: an option would have no effect, or the address is none.
    """
    if tuning.trials is None:
        for flag, given in (("--tune-also", also), ("--tune-storage", storage)):
            if given:
                raise SettingsError("nothing is tuned", where=flag, hint="give --tune N, too")
        return None
    # Only now: they import torch, and what is wrong with the data should be said at once.
    from lipo_cli.comparison.tuning_space import has
    from lipo_cli.comparison.tuning_storage import check_url

    for name in also or ():
        if not any(has(peft, name) for peft in methods):
            raise SettingsError(
                f"no method that is compared here has '{name}': {', '.join(methods)}",
                where="--tune-also",
            )
    url = storage or os.environ.get(STORAGE_VARIABLE, "").strip() or None
    return check_url(url) if url is not None else None
