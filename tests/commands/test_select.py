"""`lipo select`: from a value table to rows, without anything being trained."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rdkit import Chem, DataStructs
from rdkit.Chem import rdFingerprintGenerator

from lipo_cli.comparison.plan import Choice
from lipo_cli.main import main
from lipo_cli.valuation.removal import CURVE_COLUMNS
from lipo_cli.valuation.selection import PointScores, Selection, selection_rng
from lipo_cli.valuation.selection_text import parse_selection
from lipo_cli.valuation.table import COLUMNS, value_table, write_values

N = 30


@pytest.fixture
def values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that `lipo score --out` writes, without a removal curve."""
    monkeypatch.chdir(tmp_path)
    worth = np.linspace(0.5, -0.4, N)
    scores = PointScores(worth, np.full(N, 0.01), 5)
    chosen = Selection("optimal").select(scores, N, np.random.default_rng(0))
    smiles = ["C" * (i + 1) for i in range(N)]
    write_values(Path("values"), value_table(range(100, 100 + N), smiles, worth, scores, chosen))
    return Path("values")


def rows_of(text: str) -> list[int]:
    return [int(row) for row in pd.read_csv(io.StringIO(text))["row"]]


def test_chosen_rows_go_to_stdout(values: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for place in (values, values / "values.csv", values / "values.parquet"):
        assert main(["select", str(place), "-s", "tsds:top=3"]) == 0
        printed = capsys.readouterr()
        assert rows_of(printed.out) == [100, 101, 102]
        warning, *lines = printed.err.splitlines()
        assert warning.startswith("warning: nothing here says on which split")
        hint = "without the columns of the file that was scored: name it with --secondary FILE"
        assert lines == [hint, f"tsds:top=3: 3 of {N} points"]


def test_what_the_scoring_said_is_said_again(
    values: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = ["these scores cannot be told from zero", "keeping 5 of 30 points"]
    source = {"path": "gone.csv", "sha256": "0", "read": ["smiles", "label"], "method": "tsds"}
    (values / "source.json").write_text(json.dumps({**source, "scope": "s", "said": said}))
    assert main(["select", str(values), "-s", "tsds:top=3"]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert [f"tsds: {text}" for text in said] == lines[:2]


def test_every_row_goes_to_a_file_in_a_new_folder(
    values: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = Path("new") / "deeper" / "chosen.csv"
    assert main(["select", str(values), "-s", "tsds:bottom=2", "--out", str(out)]) == 0
    table = pd.read_csv(out)
    assert tuple(table.columns) == COLUMNS
    assert table.loc[table["selected"], "row"].tolist() == [128, 129]
    assert table["reason"].str.contains("bottom 2").all()
    assert [path.name for path in out.parent.iterdir()] == ["chosen.csv"]
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("read", ["values", "values/values.csv", "values/values.parquet"])
@pytest.mark.parametrize(
    "name", ["values.csv", "values.parquet", "removal_curve.csv", "source.json"]
)
def test_what_was_read_is_not_written_over(
    values: Path, read: str, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path.name: path.read_bytes() for path in values.iterdir()}
    out = values.resolve() / name
    assert main(["select", read, "-s", "tsds:top=3", "--out", str(out)]) == 2
    assert "--out" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in values.iterdir()} == before


def test_selections_are_compared_as_json(values: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["-s", "tsds:top=4", "-s", "tsds:top=2", "-s", "none"]
    assert main(["select", str(values), *asked, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["selections"] == {"tsds:top=4": [0, 1, 2, 3], "tsds:top=2": [0, 1], "none": []}
    assert found["rows"] == [100, 101, 102, 103]
    assert found["overlaps"][0]["jaccard"] == 0.5


@pytest.mark.parametrize("seed", [0, 7])
def test_random_points_are_those_of_a_comparison(
    values: Path, capsys: pytest.CaptureFixture[str], seed: int
) -> None:
    arguments = ["select", str(values), "-s", "random:k=6", "--seed", str(seed), "--json"]
    assert main(arguments) == 0
    found = json.loads(capsys.readouterr().out)["selections"]["random:k=6"]
    choice = Choice("random:k=6", parse_selection("random:k=6"), "asked")
    assert found == choice.rows(None, N, seed).tolist()


def test_random_choices_of_two_sizes_are_not_nested() -> None:
    few, many = (parse_selection(f"random:k={k}") for k in (5, 6))
    taken = [set(s.select(None, 1000, selection_rng(s, 0)).positions) for s in (few, many)]
    assert not taken[0] <= taken[1]


def test_optimum_needs_the_removal_curve(values: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["select", str(values), "-s", "tsds"]) == 6
    assert "needs the removal curve" in capsys.readouterr().err


def test_a_damaged_removal_curve_is_one_line(
    values: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (values / "removal_curve.csv").write_text(",".join(CURVE_COLUMNS[:-1]) + "\n")
    assert main(["select", str(values), "-s", "tsds"]) == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert "removal_curve.csv: no removal curve" in line


@pytest.mark.parametrize(
    ("flags", "code"),
    [
        (["-s", "tsds:top=31"], 2),
        (["-s", "best"], 2),
        (["-s", "none", "--seed", "-1"], 2),
        (["-s", "none", "--out", "values"], 2),
        (["-s", "none", "--out", "values/values.csv/below.csv"], 2),
        ([], 2),
    ],
)
def test_what_cannot_be_done_is_said(
    values: Path, capsys: pytest.CaptureFixture[str], flags: list[str], code: int
) -> None:
    assert main(["select", str(values), *flags]) == code
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "unexpected" not in printed.err


def test_missing_values_are_one_line(values: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["select", "nowhere.csv", "-s", "none"]) == 3
    assert capsys.readouterr().err == "error: nowhere.csv: no such file\n"


def test_a_failed_write_leaves_the_earlier_file(
    values: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    out = Path("chosen.csv")
    out.write_text("earlier")
    monkeypatch.setattr(pd.DataFrame, "to_csv", full)
    assert main(["select", str(values), "-s", "none", "--out", str(out)]) == 3
    assert "No space left" in capsys.readouterr().err
    assert out.read_text() == "earlier"
    assert not list(Path().glob(".*chosen.csv"))


def write_other(
    values: Path, name: str, method: str, worth: np.ndarray, first_row: int = 100
) -> Path:
    """Writes a second table of the same points, as `lipo score --method METHOD --out` would."""
    scores = PointScores(worth, np.full(N, 0.01), 5)
    chosen = Selection("optimal").select(scores, N, np.random.default_rng(0))
    smiles = ["C" * (i + 1) for i in range(N)]
    rows = range(first_row, first_row + N)
    labels = np.linspace(0.5, -0.4, N)  # those of the fixture
    write_values(Path(name), value_table(rows, smiles, labels, scores, chosen))
    source = {"path": "gone.csv", "sha256": "", "read": [], "method": method}
    (Path(name) / "source.json").write_text(json.dumps(source))
    if not (values / "source.json").exists():
        (values / "source.json").write_text(json.dumps({**source, "method": "tsds"}))
    return Path(name)


def test_values_of_two_methods_are_compared(
    values: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = write_other(values, "other", "knn", np.linspace(-0.4, 0.5, N))
    asked = ["select", str(values), str(other), "-s", "knn:top=3", "-s", "tsds:top=3"]
    assert main([*asked, "--json"]) == 0
    printed = capsys.readouterr()
    found = json.loads(printed.out)
    assert found["selections"] == {"knn:top=3": [27, 28, 29], "tsds:top=3": [0, 1, 2]}
    assert found["rows"] == [127, 128, 129]
    assert [row["value"] for row in found["chosen"]] == pytest.approx(
        [0.5 - 0.9 / 29 * k for k in (2, 1, 0)]
    )
    (pair,) = found["rank_correlations"]
    assert pair == {"first": "tsds", "second": "knn", "spearman": pytest.approx(-1)}
    assert "values of tsds and knn: Spearman -1.00" in printed.err
    assert main([*asked, "-s", "loo:top=1"]) == 2
    assert "these values are of the method 'tsds' and 'knn'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("method", "first_row", "code", "said"),
    [
        ("knn", 101, 3, "holds other points than values"),
        ("tsds", 100, 2, "a second table of 'tsds'"),
    ],
)
def test_tables_that_do_not_go_together_are_refused(
    values: Path,
    capsys: pytest.CaptureFixture[str],
    method: str,
    first_row: int,
    code: int,
    said: str,
) -> None:
    other = write_other(values, "other", method, np.linspace(-0.4, 0.5, N), first_row)
    assert main(["select", str(values), str(other), "-s", "tsds:top=3"]) == code
    assert said in capsys.readouterr().err


def test_tables_of_another_primary_set_do_not_go_together(
    values: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = write_other(values, "other", "knn", np.linspace(-0.4, 0.5, N))
    source = json.loads((other / "source.json").read_text())
    (other / "source.json").write_text(json.dumps({**source, "scope": "elsewhere"}))
    assert main(["select", str(values), str(other), "-s", "tsds:top=3"]) == 3
    assert "another primary set or split" in capsys.readouterr().err


def test_a_table_of_an_unknown_method_stands_alone_only(
    values: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = write_other(values, "other", "knn", np.linspace(-0.4, 0.5, N))
    (other / "source.json").unlink()
    assert main(["select", str(values), str(other), "-s", "tsds:top=3"]) == 2
    assert "nothing says which method" in capsys.readouterr().err


def test_diverse_points_are_chosen_from_a_table(
    values: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["select", str(values), "-s", "tsds:diverse=4/0.3", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    make = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=2048).GetFingerprint
    prints = [make(Chem.MolFromSmiles("C" * (i + 1))) for i in range(N)]  # best first
    expected: list[int] = []
    for i in range(N):
        known = [prints[j] for j in expected]
        if len(expected) < 4 and all(
            s <= 0.3 for s in DataStructs.BulkTanimotoSimilarity(prints[i], known)
        ):
            expected.append(i)
    assert len(expected) >= 2
    assert found["rows"] == [100 + i for i in expected]


def test_a_table_is_written_with_the_separator_of_its_name(values: Path) -> None:
    assert main(["select", str(values), "-s", "tsds:bottom=2", "--out", "chosen.tsv"]) == 0
    table = pd.read_csv("chosen.tsv", sep="\t")
    assert tuple(table.columns) == COLUMNS
