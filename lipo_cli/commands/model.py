"""`lipo model`: the registered models and the evidence for them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lipo_cli.commands.options import DEFAULT_STORE, JsonOption, StoreOption, prepare_out
from lipo_cli.errors import SettingsError

app = typer.Typer(
    no_args_is_help=True,
    help="Look at the registered models, choose the champion, take one along as a folder.",
)

DEFAULT_MODEL = "models:/lipophilicity@champion"

ModelArgument = Annotated[
    str, typer.Argument(help="models:/NAME/VERSION or models:/NAME@ALIAS, or without `models:/`.")
]


@app.command("list")
def list_models(
    name: Annotated[
        str | None, typer.Argument(help="Only this registered model.", show_default=False)
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
) -> None:
    """List the registered models and their versions."""
    from lipo_cli.commands.console import emit_json, out, say
    from lipo_cli.commands.model_output import version_as_dict, versions_table
    from lipo_cli.tracking.store import open_store
    from lipo_cli.tracking.versions import list_versions

    versions = list_versions(open_store(store, create=False), name)
    if as_json:
        emit_json([version_as_dict(version) for version in versions])
    elif versions:
        out.print(versions_table(versions))
    else:
        say("no model is registered yet; `lipo compare` registers its best one")


@app.command("show")
def show_model(
    model: ModelArgument = DEFAULT_MODEL,
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
) -> None:
    """Show one registered model: where it came from and what speaks for it.

    RMSEs are in the unit of the label; the difference is that of the mean test RMSE to the control.
    """
    from lipo_cli.commands.console import emit_json, out
    from lipo_cli.commands.model_output import evidence_as_dict, evidence_table
    from lipo_cli.tracking.evidence import evidence_for
    from lipo_cli.tracking.store import open_store

    opened = open_store(store, create=False)
    content = evidence_as_dict(evidence_for(opened, model), store if opened.root else None)
    if as_json:
        emit_json(content)
    else:
        out.print(evidence_table(content))


@app.command("promote")
def promote_model(
    model: ModelArgument,
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
) -> None:
    """Give a version the title `champion`, whatever it was measured on."""
    from lipo_cli.commands.console import emit_json, say
    from lipo_cli.commands.model_output import version_as_dict
    from lipo_cli.tracking.registry import set_champion
    from lipo_cli.tracking.store import open_store

    version = set_champion(open_store(store, create=False), model)
    if as_json:
        emit_json(version_as_dict(version))
        return
    say(f"models:/{version.model}@champion is now version {version.version}")


@app.command("export")
def export_model(
    model: ModelArgument,
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="The folder to write: a new or empty one.")
    ],
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
) -> None:
    """Write a registered model as a folder that `lipo predict --model DIR` takes, on any machine.

    The folder appears only once it is whole.
    """
    import json

    from lipo_cli.commands.console import emit_json, say, warn
    from lipo_cli.commands.model_folder import copy_model_folder
    from lipo_cli.commands.model_output import version_as_dict
    from lipo_cli.tracking.store import open_store
    from lipo_cli.tracking.versions import regressor_folder, show_version

    opened = open_store(store, create=False)
    version = show_version(opened, model)
    folder = regressor_folder(opened, version.uri)
    prepare_out(out, folder=True)
    if any(out.iterdir()):
        raise SettingsError(f"{out} is not empty", where="--out", hint="name a new folder")
    copy_model_folder(folder, out)
    manifest = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    if as_json:
        emit_json({**version_as_dict(version), "out": str(out)})
    say(f"{version.model} version {version.version}: {out} (`lipo predict FILE --model {out}`)")
    if manifest.get("self_contained") is False:
        warn(f"its base model is too large to go along: it needs {manifest['base']['name']} there")
