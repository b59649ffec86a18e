"""`lipo select`: from a value table to the rows to add."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lipo_cli.commands import options as opt
from lipo_cli.errors import DataError

if TYPE_CHECKING:
    import pandas as pd


def select(
    values: Annotated[
        Path,
        typer.Argument(help="What `lipo score --out` wrote: its folder, or values.csv/.parquet."),
    ],
    selection: Annotated[
        list[str],
        typer.Option(
            "--selection",
            "-s",
            help="tsds, tsds:positive, tsds:positive=Z, tsds:top=K, tsds:bottom=K, random:k=K, "
            "all, none. Repeatable: the first is written, and all are compared.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="Write every row with `selected` and `reason`."),
    ] = None,
    seed: Annotated[
        int, typer.Option("--seed", min=0, help="Seed of random choices, as in compare.")
    ] = 0,
    as_json: opt.JsonOption = False,
) -> None:
    """Choose secondary points by their values; say why each was taken or left.

    Without --out, the chosen rows go to stdout as CSV.
    """
    import sys

    import numpy as np

    from lipo_cli.commands.console import emit_json, say
    from lipo_cli.comparison.summary import selection_overlaps
    from lipo_cli.valuation.removal import peak_of
    from lipo_cli.valuation.selection import PointScores, parse_selection, selection_rng
    from lipo_cli.valuation.table import read_curve, read_values

    rules = {text: parse_selection(text) for text in selection}
    if out is not None:
        opt.prepare_out(out)
    table = read_values(values)
    folder = values if values.is_dir() else values.parent
    curve = folder / "removal_curve.csv"
    scores = PointScores(
        table["value"].to_numpy(),
        table["standard_error"].to_numpy(),
        peak_of(read_curve(curve)) if curve.is_file() else None,
    )
    chosen = {
        text: rule.select(scores, len(table), selection_rng(rule, seed))
        for text, rule in rules.items()
    }
    first = chosen[selection[0]]
    taken = np.zeros(len(table), dtype=bool)
    taken[first.positions] = True
    written = table.assign(selected=taken, reason=list(first.reasons))
    for text, selected in chosen.items():
        say(f"{text}: {len(selected)} of {len(table)} points")
    overlaps = selection_overlaps({text: s.positions for text, s in chosen.items()})
    for overlap in overlaps:
        say(f"{overlap.first} and {overlap.second}: Jaccard {overlap.jaccard:.2f}")
    if out is not None:
        _write(written, out)
        say(f"written: {out}")
    if as_json:
        emit_json(
            {
                "selections": {text: s.positions.tolist() for text, s in chosen.items()},
                "rows": written.loc[taken, "row"].tolist(),
                "overlaps": [vars(overlap) for overlap in overlaps],
            }
        )
    elif out is None:
        written[taken].to_csv(sys.stdout, index=False)


def _write(table: pd.DataFrame, path: Path) -> None:
    """Writes beside the file and renames at the end, so that no half file is left."""
    # The suffix stays last: by it pandas knows that the file is to be packed.
    beside = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        table.to_csv(beside, index=False)
        beside.replace(path)
    except OSError as error:
        raise DataError(f"cannot be written: {error.strerror}", where=path) from None
    finally:
        beside.unlink(missing_ok=True)
