"""`lipo report`: the page of a comparison, made again from its MLflow run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from lipo_cli.commands.options import DEFAULT_STORE, JsonOption, StoreOption, prepare_out
from lipo_cli.errors import SettingsError


def report(
    run: Annotated[
        str | None,
        typer.Argument(
            metavar="[RUN]",
            help="The comparison's run in MLflow. (default: the one that ended last)",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", metavar="FILE", help="The page. (default: lipo-report-RUN.html here)"
        ),
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
) -> None:
    """Make the report of a comparison again, from what its run has kept.

    One HTML file that needs nothing beside it and no network. `lipo compare` writes the same page
    into the folder of its result and into its run.
    """
    if out is not None:
        prepare_out(out)  # before what takes seconds to import
    import tempfile

    from lipo_cli.commands.console import emit_json, say
    from lipo_cli.comparison.report_html import make_report
    from lipo_cli.tracking.comparisons import comparison_files, find_comparison
    from lipo_cli.tracking.store import open_store

    found = find_comparison(open_store(store, create=False), run)
    path = out or Path(f"lipo-report-{found.run_id[:8]}.html")
    with tempfile.TemporaryDirectory() as scratch:
        page = make_report(*comparison_files(found, Path(scratch)), where=f"run {found.run_id}")
    _write(page.encode(), path)
    if as_json:
        emit_json({"run_id": found.run_id, "name": found.name, "out": str(path)})
        return
    say(f"the page of {found.name} (run {found.run_id}), to open in a browser:")
    typer.echo(path)


def _write(page: bytes, path: Path) -> None:
    """Writes beside the file and renames at the end, so that no half page is left."""
    path = path.resolve() if path.is_file() else path  # a link stays one
    beside = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        if path.exists() and not path.is_file():
            path.write_bytes(page)  # a pipe or a device
            return
        beside.write_bytes(page)
        beside.replace(path)
    except OSError as error:
        raise SettingsError(f"{path} cannot be written: {error.strerror}", where="--out") from None
    finally:
        beside.unlink(missing_ok=True)
