"""Rows that cannot be used are named by file and line."""

from __future__ import annotations

from pathlib import Path

import pytest

from lipo_cli.commands.dataset_lines import announce
from lipo_cli.comparison.prepare import prepare
from lipo_cli.settings import DataSettings


def test_the_first_five_bad_rows_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.csv"
    rows = [f"{'C' * (i + 1)}O,{i}" for i in range(60)] + ["C1CC,1"] * 4 + ["CC,much"] * 3
    path.write_text("\n".join(["smiles,y", *rows]) + "\n")
    settings = DataSettings(dataset=str(path), split="random", on_invalid="skip")
    announce(prepare(settings), primary_only=True)
    lines = capsys.readouterr().err.splitlines()
    start = next(i for i, line in enumerate(lines) if "7 of 67 rows skipped" in line)
    named = lines[start + 1 : start + 7]
    assert [line.split(": ")[0] for line in named[:5]] == [f"  {path}:{62 + i}" for i in range(5)]
    assert named[4].endswith("the label is not a number")
    assert named[5] == "  and 2 more"
