"""`lipo predict`: a table of molecules in, the same table with a prediction out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from lipo_cli.commands.options import DEFAULT_STORE, JsonOption, StoreOption
from lipo_cli.errors import DataError, SettingsError

if TYPE_CHECKING:
    from lipo_cli.commands.predict_io import MoleculeFile, Row, Writer
    from lipo_cli.progress import Progress
    from lipo_cli.tracking.prediction import Predictor

DEFAULT_MODEL = "models:/lipophilicity@champion"

OnInvalid = Literal["error", "skip", "nan"]


def predict(
    file: Annotated[Path, typer.Argument(help="CSV or TSV file with a SMILES column (or .gz).")],
    model: Annotated[
        str,
        typer.Option(
            "--model", metavar="MODEL", help="A registered model models:/NAME@ALIAS, or a folder."
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
    on_invalid: Annotated[
        OnInvalid,
        typer.Option(
            "--on-invalid",
            help="A row that holds no molecule: stop, leave it out, or leave its prediction empty.",
        ),
    ] = "error",
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
) -> None:
    """Predict the property of the molecules in a file.

    Prints the file's rows in their order with a column of predictions (raw units) added, or writes
    them to a file that appears only once it is whole.
    """
    from lipo_cli.commands.console import RichProgress, emit_json, say
    from lipo_cli.commands.predict_io import MoleculeFile, output

    if out is not None and out.exists() and out.resolve() == file.resolve():
        raise SettingsError("is the file that is read", where=f"--out {out}", hint="name another")
    molecules = MoleculeFile(file, smiles_column)
    if column in molecules.header:
        raise SettingsError(
            f"{file} has a column {column!r} already", where="--column", hint="choose another name"
        )
    regressor = _load(model, store)
    with (
        RichProgress() as progress,
        output(out, molecules.header, column, as_json=as_json) as writer,
    ):
        counts, bad = _predict_all(molecules, regressor, writer, on_invalid, progress)
    if as_json and out is not None:
        emit_json({"model": model, "file": str(file), "out": str(out), **counts, "invalid": bad})
    skipped = f", {counts['invalid_rows']:,} invalid" if bad else ""
    say(f"{counts['predicted']:,} molecules predicted by {model}{skipped}")
    for entry in bad[:5]:
        say(f"  {file}:{entry['line']}: {entry['reason']}")
    if len(bad) > 5:
        say(f"  and {counts['invalid_rows'] - 5:,} more")


_REMEMBERED = 1000
"""How many invalid rows are named in the result; a file may hold any number."""


def _predict_all(
    molecules: MoleculeFile,
    regressor: Predictor,
    writer: Writer,
    on_invalid: OnInvalid,
    progress: Progress,
) -> tuple[dict[str, int], list[dict[str, int | str]]]:
    counts = {"rows": 0, "predicted": 0, "invalid_rows": 0}
    bad: list[dict[str, int | str]] = []
    progress.start("predicting", None, "molecules")
    for chunk in molecules.chunks():
        invalid = [row for row in chunk if row.smiles is None]
        if invalid and on_invalid == "error":
            raise DataError(
                invalid[0].reason,
                where=f"{molecules.path}:{invalid[0].line}",
                hint="--on-invalid skip leaves such rows out, nan leaves the prediction empty",
            )
        _write_chunk(chunk, regressor, writer, keep_invalid=on_invalid == "nan")
        counts["rows"] += len(chunk)
        counts["predicted"] += len(chunk) - len(invalid)
        counts["invalid_rows"] += len(invalid)
        room = _REMEMBERED - len(bad)
        bad.extend({"line": row.line, "reason": row.reason} for row in invalid[:room])
        progress.advance(len(chunk))
    progress.finish()
    return counts, bad


def _write_chunk(
    chunk: list[Row], regressor: Predictor, writer: Writer, *, keep_invalid: bool
) -> None:
    from lipo_cli.tracking.prediction import predict_canonical

    found = predict_canonical(regressor, [row.smiles for row in chunk])
    for row, value in zip(chunk, found, strict=True):
        if row.smiles is not None or keep_invalid:
            writer.write(row, float(value))


def _load(model: str, store: Path) -> Predictor:
    """Loads a regressor from a folder, or from the registry of the store."""
    if model.startswith("models:/"):
        from lipo_cli.tracking.registry import regressor_folder
        from lipo_cli.tracking.store import open_store

        folder = regressor_folder(open_store(store, create=False), model)
    else:
        folder = Path(model)
        inside = folder / "artifacts" / "regressor"
        if (inside / "manifest.json").is_file():
            folder = inside  # a downloaded MLflow model
    from lipo_cli.model.regressor import Regressor

    return Regressor.load(folder)
