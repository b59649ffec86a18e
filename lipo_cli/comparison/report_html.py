"""The page of a report: one file that fetches nothing and runs nothing."""

from __future__ import annotations

import base64
import re
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from lipo_cli.comparison.report import ReportData, build_report
from lipo_cli.comparison.report_record import REPORT, read_material
from lipo_cli.comparison.report_text import PEFT_NAMES, without_folders
from lipo_cli.comparison.report_verdicts import with_minus

TEMPLATES = Path(__file__).parent / "templates"


def make_report(folder: Path, figures: Path | None = None, where: str | None = None) -> str:
    """Returns the page of the result in a folder.

    Args:
        folder: With result.json, settings.json, report.json and `values/METHOD`.
        figures: The folder of the figures; None: `figures` in that one.
        where: What errors name instead of the folder.

    Raises:
        TrackingError: a file is missing, broken, or of another version of lipo.
    """
    return render(build_report(read_material(folder, figures, where)))


def write_report(folder: Path) -> Path:
    """Writes the page of the result in a folder beside its files; returns the page.

    Raises:
        TrackingError: as `make_report`.
    """
    path = folder / REPORT
    path.write_text(make_report(folder), encoding="utf-8", newline="\n")
    return path


def render(report: ReportData) -> str:
    """Returns the page; whatever comes from files, errors and molecules is escaped."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "fixed": _fixed,
        "whole": _whole,
        "signed": _signed,
        "significant": _significant,
        "plain": _plain,
        "png": _png,
        "svg": _svg,
        "peft": PEFT_NAMES.__getitem__,
        "bare": without_folders,
        "code": _code,
    }
    return environment.get_template("report.html").render(report=report)


def _code(text: str) -> Markup:
    """Escapes a text, and sets what stands between backticks as code."""
    return Markup(re.sub(r"`([^`]*)`", r"<code>\1</code>", str(escape(text))))


def _fixed(value: float | None, digits: int) -> str:
    return "" if value is None else with_minus(f"{value:.{digits}f}")


def _whole(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


def _signed(value: float | None, digits: int) -> str:
    return "" if value is None else with_minus(f"{value:+.{digits}f}")


def _significant(value: float, digits: int) -> str:
    return with_minus(f"{value:#.{digits}g}".rstrip("."))


def _plain(value: float) -> str:
    """Returns a label of any size, without the noise of its binary form."""
    return with_minus(f"{value:.6g}")


def _png(content: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"


def _svg(content: str) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(content.encode()).decode()}"
