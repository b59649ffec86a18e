from __future__ import annotations

import csv
import gzip
import io
import json
import os
import threading
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch

from lipo_cli.commands import console, model_source, molecule_file
from lipo_cli.commands import predict as command
from lipo_cli.commands.console import RichProgress
from lipo_cli.commands.model_source import ModelSource
from lipo_cli.commands.molecule_file import MoleculeFile, Row
from lipo_cli.commands.predict_io import output
from lipo_cli.main import main
from lipo_cli.model.calibration import Calibration
from lipo_cli.progress import SilentProgress
from lipo_cli.tracking.prediction import SLICE
from tests.fixtures.models import LABELS, tiny_checkpoint, tiny_regressor


class Carbons:
    """Predicts the number of C and c in the canonical SMILES."""

    largest = 0

    def predict(self, smiles: list[str], *, batch_size: int = 256) -> np.ndarray:
        self.largest = max(self.largest, len(smiles))
        return np.array([s.upper().count("C") for s in smiles], float)

    def column(self, smiles: list[str]) -> np.ndarray:
        return self.predict(smiles)[:, None]


@pytest.fixture
def regressor(monkeypatch: pytest.MonkeyPatch) -> Carbons:
    fake = Carbons()
    source = ModelSource(Path("nowhere"), "carbons version 3: counted", {"version": "3"})
    monkeypatch.setattr(model_source, "find_model", lambda model, store: source)
    monkeypatch.setattr(command, "_predictor", lambda folder, views, **_: fake.column)
    return fake


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "molecules.csv"
    path.write_text('name,SMILES,note\nb,OCC,"a, quoted ""note"""\na,c1ccccc1,\nc,C,é\n')
    return path


def rows(text: str, delimiter: str = ",") -> list[list[str]]:
    return list(csv.reader(io.StringIO(text), delimiter=delimiter))


def test_columns_and_order_are_kept(
    table: Path, regressor: Carbons, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", str(table), "--model", "x"]) == 0
    captured = capsys.readouterr()
    assert rows(captured.out) == [
        ["name", "SMILES", "note", "prediction"],
        ["b", "OCC", 'a, quoted "note"', "2.000000"],
        ["a", "c1ccccc1", "", "6.000000"],
        ["c", "C", "é", "1.000000"],
    ]
    assert captured.err == "model: carbons version 3: counted\n3 molecules predicted by x\n"


def test_the_file_that_is_read_is_not_written_over(
    table: Path, regressor: Carbons, capsys: pytest.CaptureFixture[str]
) -> None:
    before = table.read_bytes()
    assert main(["predict", str(table), "--model", "x", "--out", str(table)]) == 2
    assert table.read_bytes() == before
    assert "is the file that is read" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["o.csv", "o.tsv", "o.csv.gz", "o.json"])
def test_suffix_decides_the_format(
    table: Path, regressor: Carbons, tmp_path: Path, name: str
) -> None:
    out = tmp_path / name
    assert main(["predict", str(table), "--out", str(out), "--column", "logD"]) == 0
    if name == "o.json":
        content = json.loads(out.read_text())
        assert [row["logD"] for row in content] == [2, 6, 1]
        assert content[0]["name"] == "b"
        return
    packed = out.read_bytes()
    text = (gzip.decompress(packed) if name.endswith(".gz") else packed).decode()
    found = rows(text, "\t" if name == "o.tsv" else ",")
    assert found[0] == ["name", "SMILES", "note", "logD"]
    assert [float(row[3]) for row in found[1:]] == [2, 6, 1]
    # Written under another name first: nothing of that is left.
    assert {path.name for path in tmp_path.iterdir()} == {"molecules.csv", name}


BAD = "smiles,id\nCCO,1\nnot a molecule,2\n\nC,3\nCC\nCCC,4\n"


def test_bad_row_stops_by_default_and_leaves_no_half_file(
    tmp_path: Path, regressor: Carbons, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(BAD)
    out = tmp_path / "out.csv"
    assert main(["predict", str(path), "--out", str(out)]) == 3
    assert capsys.readouterr().err.startswith(f"error: {path}:3: ")
    assert [p.name for p in tmp_path.iterdir()] == ["bad.csv"]


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_nothing_is_printed_of_a_file_that_is_refused(
    tmp_path: Path,
    regressor: Carbons,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    flags: list[str],
) -> None:
    monkeypatch.setattr(molecule_file, "CHUNK", 4)
    path = tmp_path / "bad.csv"
    path.write_text("smiles\n" + "CCO\n" * 9 + "not a molecule\n")
    assert main(["predict", str(path), *flags]) == 3
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"error: {path}:11: the SMILES holds a space")
    assert regressor.largest == 0


@pytest.mark.parametrize("rule", ["error", "skip", "nan"])
def test_nothing_is_printed_of_a_damaged_file(
    tmp_path: Path, regressor: Carbons, capsys: pytest.CaptureFixture[str], rule: str
) -> None:
    path = tmp_path / "cut.csv.gz"
    path.write_bytes(gzip.compress(b"smiles\n" + b"CCO\n" * 9000, mtime=0)[:-10])
    assert main(["predict", str(path), "--on-invalid", rule]) == 3
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "cut short" in captured.err


def test_a_file_that_changes_under_way_is_refused(
    tmp_path: Path, regressor: Carbons, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, out = tmp_path / "in.csv", tmp_path / "out.csv"
    path.write_text("smiles\nCCO\n")

    def load(folder: Path, views: int | None, **_: object) -> object:
        path.write_text("smiles\nnot a molecule\n")
        return regressor.column

    monkeypatch.setattr(command, "_predictor", load)
    assert main(["predict", str(path), "--out", str(out)]) == 3
    assert not out.exists()


def test_other_processes_read_the_same_rows(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_text(
        "smiles,id\n" + 'OCC,1\n"C C",2\n\nC(C)(C)(C)(C)C,3\nC,4,5\n' * 3 + "C[C@H](N)O,6\n"
    )
    rows = []
    for workers in (0, 2):
        molecules = MoleculeFile(path)
        assert molecules.check(molecules=False, progress=SilentProgress(), workers=workers) == 16
        rows.append([row for chunk in molecules.chunks() for row in chunk])
    assert rows[0] == rows[1]
    assert [row.smiles for row in rows[0][:5]] == ["CCO", None, None, None, None]
    assert rows[0][-1].smiles == "C[C@H](N)O"
    assert rows[0][1].reason == "the SMILES holds a space"
    assert rows[0][2].reason == "the row is empty"
    assert "valence" in rows[0][3].reason
    assert rows[0][4].reason == "the row has 3 cells, the header 2"
    assert rows[0][4].fields == ("C", "4")


def test_a_pipe_is_refused_with_the_way_out(
    tmp_path: Path, regressor: Carbons, capsys: pytest.CaptureFixture[str]
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert main(["predict", str(pipe)]) == 3
    assert "write it to a file first" in capsys.readouterr().err


def test_progress_knows_the_end(
    tmp_path: Path, regressor: Carbons, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[str, int | None]] = []
    done: list[int] = []

    class Listener(RichProgress):
        def start(self, name: str, total: int | None, unit: str) -> None:
            told.append((name, total))
            done.clear()
            super().start(name, total, unit)

        def advance(self, n: int = 1, **fields: float | int | str) -> None:
            done.append(n)
            super().advance(n, **fields)

    monkeypatch.setattr(console, "RichProgress", Listener)
    path = tmp_path / "in.csv"
    path.write_text("smiles\n" + "CCO\nnot a molecule\n" * 1000)
    out = ["--out", str(tmp_path / "out.csv")]
    assert main(["predict", str(path), "--on-invalid", "skip", *out]) == 0
    assert told == [("checking", None), ("predicting", 2000)]
    assert sum(done) == 2000
    assert max(done) <= 1000


def test_old_output_survives_a_failure(tmp_path: Path, regressor: Carbons) -> None:
    path, out = tmp_path / "bad.csv", tmp_path / "out.csv"
    path.write_text(BAD)
    out.write_text("old")
    assert main(["predict", str(path), "--out", str(out)]) == 3
    assert out.read_text() == "old"


def test_bad_rows_are_left_out_or_left_empty(
    tmp_path: Path, regressor: Carbons, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(BAD)
    assert main(["predict", str(path), "--on-invalid", "skip"]) == 0
    captured = capsys.readouterr()
    assert [row[1:] for row in rows(captured.out)[1:]] == [
        ["1", "2.000000"],
        ["3", "1.000000"],
        ["4", "3.000000"],
    ]
    assert f"{path}:3: the SMILES holds a space" in captured.err
    assert f"{path}:4: the row is empty" in captured.err
    assert f"{path}:6: the row has 1 cells, the header 2" in captured.err
    assert main(["predict", str(path), "--on-invalid", "nan"]) == 0
    captured = capsys.readouterr()
    assert [row[2] for row in rows(captured.out)[1:]] == [
        "2.000000", "", "", "1.000000", "", "3.000000",
    ]  # fmt: skip


def test_json_on_stdout(
    tmp_path: Path, regressor: Carbons, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(BAD)
    assert main(["predict", str(path), "--on-invalid", "nan", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert [row["prediction"] for row in content] == [2, None, None, 1, None, 3]
    out = tmp_path / "out.csv"
    arguments = ["predict", str(path), "--on-invalid", "skip", "--json", "--out", str(out)]
    assert main(arguments) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["rows"], summary["predicted"], summary["invalid_rows"]) == (6, 3, 3)
    assert [entry["line"] for entry in summary["invalid"]] == [3, 4, 6]
    assert summary["predicted_by"] == {"version": "3"}


def test_header_only_is_an_empty_result(
    tmp_path: Path, regressor: Carbons, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "empty.csv"
    path.write_text("smiles\n")
    assert main(["predict", str(path)]) == 0
    assert capsys.readouterr().out == "smiles,prediction\n"
    assert main(["predict", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"id,label\n1,2\n", "no SMILES column"),
        (b"smiles,n\nCC\xe9,1\n", "UTF-8"),
        (gzip.compress(b"smiles\nCCO\n" * 1000, mtime=0)[:-20], "cut short"),
        (b"smiles\n" + b"C" * 2000 + b"\n", "2,000 characters"),
        (b"smiles,prediction\nC,1\n", "has a column 'prediction' already"),
    ],
)
def test_bad_files_are_one_line(
    tmp_path: Path,
    regressor: Carbons,
    capsys: pytest.CaptureFixture[str],
    content: bytes,
    message: str,
) -> None:
    path = tmp_path / "file.csv"
    path.write_bytes(content)
    out = tmp_path / "out.csv"
    assert main(["predict", str(path), "--out", str(out)]) in (2, 3)
    shown = capsys.readouterr().err
    assert message in shown
    assert shown.count("\n") == 1
    assert not out.exists()


def test_missing_places_are_one_line(
    table: Path, regressor: Carbons, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", str(tmp_path / "no.csv")]) == 3
    assert main(["predict", str(tmp_path)]) == 3
    assert main(["predict", str(table), "--smiles-column", "structure"]) == 3
    assert capsys.readouterr().err.count("\n") == 3
    new = tmp_path / "new" / "out.csv"
    assert main(["predict", str(table), "--out", str(new)]) == 0
    assert new.is_file()


@pytest.mark.parametrize("command", [["predict", "molecules.csv"], ["select", "v", "-s", "none"]])
def test_a_folder_or_a_place_below_a_file_as_out_is_one_exit_code(
    table: Path,
    regressor: Carbons,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    command: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for out in (".", "molecules.csv/below.csv"):
        assert main([*command, "--out", out]) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.startswith(f"error: --out: {out} ")


def test_missing_models_are_one_line(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = ["--store", str(tmp_path / "mlruns")]
    assert main(["predict", str(table), *store]) == 7
    assert "no store here yet" in capsys.readouterr().err
    assert not (tmp_path / "mlruns").exists()
    assert main(["predict", str(table), "--model", str(tmp_path / "nothing"), *store]) == 4
    assert "models:/NAME/VERSION or models:/NAME@ALIAS" in capsys.readouterr().err


def test_missing_champion_is_one_line(
    table: Path, store_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", str(table), "--store", str(store_root)]) == 4
    assert "no such registered model" in capsys.readouterr().err


def test_memory_does_not_grow_with_the_file(tmp_path: Path, regressor: Carbons) -> None:
    def peak(n: int) -> int:
        path = tmp_path / f"{n}.csv"
        path.write_text("smiles,filler\n" + f"CCO,{'x' * 500}\n" * n)
        tracemalloc.start()
        molecules, silent = MoleculeFile(path), SilentProgress()
        assert molecules.check(molecules=True, progress=silent) == n
        with output(tmp_path / "out.csv", [*molecules.header, "p"]) as writer:
            command._predict_all(molecules, regressor.column, 1, writer, "error", silent)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(10)
    assert peak(30_000) < 1.5 * peak(10_000)
    assert regressor.largest <= SLICE


def test_output_file_has_ordinary_permissions(
    table: Path, regressor: Carbons, tmp_path: Path
) -> None:
    out, plain = tmp_path / "out.csv", tmp_path / "plain"
    plain.touch()
    assert main(["predict", str(table), "--out", str(out)]) == 0
    assert out.stat().st_mode == plain.stat().st_mode


def test_uncertainty_adds_the_spread_and_the_calibrated_interval(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    regressor = tiny_regressor(tiny_checkpoint(tmp_path / "tiny"), tta=4, precision="float32")
    regressor.set_label_scale(LABELS)
    calibration = Calibration(level=0.9, floor=0.3, slope=2.0, factor=1.7, n=50)
    regressor.manifest["calibration"] = calibration.as_dict()
    regressor.save(tmp_path / "model")
    path = tmp_path / "in.csv"
    path.write_text("smiles\nOCC\nc1ccccc1O\n")
    command_line = ["predict", str(path), "--model", str(tmp_path / "model"), "--uncertainty"]
    assert main(command_line) == 0
    printed = capsys.readouterr()
    assert "no spread" not in printed.err
    header, *found = rows(printed.out)
    ends = ["prediction_std", "prediction_low", "prediction_high"]
    assert header == ["smiles", "prediction", *ends]
    views = regressor.predict_views(["CCO", "Oc1ccccc1"])
    weights = [0.5, 1 / 6, 1 / 6, 1 / 6]  # half of the training molecules were written as given
    mean = views @ weights
    variance = ((views - mean[:, None]) ** 2) @ weights / (1 - np.sum(np.square(weights)))
    sd = np.sqrt(variance)
    low, high = calibration.interval(mean, sd)
    wanted = np.stack([mean, sd, low, high], axis=1)
    np.testing.assert_allclose(np.array([row[1:] for row in found], float), wanted, atol=1e-5)
    assert main([*command_line, "--tta", "1", "--json"]) == 0
    printed = capsys.readouterr()
    assert "calibrated on the mean of 4 SMILES" in printed.err
    assert "have no spread: the column _std is 0" in printed.err
    first = json.loads(printed.out)[0]
    assert first["prediction_std"] == 0
    assert first["prediction"] == pytest.approx(views[0, 0], abs=1e-5)


def test_the_device_is_chosen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny_regressor(tiny_checkpoint(tmp_path / "tiny")).save(tmp_path / "model")
    path = tmp_path / "in.csv"
    path.write_text("smiles\nCCO\n")
    asked = ["predict", str(path), "--model", str(tmp_path / "model"), "--device"]
    assert main([*asked, "cpu"]) == 0
    if not torch.cuda.is_available():
        assert main([*asked, "cuda"]) == 2
        assert "Traceback" not in capsys.readouterr().err
    assert main([*asked, "tpu"]) == 2


def test_model_without_calibration_has_no_interval(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_regressor(tiny_checkpoint(tmp_path / "tiny")).save(tmp_path / "model")
    path = tmp_path / "in.csv"
    path.write_text("smiles\nCCO\n")
    assert main(["predict", str(path), "--model", str(tmp_path / "model"), "--uncertainty"]) == 4
    printed = capsys.readouterr()
    assert "no calibrated interval" in printed.err
    assert printed.out == "", "a header of predictions that never come"


def test_a_pipe_is_written_to_and_a_link_stays_one(
    table: Path, tmp_path: Path, regressor: Carbons
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text(encoding="utf-8")))
    reader.start()
    assert main(["predict", str(table), "--model", "m", "--out", str(pipe)]) == 0
    reader.join(timeout=30)
    assert pipe.is_fifo()
    target, link = tmp_path / "there.csv", tmp_path / "link.csv"
    target.write_text("earlier")
    link.symlink_to(target)
    assert main(["predict", str(table), "--model", "m", "--out", str(link)]) == 0
    assert link.is_symlink()
    assert read == [target.read_text(encoding="utf-8")]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_is_one_line(
    table: Path, regressor: Carbons, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", str(table), "--model", "m", "--out", "/dev/full"]) == 3
    assert "error: /dev/full: cannot be written: No space left" in capsys.readouterr().err
    assert not Path("/dev/full").is_file()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.25e-7, "1.250000e-07"),
        (0.0, "0.000000"),
        (-2.3456789, "-2.345679"),
        (12345678.0, "12345678.000000"),
    ],
)
def test_a_number_of_any_size_keeps_its_digits(tmp_path: Path, value: float, text: str) -> None:
    out = tmp_path / "out.csv"
    with output(out, ["smiles", "prediction"]) as writer:
        writer.write(Row(2, ("C",), "C"), [value])
    assert out.read_text().splitlines()[1] == f"C,{text}"
