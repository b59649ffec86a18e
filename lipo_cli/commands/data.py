"""`lipo data`: fetch, show, split and audit molecules."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lipo_cli.commands import options as opt
from lipo_cli.commands.layers import file_layer, flags_layer

if TYPE_CHECKING:
    from lipo_cli.chem.datasets import Dataset
    from lipo_cli.settings import DataSettings

app = typer.Typer(no_args_is_help=True, help="Fetch, show, split and audit molecules.")


@app.command()
def fetch(
    name: Annotated[str, typer.Argument(help="The dataset.")] = "lipophilicity",
    data_dir: Annotated[
        Path | None,
        typer.Option("--data-dir", metavar="DIR", help="Where to. (default: the user cache)"),
    ] = None,
    as_json: opt.JsonOption = False,
) -> None:
    """Download the real data and check its checksums."""
    from lipo_cli.chem.downloads import SOURCES
    from lipo_cli.chem.downloads import fetch as download
    from lipo_cli.commands.console import RichProgress, emit_json, out

    with RichProgress() as progress:
        paths = download(name, progress, folder=data_dir)
    found = [
        {"file": str(path), "sha256": remote.sha256, "what": remote.what}
        for path, remote in zip(paths, SOURCES[name], strict=True)
    ]
    if as_json:
        emit_json({"dataset": name, "files": found})
        return
    for entry in found:
        out.print(f"{entry['file']}: {entry['what']}", soft_wrap=True, markup=False)


@app.command()
def show(
    dataset: opt.DatasetOption = None,
    secondary: opt.SecondaryOption = None,
    data_dir: opt.DataDirOption = None,
    smiles_column: opt.SmilesColumnOption = None,
    label_column: opt.LabelColumnOption = None,
    on_invalid: opt.OnInvalidOption = None,
    duplicates: opt.DuplicatesOption = None,
    split: opt.SplitOption = None,
    split_seed: opt.SplitSeedOption = None,
    fractions: opt.FractionsOption = None,
    split_file: opt.SplitFileOption = None,
    keep_stereo_groups: opt.KeepStereoGroupsOption = None,
    max_length: Annotated[
        int,
        typer.Option("--max-length", min=1, help="Tokens that the model reads; longer is cut."),
    ] = 202,
    as_json: opt.JsonOption = False,
) -> None:
    """Show counts, labels, split sizes and token lengths of a dataset."""
    settings = _settings(locals())
    from lipo_cli.chem.description import describe
    from lipo_cli.chem.overlap import drop_overlap
    from lipo_cli.chem.splits import make_split
    from lipo_cli.commands.console import emit_json
    from lipo_cli.commands.data_output import show_overview

    found = _load(settings)
    parts = make_split(found.primary, settings)
    tables = {"primary": describe(found.primary, max_length=max_length)}
    overlap = None
    if found.secondary is not None:
        tables["secondary"] = describe(found.secondary, max_length=max_length)
        overlap = drop_overlap(found.secondary, found.primary, parts)[1]
    if as_json:
        emit_json(
            {
                "dataset": found.name,
                "description": found.description,
                "split": _split_figures(parts),
                "overlap": None if overlap is None else overlap.as_dict(),
                **{name: table.as_dict() for name, table in tables.items()},
            }
        )
        return
    show_overview(tables, parts, overlap)


@app.command()
def split(
    out: Annotated[
        Path,
        typer.Option("--out", "-o", metavar="FILE", help="CSV or TSV to write, may be .gz."),
    ],
    dataset: opt.DatasetOption = None,
    data_dir: opt.DataDirOption = None,
    smiles_column: opt.SmilesColumnOption = None,
    label_column: opt.LabelColumnOption = None,
    on_invalid: opt.OnInvalidOption = None,
    duplicates: opt.DuplicatesOption = None,
    split: opt.SplitOption = None,
    split_seed: Annotated[
        int | None,
        typer.Option("--split-seed", "--seed", help="Seed of a seeded split. (default: 0)"),
    ] = None,
    fractions: opt.FractionsOption = None,
    split_file: opt.SplitFileOption = None,
    keep_stereo_groups: opt.KeepStereoGroupsOption = None,
    as_json: opt.JsonOption = False,
) -> None:
    """Write the primary set with a column `split`: train, val, test."""
    settings = _settings(locals())
    opt.prepare_out(out)
    from lipo_cli.chem.split_file import write_split
    from lipo_cli.chem.splits import make_split
    from lipo_cli.commands.console import emit_json
    from lipo_cli.commands.console import out as stdout

    primary = _load(settings, primary_only=True).primary
    parts = make_split(primary, settings)
    write_split(primary, parts, out)
    if as_json:
        emit_json({"file": str(out), **_split_figures(parts)})
        return
    stdout.print(
        f"{out}: {len(parts.train):,} train, {len(parts.val):,} validation,"
        f" {len(parts.test):,} test ({parts.name}, fingerprint {parts.fingerprint()})",
        soft_wrap=True,
        markup=False,
    )


@app.command()
def audit(
    dataset: opt.DatasetOption = None,
    secondary: opt.SecondaryOption = None,
    data_dir: opt.DataDirOption = None,
    smiles_column: opt.SmilesColumnOption = None,
    label_column: opt.LabelColumnOption = None,
    on_invalid: opt.OnInvalidOption = None,
    duplicates: opt.DuplicatesOption = None,
    split: opt.SplitOption = None,
    split_seed: opt.SplitSeedOption = None,
    fractions: opt.FractionsOption = None,
    split_file: opt.SplitFileOption = None,
    keep_stereo_groups: opt.KeepStereoGroupsOption = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the permutation tests.")] = 0,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with code 3 when the set is not fit for use.")
    ] = False,
    as_json: opt.JsonOption = False,
) -> None:
    """Ask a secondary set what it must be asked before it is scored."""
    settings = _settings(locals())
    from lipo_cli.chem.audit import audit_secondary
    from lipo_cli.chem.splits import make_split
    from lipo_cli.commands.console import emit_json
    from lipo_cli.commands.data_output import show_audit
    from lipo_cli.errors import DataError

    found = _load(settings)
    if found.secondary is None:
        raise DataError(
            "there is no secondary set to audit",
            where=found.name,
            hint="name one: --secondary FILE",
        )
    report = audit_secondary(
        found.secondary, found.primary, make_split(found.primary, settings), seed=seed
    )
    if as_json:
        emit_json(
            {"dataset": found.name, "secondary": str(found.secondary.path), **report.as_dict()}
        )
    else:
        show_audit(report)
    if strict and report.level == "fail":
        raise DataError(report.one_line)


def _settings(flags: Mapping[str, Any]) -> DataSettings:
    """Returns what the flags say, over the table [data] of `lipo.toml`: as a comparison has it."""
    from lipo_cli.settings import CompareSettings, DataSettings, build

    file = file_layer(None, CompareSettings).get("data", {})
    return build(DataSettings, file, flags_layer(DataSettings, flags))


def _load(settings: DataSettings, *, primary_only: bool = False) -> Dataset:
    """Loads the dataset and says on stderr which it is and what was left out of it."""
    from lipo_cli.chem.datasets import load_dataset
    from lipo_cli.commands.console import say, warn
    from lipo_cli.commands.dataset_lines import what_it_is

    found = load_dataset(settings)
    say(what_it_is(found))
    for table in (found.primary, None if primary_only else found.secondary):
        if table is not None and table.bad_rows:
            first = table.bad_rows[0]
            warn(
                f"{table.path.name}: {len(table.bad_rows):,} of {table.n_rows_read:,} rows left"
                f" out, the first at line {first.line}: {first.reason}"
            )
    return found


def _split_figures(parts: Any) -> dict[str, object]:
    return {
        "split": parts.name,
        "seed": parts.seed,
        "train": len(parts.train),
        "val": len(parts.val),
        "test": len(parts.test),
        "fingerprint": parts.fingerprint(),
    }
