import csv
import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest

from lipo_cli.commands.options import data_layer
from lipo_cli.errors import SettingsError
from lipo_cli.main import main


@pytest.fixture(autouse=True)
def empty_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIPO_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("LIPO_DATA_DIR", "")
    monkeypatch.delenv("LIPO_DATA_DIR")
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def own_file(tmp_path: Path) -> Path:
    path = tmp_path / "own.csv"
    path.write_text("smiles,y,id\n" + "".join(f"{'C' * i},{i / 10},m{i}\n" for i in range(1, 41)))
    return path


def test_show_prints_the_demo_when_nothing_else_is_there(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["data", "show"]) == 0
    printed = capsys.readouterr()
    assert printed.err.startswith("dataset demo: ")
    assert "lipo data fetch" in printed.err.splitlines()[0]
    assert "1,080 train, 120 validation, 300 test" in printed.out
    assert "are cut at 202" in printed.out


def test_the_data_of_lipo_toml_are_those_of_a_comparison_too(
    own_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    table = f'[data]\ndataset = "{own_file.name}"\nsplit = "random"\n[training]\nepochs = 2\n'
    Path("lipo.toml").write_text(table)
    assert main(["data", "show", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["dataset"], found["split"]["split"]) == (own_file.name, "random")
    assert main(["data", "show", "--dataset", "demo", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["dataset"] == "demo"
    Path("lipo.toml").write_text("[data]\ndatset = 1\n")
    assert main(["data", "show"]) == 2


def test_show_as_json_is_one_document_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "show", "--dataset", "demo", "--max-length", "50", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["dataset"] == "demo"
    assert found["split"]["train"] == 1080
    assert found["overlap"]["skeleton_duplicates"] == 0
    assert sum(count for _, _, count in found["primary"]["histogram"]) == 1500
    assert found["primary"]["tokens"]["max_length"] == 50
    assert found["primary"]["tokens"]["n_truncated"] > 0


def test_show_names_the_rows_left_out(own_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own_file.write_text(own_file.read_text() + "C1CC,1,x\n")
    arguments = ["data", "show", "--dataset", str(own_file)]
    assert main(arguments) == 3
    assert "own.csv:42" in capsys.readouterr().err
    assert main([*arguments, "--on-invalid", "skip"]) == 0
    printed = capsys.readouterr()
    assert "1 of 41 rows left out, the first at line 42" in printed.err
    assert "None" not in printed.out


def test_split_writes_every_row_with_its_part(
    own_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "split.csv"
    arguments = ["data", "split", "--dataset", str(own_file), "--out", str(out), "--json"]
    options = ["--split", "random", "--seed", "3", "--fractions", "0.5,0.25,0.25"]
    assert main([*arguments, *options]) == 0
    found = json.loads(capsys.readouterr().out)
    rows = list(csv.DictReader(out.open()))
    assert [row["id"] for row in rows] == [f"m{i}" for i in range(1, 41)]
    words = [row["split"] for row in rows]
    assert [words.count(word) for word in ("train", "val", "test")] == [20, 10, 10]
    assert (found["train"], found["val"], found["test"], found["seed"]) == (20, 10, 10, 3)
    again = ["data", "show", "--dataset", str(out), "--split", "column", "--json"]
    assert main(again) == 0
    assert json.loads(capsys.readouterr().out)["split"]["fingerprint"] == found["fingerprint"]


def test_split_to_a_place_that_cannot_be_written(
    own_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As `--out` of every command: said by itself, before the data are read."""
    for out in (own_file / "split.csv", tmp_path):
        assert main(["data", "split", "--dataset", str(own_file), "--out", str(out)]) == 2
        assert capsys.readouterr().err.startswith("error: --out: ")


def test_audit_prints_findings_and_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "audit", "--dataset", "demo", "--strict"]) == 0
    printed = capsys.readouterr()
    assert "neighbour labels" in printed.out
    assert "Usable with care" in printed.out


def test_audit_of_the_real_secondary_set(
    data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["data", "audit", "--data-dir", str(data_dir), "--json"]
    assert main([*arguments, "--strict"]) == 3
    found = json.loads(capsys.readouterr().out)
    assert found["level"] == "fail"
    assert found["figures"]["neighbour_matched"] == 177
    pool = str(data_dir / "external_logd.csv")
    assert main([*arguments, "--strict", "--secondary", pool]) == 0
    assert json.loads(capsys.readouterr().out)["level"] == "warn"


def test_audit_without_a_secondary_set(own_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "audit", "--dataset", str(own_file)]) == 3
    assert "--secondary FILE" in capsys.readouterr().err


def bad_files(folder: Path) -> dict[str, Path]:
    """The kinds of bad input that a file can hold, and those that are no file."""
    head = "smiles,y\n" + "".join(f"{'C' * i},{i}\n" for i in range(1, 20))
    texts = {
        "wrong column": "molecule,weight\nCC,1\n",
        "empty": "",
        "nan label": f"{head}CCO,nan\n",
        "infinite label": f"{head}CCO,inf\n",
        "text label": f"{head}CCO,high\n",
        "broken smiles": f"{head}C1CC,1\n",
        "long smiles": f"{head}{'C' * 2000},1\n",
        "header only": "smiles,y\n",
    }
    files = {}
    for name, text in texts.items():
        files[name] = folder / f"{name.replace(' ', '_')}.csv"
        files[name].write_text(text)
    files["not utf-8"] = folder / "latin.csv"
    files["not utf-8"].write_bytes(head.encode() + "é,1\n".encode("latin-1"))
    files["missing"] = folder / "nowhere.csv"
    files["directory"] = folder
    files["cut gzip"] = folder / "cut.csv.gz"
    files["cut gzip"].write_bytes(gzip.compress(head.encode())[:-12])
    return files


def test_every_bad_file_is_one_line_and_exit_code_3(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for name, path in bad_files(tmp_path).items():
        assert main(["data", "show", "--dataset", str(path)]) == 3, name
        printed = capfd.readouterr()
        assert printed.out == "", name
        assert printed.err.startswith("error: "), name
        assert printed.err.count("\n") == 1, name


def test_duplicates_with_other_labels_are_merged_and_told(
    own_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own_file.write_text(own_file.read_text() + "CC,3.2,again\n")
    assert main(["data", "show", "--dataset", str(own_file)]) == 0
    assert "1 (labels differ by 3.00 at most)" in capsys.readouterr().out


def test_fetch_without_a_network_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from lipo_cli.chem import downloads

    remote = downloads.RemoteFile("lipophilicity.csv", ("http://127.0.0.1:9/x",), "0" * 64, "")
    monkeypatch.setattr(downloads, "SOURCES", {"lipophilicity": (remote,)})
    assert main(["data", "fetch"]) == 8
    printed = capsys.readouterr()
    assert printed.err.count("\n") == 1
    assert "by hand" in printed.err


def test_fetch_finds_files_that_are_there(
    data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("lipophilicity.csv", "secondary.csv"):
        (tmp_path / name).write_bytes((data_dir / name).read_bytes())
    assert main(["data", "fetch", "--data-dir", str(tmp_path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [Path(entry["file"]).name for entry in found["files"]] == [
        "lipophilicity.csv",
        "secondary.csv",
    ]


def test_data_layer_drops_what_was_not_given() -> None:
    assert data_layer(dataset=None, split_seed=0, fractions="0.7, 0.2,0.1") == {
        "split_seed": 0,
        "fractions": (0.7, 0.2, 0.1),
    }


def test_naming_a_split_file_chooses_the_column_split() -> None:
    assert data_layer(split_file="s.csv")["split"] == "column"
    assert data_layer(split_file="s.csv", split="random")["split"] == "random"


@pytest.mark.parametrize("text", ["0.8,0.2", "a,b,c", ""])
def test_fractions_that_are_not_three_shares(text: str) -> None:
    with pytest.raises(SettingsError, match="three shares"):
        data_layer(fractions=text)


@pytest.mark.parametrize("text", ["0.5,0.1,0.1", "1.2,-0.1,-0.1"])
def test_fractions_that_do_not_sum_to_one(own_file: Path, text: str) -> None:
    arguments = ["data", "show", "--dataset", str(own_file), "--split", "random"]
    assert main([*arguments, "--fractions", text]) == 2


def test_help_of_data_imports_nothing_heavy() -> None:
    code = (
        "import sys; from lipo_cli.main import main; main(['data', '--help']);"
        "print([m for m in ('torch', 'mlflow', 'transformers', 'rdkit', 'pandas')"
        " if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("[]")
