"""What every benchmark writes: its section of docs/benchmarks.md, and the machine it ran on."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

DOCS = Path(__file__).resolve().parents[1] / "docs" / "benchmarks.md"


def machine() -> str:
    """Returns the processor's name and the number of cores."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        models = [ln for ln in info.read_text().splitlines() if ln.startswith("model name")]
        name = models[0].split(":", 1)[1].strip() if models else name
    return f"{name}, {os.cpu_count()} cores"


def provenance(script: str, packages: Sequence[str], more: str = "") -> list[str]:
    """Returns the last lines of a section: machine, versions, load, and the command.

    Args:
        script: The benchmark's file.
        packages: Whose versions are named.
        more: What stands behind them.
    """
    versions = ", ".join(f"{package} {version(package)}" for package in packages)
    return [
        f"Machine: {machine()}. Python {platform.python_version()}, {versions}{more}. "
        f"Load average: {os.getloadavg()[0]:.1f}.",
        f"Command: `{command_line(script)}`",
    ]


def command_line(script: str) -> str:
    """Returns the command line of a benchmark, without the name of whose machine it ran on."""
    home = str(Path.home())
    given = [word.replace(home, "~") if home != "/" else word for word in sys.argv[1:]]
    return " ".join([f"python benchmarks/{script}", *given])


def add_output_options(parser: argparse.ArgumentParser) -> None:
    """Adds what decides where a benchmark's section goes; `settle_page` reads them."""
    add = parser.add_argument
    add("--quick", action="store_true", help="a smoke run of seconds; no number means anything")
    add("--dry", action="store_true", help="print only")
    add("--page", type=Path, metavar="FILE", help="write there, not into docs/benchmarks.md")


def settle_page(arguments: argparse.Namespace) -> None:
    """Names the docs where no page is named: a smoke run's numbers do not belong there."""
    if arguments.page is None and not (arguments.dry or arguments.quick):
        arguments.page = DOCS


def write_section(name: str, text: str, page_path: Path = DOCS) -> None:
    """Replaces what stands between the markers of a benchmark, or appends it.

    Args:
        name: The benchmark: its markers are `<!-- name:begin -->` and `<!-- name:end -->`.
        text: The section.
        page_path: The page, made where it is missing.
    """
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    page = page_path.read_text(encoding="utf-8") if page_path.exists() else "# Benchmarks\n"
    section = f"{begin}\n{text}\n{end}"
    if begin in page and end in page:
        page = page[: page.index(begin)] + section + page[page.index(end) + len(end) :]
    else:
        page = f"{page.rstrip()}\n\n{section}\n"
    page_path.parent.mkdir(parents=True, exist_ok=True)
    page_path.write_text(page, encoding="utf-8")
