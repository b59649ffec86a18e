"""`lipo model`: the registered models and the evidence for them."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from lipo_cli.commands.options import DEFAULT_STORE, JsonOption, StoreOption

if TYPE_CHECKING:
    from lipo_cli.tracking.registry import RegisteredVersion

app = typer.Typer(
    no_args_is_help=True, help="Look at the registered models, and choose the champion."
)

DEFAULT_MODEL = "models:/lipophilicity@champion"


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
    from lipo_cli.tracking.registry import list_versions
    from lipo_cli.tracking.store import open_store

    versions = list_versions(open_store(store, create=False), name)
    if as_json:
        emit_json([_as_dict(version) for version in versions])
        return
    if not versions:
        say("no model is registered yet; `lipo compare` registers its best one")
        return
    from rich.table import Table

    table = Table(box=None)
    for title in ("model", "version", "alias", "val RMSE", "selection", "peft", "seed", "made"):
        right = title in ("version", "val RMSE", "seed")
        table.add_column(title, justify="right" if right else "left", overflow="fold")
    for v in versions:
        tags = v.tags
        table.add_row(
            v.model,
            v.version,
            ", ".join(v.aliases),
            _short_number(tags.get("val_rmse", "")),
            *(tags.get(key, "") for key in ("selection", "peft", "seed")),
            f"{datetime.fromtimestamp(v.created / 1000):%Y-%m-%d}",
        )
    out.print(table)


@app.command("show")
def show_model(
    model: Annotated[
        str, typer.Argument(help="models:/NAME@ALIAS or models:/NAME/VERSION.")
    ] = DEFAULT_MODEL,
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
) -> None:
    """Show one registered model: where it came from and what speaks for it."""
    from lipo_cli.commands.console import emit_json, out
    from lipo_cli.tracking.registry import show_version
    from lipo_cli.tracking.store import open_store

    version = show_version(open_store(store, create=False), model)
    if as_json:
        emit_json(_as_dict(version))
        return
    from rich.table import Table

    table = Table(box=None, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for key, value in _as_dict(version).items():
        if key != "tags":
            table.add_row(key, ", ".join(value) if isinstance(value, list) else str(value))
    for key, value in sorted(version.tags.items()):
        table.add_row(key, value)
    out.print(table)


@app.command("promote")
def promote_model(
    model: Annotated[str, typer.Argument(help="models:/NAME/VERSION.")],
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
) -> None:
    """Give a version the title `champion`, whatever it was measured on."""
    from lipo_cli.commands.console import emit_json, say
    from lipo_cli.tracking.registry import set_champion
    from lipo_cli.tracking.store import open_store

    version = set_champion(open_store(store, create=False), model)
    if as_json:
        emit_json(_as_dict(version))
        return
    say(f"models:/{version.model}@champion is now version {version.version}")


def _as_dict(version: RegisteredVersion) -> dict[str, object]:
    return {
        "model": version.model,
        "version": version.version,
        "aliases": list(version.aliases),
        "run_id": version.run_id,
        "made": datetime.fromtimestamp(version.created / 1000).astimezone().isoformat(),
        "description": version.description,
        "tags": dict(version.tags),
    }


def _short_number(text: str) -> str:
    try:
        return f"{float(text):.4f}"
    except ValueError:
        return text
