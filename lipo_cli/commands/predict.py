"""`lipo predict`: a table of molecules in, the same table with a prediction out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from lipo_cli.commands.options import DEFAULT_STORE, JsonOption, StoreOption, prepare_out
from lipo_cli.errors import SettingsError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from lipo_cli.commands.molecule_file import MoleculeFile
    from lipo_cli.commands.predict_io import Writer
    from lipo_cli.progress import Progress

    Compute = Callable[[list[str]], NDArray[np.float64]]

DEFAULT_MODEL = "models:/lipophilicity@champion"

_ENDS = ("std", "low", "high")

OnInvalid = Literal["error", "skip", "nan"]


def predict(
    file: Annotated[Path, typer.Argument(help="CSV or TSV file with a SMILES column (or .gz).")],
    model: Annotated[
        str,
        typer.Option(
            "--model",
            metavar="MODEL",
            help="A registered model, models:/NAME/VERSION or models:/NAME@ALIAS, or a folder.",
        ),
    ] = DEFAULT_MODEL,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="Write here (.csv, .tsv, .json, or .gz)."),
    ] = None,
    smiles_column: Annotated[
        str | None, typer.Option("--smiles-column", help="The column that holds the SMILES.")
    ] = None,
    column: Annotated[
        str, typer.Option("--column", help="The name of the column of predictions.")
    ] = "prediction",
    tta: Annotated[
        int | None,
        typer.Option(
            "--tta",
            metavar="K",
            min=1,
            max=100,
            help="SMILES of each molecule averaged. (default: as the model was measured)",
        ),
    ] = None,
    uncertainty: Annotated[
        bool,
        typer.Option(
            "--uncertainty",
            help="Add columns _std, _low and _high: the spread, and a calibrated 90 % interval.",
        ),
    ] = False,
    on_invalid: Annotated[
        OnInvalid,
        typer.Option(
            "--on-invalid",
            help="A row that holds no molecule: stop, leave it out, or leave its prediction empty.",
        ),
    ] = "error",
    device: Annotated[
        Literal["auto", "cpu", "cuda"],
        typer.Option("--device", help="Where to compute."),
    ] = "auto",
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
) -> None:
    """Predict the property of the molecules in a file.

    Prints the file's rows in their order with a column of predictions (raw units) added, or writes
    them to a file that appears only once it is whole. The file is checked to its end first, so that
    nothing is printed of one that is refused; neither it nor the result is ever held in memory.
    """
    from lipo_cli.commands.console import RichProgress, emit_json, say
    from lipo_cli.commands.model_source import find_model
    from lipo_cli.commands.molecule_file import MoleculeFile
    from lipo_cli.commands.predict_io import output

    if out is not None:
        prepare_out(out)
        if out.exists() and out.resolve() == file.resolve():
            raise SettingsError(f"{out} is the file that is read", where="--out")
    molecules = MoleculeFile(file, smiles_column)
    columns = [column, *[f"{column}_{end}" for end in _ENDS]] if uncertainty else [column]
    if taken := sorted(set(columns) & set(molecules.header)):
        raise SettingsError(
            f"{file} has a column {taken[0]!r} already",
            where="--column",
            hint="choose another name",
        )
    source = find_model(model, store)
    with RichProgress() as progress:
        n_rows = molecules.check(molecules=on_invalid == "error", progress=progress)
        compute = _predictor(source.folder, tta, uncertainty=uncertainty, device=device)
        say(f"model: {source.title}")
        with output(out, [*molecules.header, *columns], as_json=as_json) as writer:
            progress.start("predicting", n_rows, "molecules")
            counts, bad = _predict_all(
                molecules, compute, len(columns), writer, on_invalid, progress
            )
            progress.finish()
    if as_json and out is not None:
        result = {"file": str(file), "out": str(out), **counts, "invalid": bad}
        emit_json({"model": model, "predicted_by": source.about, **result})
    _say_result(file, model, counts, bad, out)


def _say_result(
    file: Path,
    model: str,
    counts: dict[str, int],
    bad: list[dict[str, int | str]],
    out: Path | None,
) -> None:
    from lipo_cli.commands.console import say
    from lipo_cli.commands.dataset_lines import tell_rows

    skipped = f", {counts['invalid_rows']:,} invalid" if bad else ""
    where = f": {out}" if out is not None else ""
    say(f"{counts['predicted']:,} molecules predicted by {model}{skipped}{where}")
    tell_rows(file, [(int(e["line"]), str(e["reason"])) for e in bad], counts["invalid_rows"])


_REMEMBERED = 1000
"""How many invalid rows are named in the result; a file may hold any number."""


def _predict_all(
    molecules: MoleculeFile,
    compute: Compute,
    n_columns: int,
    writer: Writer,
    on_invalid: OnInvalid,
    progress: Progress,
) -> tuple[dict[str, int], list[dict[str, int | str]]]:
    """Predicts chunk by chunk; returns the counts and the first invalid rows."""
    from lipo_cli.tracking.prediction import predict_columns

    counts = {"rows": 0, "predicted": 0, "invalid_rows": 0}
    bad: list[dict[str, int | str]] = []
    for chunk in molecules.chunks():
        invalid = [row for row in chunk if row.smiles is None]
        if invalid:
            progress.advance(len(invalid))
        smiles = [row.smiles for row in chunk]
        found = predict_columns(compute, smiles, n_columns=n_columns, on_done=progress.advance)
        for row, values in zip(chunk, found.tolist(), strict=True):
            if row.smiles is not None or on_invalid == "nan":
                writer.write(row, values)
        counts["rows"] += len(chunk)
        counts["predicted"] += len(chunk) - len(invalid)
        counts["invalid_rows"] += len(invalid)
        room = _REMEMBERED - len(bad)
        bad.extend({"line": row.line, "reason": row.reason} for row in invalid[:room])
    return counts, bad


def _predictor(folder: Path, views: int | None, *, uncertainty: bool, device: str) -> Compute:
    """Loads a model and returns what computes the columns [n, 1 or 4] of some molecules."""
    from lipo_cli.commands.console import warn
    from lipo_cli.model.ensemble import (
        calibrated_views,
        calibration_of,
        has_no_spread,
        load_predictor,
        predict_with_interval,
    )

    model = load_predictor(folder, device=device)
    if uncertainty:
        calibration_of(model)  # before anything is printed
        if views not in (None, known := calibrated_views(model)):
            warn(f"--tta {views}: the interval was calibrated on the mean of {known} SMILES")
        if has_no_spread(model, views):
            warn("one network and one SMILES of each molecule have no spread: the column _std is 0")
        return lambda smiles: predict_with_interval(model, smiles, views=views)
    return lambda smiles: model.predict(smiles, views=views)[:, None]
