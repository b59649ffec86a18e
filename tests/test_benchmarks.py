"""What the benchmarks write into the page."""

from __future__ import annotations

import os
from pathlib import Path

from benchmarks.report import machine, write_section


def test_a_section_is_appended_once_and_then_replaced_in_its_place(tmp_path: Path) -> None:
    page = tmp_path / "docs" / "benchmarks.md"
    write_section("first", "one", page)
    write_section("second", "two", page)
    write_section("first", "three", page)
    assert page.read_text() == (
        "# Benchmarks\n\n<!-- first:begin -->\nthree\n<!-- first:end -->\n\n"
        "<!-- second:begin -->\ntwo\n<!-- second:end -->\n"
    )


def test_the_machine_is_named_with_its_cores() -> None:
    name, _, cores = machine().rpartition(", ")
    assert name
    assert cores == f"{os.cpu_count()} cores"
