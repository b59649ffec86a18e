"""Writes docs/cli.md from `--help`; `--check` fails where the page has drifted."""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ |= {"COLUMNS": "100", "TERM": "dumb", "NO_COLOR": "1"}

import click
import typer
from typer.testing import CliRunner

from lipo_cli.main import build_app

PAGE = Path(__file__).with_name("cli.md")


def page() -> str:
    """Returns the help of every command as one Markdown page."""
    app = build_app()
    origin = "Written by `make docs` from `--help`; a test fails where it drifts."
    parts = [f"# The command line\n\n{origin}\n"]
    for path in _paths(typer.main.get_command(app), []):
        result = CliRunner().invoke(app, [*path, "--help"], prog_name="lipo")
        lines = "\n".join(line.rstrip() for line in result.output.strip().splitlines())
        parts.append(f"## {' '.join(['lipo', *path])}\n\n```\n{lines}\n```\n")
    return "\n".join(parts)


def _paths(command: click.Command, above: list[str]) -> list[list[str]]:
    found = [above]
    for name, below in getattr(command, "commands", {}).items():
        found += _paths(below, [*above, name])
    return found


def main() -> int:
    """Writes or checks the page; returns the exit code."""
    if "--check" in sys.argv[1:]:
        if PAGE.read_text(encoding="utf-8") == page():
            return 0
        sys.stderr.write(f"{PAGE.name} has drifted from --help: run `make docs`\n")
        return 1
    PAGE.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
