"""`lipo doctor`: whether everything that lipo needs is here and whole."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lipo_cli.commands.options import DEFAULT_STORE, JsonOption, StoreOption

if TYPE_CHECKING:
    from lipo_cli.commands.doctor_checks import Check

_MARKS = {"ok": "[green]ok[/]", "warn": "[yellow]warn[/]", "fail": "[red]fail[/]"}


def doctor(
    repair: Annotated[
        bool,
        typer.Option("--repair", help="Close runs that say RUNNING although their process died."),
    ] = False,
    close: Annotated[
        list[str] | None,
        typer.Option(
            "--close",
            metavar="RUN",
            help="With --repair: this run of another machine is over too. Repeatable.",
        ),
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
) -> None:
    """Check versions, device, store, data, checkpoints, and runs that died without a word.

    Exit code 0: healthy, or repaired. 1: something needs you.
    """
    from lipo_cli.commands.console import emit_json
    from lipo_cli.commands.doctor_checks import environment_checks, store_checks
    from lipo_cli.errors import SettingsError

    if close and not repair:
        raise SettingsError("closes runs with --repair only", where="--close")
    checks = [*environment_checks(), *store_checks(Path(store), close or (), repair=repair)]
    healthy = all(check.state != "fail" for check in checks)
    if as_json:
        emit_json({"healthy": healthy, "checks": [check.as_dict() for check in checks]})
    else:
        _show(checks)
    if not healthy:
        raise typer.Exit(1)


def _show(checks: list[Check]) -> None:
    from rich.markup import escape
    from rich.table import Table

    from lipo_cli.commands.console import out

    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for _ in ("state", "name"):
        table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for check in checks:
        advice = f"\n[dim]{escape(check.hint)}[/]" if check.hint and check.state != "ok" else ""
        table.add_row(_MARKS[check.state], check.name, escape(check.detail) + advice)
    out.print(table)
