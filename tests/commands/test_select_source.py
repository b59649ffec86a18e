"""`lipo select` keeps the columns of the file that was scored, and knows which file that is."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lipo_cli.chem.datasets import read_selection
from lipo_cli.chem.tables import read_table
from lipo_cli.commands.select_source import SOURCE, write_source
from lipo_cli.main import main
from lipo_cli.settings import DataSettings
from lipo_cli.valuation.selection import PointScores, Selection
from lipo_cli.valuation.table import COLUMNS, value_table, write_values

FILE = """value,SMILES,logD,note,note,Rank
"high, very",OCC,1.50,a,b,x
bad,no molecule,1,,,
low,C1=CC=CC=C1,2.5,c,"two
lines",y

mid,CCN,3.5,,é,z
again,C(C)O,1.70,,,
"""
KEPT = ["OCC", "C1=CC=CC=C1", "CCN"]


@pytest.fixture
def scored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A secondary file and the values of its molecules, as `lipo score` makes them."""
    monkeypatch.chdir(tmp_path)
    file = Path("theirs.csv")
    file.write_text(FILE)
    table = read_table(file, on_invalid="skip")
    worth = np.array([0.3, -0.2, 0.1])
    scores = PointScores(worth, np.full(3, 0.01), 1)
    chosen = Selection("optimal").select(scores, 3, np.random.default_rng(0))
    values = value_table(table.frame["row"], table.smiles, table.labels, scores, chosen)
    write_values(Path("values"), values)
    write_source(Path("values"), table, "tsds", "scope")
    return Path("values")


def read(text: str) -> pd.DataFrame:
    return pd.read_csv(StringIO(text), dtype=str, keep_default_na=False)


def test_columns_of_the_file_stand_unchanged_beside_the_values(
    scored: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["select", str(scored), "-s", "all"]) == 0
    printed = capsys.readouterr()
    table = read(printed.out)
    theirs = ["file.value", "file.SMILES", "file.logD", "note", "file.note", "file.Rank"]
    assert list(table.columns) == [*theirs, "row", "line", *COLUMNS[1:]]
    assert table["file.SMILES"].tolist() == KEPT
    assert table["file.value"].tolist() == ["high, very", "low", "mid"]
    assert table["file.logD"].tolist() == ["1.50", "2.5", "3.5"]
    assert table["file.note"].tolist() == ["b", "two\nlines", "é"]
    assert table["row"].tolist() == ["0", "2", "4"]
    assert table["line"].tolist() == ["2", "4", "7"]
    # What was scored: canonical, and the mean over the two rows of ethanol.
    assert table["smiles"].tolist() == ["CCO", "c1ccccc1", "CCN"]
    assert table["label"].astype(float).tolist() == [1.6, 2.5, 3.5]
    assert table["value"].tolist() == ["0.3", "-0.2", "0.1"]
    assert f"columns of theirs.csv under another name: {', '.join(theirs[:3])}" in printed.err


def test_chosen_rows_are_whole_in_json(scored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["select", str(scored), "-s", "tsds:top=1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["rows"] == [0]
    (row,) = found["chosen"]
    assert (row["file.SMILES"], row["line"], row["rank"], row["selected"]) == ("OCC", 2, 1, True)


def test_whoever_trains_on_the_result_trains_on_what_was_scored(scored: Path) -> None:
    out = Path("chosen.csv")
    assert main(["select", str(scored), "-s", "tsds:top=2", "--out", str(out)]) == 0
    chosen = read_selection(out, DataSettings())
    assert chosen.smiles == ["CCO", "CCN"]
    assert chosen.labels.tolist() == [1.6, 3.5]


def test_a_file_that_changed_or_is_gone_is_left_out_and_said(
    scored: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for change in (
        lambda: Path("theirs.csv").write_text(FILE + "new,C,1,,,\n"),
        Path("theirs.csv").unlink,
    ):
        change()
        assert main(["select", str(scored), "-s", "all"]) == 0
        printed = capsys.readouterr()
        assert tuple(read(printed.out).columns) == COLUMNS
        assert "name it with --secondary FILE" in printed.err


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"path": 3, "sha256": 1, "read": 2}'])
def test_a_damaged_note_is_none(
    scored: Path, capsys: pytest.CaptureFixture[str], content: str
) -> None:
    (scored / SOURCE).write_text(content)
    assert main(["select", str(scored), "-s", "all"]) == 0
    assert "name it with --secondary FILE" in capsys.readouterr().err


def test_the_file_can_be_named(scored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (scored / SOURCE).unlink()
    Path("theirs.csv").rename("moved.csv")
    assert (
        main(["select", str(scored / "values.csv"), "-s", "all", "--secondary", "moved.csv"]) == 0
    )
    assert read(capsys.readouterr().out)["file.SMILES"].tolist() == KEPT


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (FILE.replace("CCN", "CCF"), "moved.csv:7: another molecule stands here than was scored"),
        (FILE.split("\n\n", maxsplit=1)[0] + "\n", "moved.csv: has no data row 4"),
        (FILE.replace("SMILES", "x"), "no SMILES column"),
    ],
)
def test_another_file_is_refused(
    scored: Path, capsys: pytest.CaptureFixture[str], content: str, message: str
) -> None:
    Path("moved.csv").write_text(content)
    assert main(["select", str(scored), "-s", "all", "--secondary", "moved.csv"]) == 3
    printed = capsys.readouterr()
    assert printed.out == ""
    assert message in printed.err


def test_a_file_without_known_names_is_compared_by_its_column(
    scored: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("moved.csv").write_text(FILE.replace("SMILES", "x"))
    named = ["--secondary", "moved.csv", "--smiles-column", "x"]
    assert main(["select", str(scored), "-s", "all", *named]) == 0
    assert read(capsys.readouterr().out)["x"].tolist() == KEPT


def test_the_scored_file_is_not_written_over(
    scored: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["select", str(scored), "-s", "all", "--out", "theirs.csv"]) == 2
    assert "is the file that was scored" in capsys.readouterr().err
    assert Path("theirs.csv").read_text() == FILE
