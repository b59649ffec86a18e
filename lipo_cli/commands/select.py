"""`lipo select`: from a value table to the rows to add."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lipo_cli.commands import options as opt
from lipo_cli.errors import DataError, SettingsError

if TYPE_CHECKING:
    import pandas as pd

    from lipo_cli.commands.select_source import ScoredFile
    from lipo_cli.valuation.selection import Selected


def select(
    values: Annotated[
        list[Path],
        typer.Argument(
            help="What `lipo score --out` wrote: its folder, or values.csv/.parquet. Several "
            "folders, of different methods, are compared."
        ),
    ],
    selection: Annotated[
        list[str],
        typer.Option(
            "--selection",
            "-s",
            help="tsds, tsds:positive, tsds:positive=Z, tsds:top=K, tsds:bottom=K, "
            "tsds:diverse=K/CAP (no two more similar than CAP); influence, knn or loo in the place "
            "of tsds: what gave the values; uncertain:top=K; random:k=K, all, none. Repeatable: "
            "the first is written, and all are compared.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="Write every row with `selected` and `reason`."),
    ] = None,
    secondary: Annotated[
        Path | None,
        typer.Option(
            "--secondary",
            metavar="FILE",
            help="The file that was scored, whose columns are kept. "
            "(default: the one named in the folder of the values)",
        ),
    ] = None,
    smiles_column: Annotated[
        str | None,
        typer.Option(
            "--smiles-column",
            metavar="NAME",
            help="Column of the SMILES in --secondary. (default: found by its usual names)",
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option("--seed", min=0, help="Seed of random choices, as in compare.")
    ] = 0,
    as_json: opt.JsonOption = False,
) -> None:
    """Choose secondary points by their values; say why each was taken or left.

    Each row keeps the columns of its file. Then come row (data rows from 0), line, the smiles and
    label that were scored (canonical, duplicates merged), value, standard_error, rank, selected,
    reason and chosen_on (the primary set and split whose validation molecules gave the values: on
    another split these may be test molecules, so that nothing is trained on them there); a column
    of the file that would be taken for one of these becomes file.NAME. Without --out, the chosen
    rows go to stdout as CSV.

    Several selections are compared by their overlap (Jaccard), and the values of several methods by
    their rank correlation.
    """
    import sys

    from lipo_cli.commands.console import emit_json, say, warn
    from lipo_cli.commands.select_source import find_source
    from lipo_cli.commands.select_tables import rank_correlations, read_tables, table_for
    from lipo_cli.valuation.selection import CHOSEN_ON, LEAKING, selection_rng
    from lipo_cli.valuation.selection_text import parse_selection

    rules = {text: parse_selection(text) for text in selection}
    if out is not None:
        opt.prepare_out(out)
    tables = read_tables(values)
    leaks = any(each.leaks for each in tables)
    if leaks:
        warn(LEAKING)
    for each in tables:
        for sentence in each.origin.said:
            say(f"{each.method}: {sentence}")
    valued = {text: table_for(text, rule, tables) for text, rule in rules.items()}
    n = len(tables[0].table)
    chosen = {
        text: rule.select(
            valued[text].scores(with_curve=rule.rule == "optimal"), n, selection_rng(rule, seed)
        )
        for text, rule in rules.items()
    }
    if leaks:
        chosen = {text: selected.leaking() for text, selected in chosen.items()}
    first, of_first = chosen[selection[0]], valued[selection[0]]
    marked = of_first.table.assign(selected=False, reason=list(first.reasons))
    marked.loc[first.positions, "selected"] = True
    if rules[selection[0]].needs_scores:
        if of_first.origin.scope is None:
            warn(
                "nothing here says on which split these values were set: on another one the rows "
                "are not refused, though its test molecules may have chosen them"
            )
        else:
            marked[CHOSEN_ON] = of_first.origin.scope
    source = find_source(of_first.path, secondary)
    if out is not None:
        _check_out(out, [each.path for each in tables], source)
    written = _with_file_columns(marked, source, smiles_column)
    for text, selected in chosen.items():
        say(f"{text}: {len(selected)} of {n} points")
    overlaps, ranks = _overlaps(chosen), rank_correlations(tables)
    for overlap in overlaps:
        say(f"{overlap['first']} and {overlap['second']}: Jaccard {overlap['jaccard']:.2f}")
    for pair in ranks:
        rank = "not defined" if pair["spearman"] is None else f"{pair['spearman']:.2f}"
        say(f"values of {pair['first']} and {pair['second']}: Spearman {rank}")
    if out is not None:
        _write(written, out)
        say(f"written: {out}")
    taken = written[marked["selected"]]
    if as_json:
        emit_json(
            {
                "selections": {text: s.positions.tolist() for text, s in chosen.items()},
                "rows": marked.loc[marked["selected"], "row"].tolist(),
                "chosen": taken.to_dict("records"),
                "overlaps": overlaps,
                "rank_correlations": ranks,
                "leaks": leaks,
            }
        )
    elif out is None:
        taken.to_csv(sys.stdout, index=False)


def _check_out(out: Path, values: list[Path], source: ScoredFile | None) -> None:
    """Checks that what is written replaces nothing that was read.

    Raises:
        SettingsError: it would, or the name asks for another format than CSV.
    """
    from lipo_cli.commands.select_source import SOURCE
    from lipo_cli.valuation.table import VALUE_FILES

    if out.suffix == ".parquet":
        raise SettingsError(f"{out}: the rows are written as CSV", where="--out")
    if source is not None and out.resolve() == source.path.resolve():
        raise SettingsError(f"{out} is the file that was scored", where="--out")
    folders = [path if path.is_dir() else path.parent for path in values]
    kept = [folder / name for folder in folders for name in (*VALUE_FILES, SOURCE)]
    if out.resolve() in {path.resolve() for path in (*values, *kept)}:
        raise SettingsError(
            f"{out} holds the values that are chosen by", where="--out", hint="take another name"
        )


def _overlaps(chosen: dict[str, Selected]) -> list[dict[str, Any]]:
    """Compares every pair that chose something, without the comparison, which would load torch."""
    from itertools import combinations

    from lipo_cli.valuation.agreement import jaccard

    taken = {text: selected.positions for text, selected in chosen.items()}
    return [
        {"first": a, "second": b, "jaccard": jaccard(taken[a], taken[b])}
        for a, b in combinations(taken, 2)
    ]


def _with_file_columns(
    table: pd.DataFrame, source: ScoredFile | None, smiles_column: str | None
) -> pd.DataFrame:
    from lipo_cli.commands.console import say
    from lipo_cli.commands.select_source import renamed_columns, with_file_columns

    if source is None:
        say("without the columns of the file that was scored: name it with --secondary FILE")
        return table
    joined = with_file_columns(table, source, smiles_column)
    if renamed := renamed_columns(joined):
        say(f"columns of {source.path.name} under another name: {', '.join(renamed)}")
    return joined


def _write(table: pd.DataFrame, path: Path) -> None:
    """Writes beside the file and renames at the end, so that no half file is left."""
    separator = "\t" if {".tsv", ".tab"} & set(path.suffixes) else ","
    # The suffix stays last: by it pandas knows that the file is to be packed.
    path = path.resolve() if path.is_file() else path  # a link stays one
    if path.exists() and not path.is_file():
        table.to_csv(path, sep=separator, index=False)  # a pipe or a device
        return
    beside = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        table.to_csv(beside, sep=separator, index=False)
        beside.replace(path)
    except OSError as error:
        raise DataError(f"cannot be written: {error.strerror}", where=path) from None
    finally:
        beside.unlink(missing_ok=True)
