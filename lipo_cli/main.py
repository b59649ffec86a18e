"""The command `lipo`: its subcommands, and how every way out of them looks.

Nothing heavy is imported here: command modules import torch, transformers and MLflow inside their
functions, so that `lipo --help` answers at once.
"""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
import traceback
from typing import Annotated, NamedTuple

import typer

from lipo_cli import __version__
from lipo_cli.errors import Interrupted, LipoError
from lipo_cli.redact import without_passwords
from lipo_cli.tracking.signals import raise_on_sigterm

DEBUG = "LIPO_DEBUG"
UNEXPECTED = 70
"""Exit code of a failure that is ours: EX_SOFTWARE of sysexits.h."""


class Entry(NamedTuple):
    """A subcommand.

    Attributes:
        name: What the user types.
        attribute: The function, or the Typer application, in `lipo_cli.commands.<name>`.
        panel: The heading of the help under which it stands.
    """

    name: str
    attribute: str
    panel: str


COMMANDS = (
    Entry("compare", "compare", "Find out what helps"),
    Entry("score", "score", "Find out what helps"),
    Entry("select", "select", "Find out what helps"),
    Entry("finetune", "finetune", "Train and predict"),
    Entry("predict", "predict", "Train and predict"),
    Entry("pretrain", "pretrain", "Train and predict"),
    Entry("data", "app", "Look"),
    Entry("model", "app", "Look"),
    Entry("report", "report", "Look"),
    Entry("ui", "ui", "Look"),
    Entry("doctor", "doctor", "Look"),
)


def build_app() -> typer.Typer:
    """Assembles the command line."""
    app = typer.Typer(
        name="lipo",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    for entry in COMMANDS:
        module = importlib.import_module(f"lipo_cli.commands.{entry.name}")
        found = getattr(module, entry.attribute)
        if isinstance(found, typer.Typer):
            app.add_typer(found, name=entry.name, rich_help_panel=entry.panel)
        else:
            app.command(entry.name, rich_help_panel=entry.panel)(found)
    return app


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"lipo {__version__}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True),
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of a failure.", envvar=DEBUG)
    ] = False,
) -> None:
    """Fine-tune a chemical language model, find out which extra data helps, and prove it."""
    del version
    if debug:
        # In the environment, so that processes started from here know it too.
        os.environ[DEBUG] = "1"


def main(arguments: list[str]) -> int:
    """Runs one command and returns its exit code; every failure is one line on stderr."""
    raise_on_sigterm()
    try:
        typer.main.get_command(build_app()).main(arguments, prog_name="lipo")
    except (LipoError, Interrupted) as error:
        return _fail(str(error), error.exit_code)
    except SystemExit as end:
        if end.code == 128 + 2:
            return _fail(str(Interrupted(2)), 128 + 2)
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except KeyboardInterrupt:
        return _fail(str(Interrupted(2)), 128 + 2)
    except Exception as error:
        return _unexpected(error)
    return 0


def run() -> None:
    """The entry point of `lipo` and of `python -m lipo_cli`."""
    sys.exit(main(sys.argv[1:]))


def _fail(message: str, exit_code: int) -> int:
    from rich.text import Text

    from lipo_cli.commands.console import err

    if os.environ.get(DEBUG) and sys.exception() is not None:
        sys.stderr.write(without_passwords(traceback.format_exc()))
    err.print(Text(f"error: {without_passwords(message)}", style="red"), soft_wrap=True)
    return exit_code


def _unexpected(error: Exception) -> int:
    lines = str(error).strip().splitlines()
    summary = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    if os.environ.get(DEBUG):
        return _fail(f"unexpected {summary}", UNEXPECTED)
    with tempfile.NamedTemporaryFile(
        "w", prefix="lipo-error-", suffix=".txt", delete=False, encoding="utf-8"
    ) as file:
        trace = "".join(traceback.format_exception(error))
        file.write(f"lipo {__version__}, Python {sys.version}\n")
        file.write(without_passwords(f"{' '.join(sys.argv)}\n\n{trace}"))
    return _fail(f"unexpected {summary} (the traceback is in {file.name})", UNEXPECTED)
