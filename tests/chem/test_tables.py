import gzip
import hashlib
from pathlib import Path

import numpy as np
import pytest

from lipo_cli.chem.records import LARGEST_LABEL, BadRow
from lipo_cli.chem.tables import MoleculeTable, read_table
from lipo_cli.errors import DataError


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def failure(path: Path, **options: object) -> str:
    with pytest.raises(DataError) as raised:
        read_table(path, **options)  # type: ignore[arg-type]
    line = str(raised.value)
    assert "\n" not in line
    assert raised.value.exit_code == 3
    return line


@pytest.fixture
def good(tmp_path: Path) -> Path:
    return write(tmp_path / "good.csv", "SMILES,Label,note\nOCC,1.5,a\nCCN,-2,b\n")


# The twelve kinds of bad input.


def test_wrong_column_names_those_that_are_there(good: Path) -> None:
    line = failure(good, smiles_column="molecule")
    assert "'molecule'" in line
    assert "SMILES, Label, note" in line


def test_text_that_is_not_utf8_is_named_by_its_line(tmp_path: Path) -> None:
    path = tmp_path / "latin.csv"
    path.write_bytes(b"smiles,y\n" + b"CCO,1\n" * 5000 + "CCO,é\n".encode("latin-1"))
    line = failure(path)
    assert "latin.csv:5002" in line
    assert "UTF-8" in line


def test_empty_file(tmp_path: Path) -> None:
    assert "empty" in failure(write(tmp_path / "empty.csv", ""))
    assert "empty" in failure(write(tmp_path / "blank.csv", "\n\n\n"))


@pytest.mark.parametrize("label", ["nan", "NaN", "inf", "-Infinity"])
def test_label_that_is_not_finite_is_named_by_line(tmp_path: Path, label: str) -> None:
    line = failure(write(tmp_path / "x.csv", f"smiles,y\nCC,1\nCCO,{label}\n"))
    assert "x.csv:3" in line
    assert "not finite" in line
    assert repr(label) in line


@pytest.mark.parametrize("label", ["1e16", "-1.1e15", "1" + 30 * "0"])
def test_a_label_beyond_all_measure_is_a_bad_row(tmp_path: Path, label: str) -> None:
    path = write(tmp_path / "x.csv", f"smiles,y\nCC,1\nCCO,{label}\nCCN,2\nCCC,3\n")
    line = failure(path)
    assert "x.csv:3" in line
    assert "the label is beyond 1e+15" in line
    assert repr(label) in line
    table = read_table(path, on_invalid="skip")
    assert table.smiles == ["CC", "CCN", "CCC"]
    assert table.bad_rows == (BadRow(3, "the label is beyond 1e+15", label),)


def test_the_largest_label_is_a_label(tmp_path: Path) -> None:
    path = write(tmp_path / "x.csv", f"smiles,y\nCC,{LARGEST_LABEL!r}\nCCO,-1e15\n")
    assert read_table(path).labels.tolist() == [LARGEST_LABEL, -LARGEST_LABEL]
    assert np.isfinite(np.float32(LARGEST_LABEL) ** 2)


@pytest.mark.parametrize("label", ["high", "1_0", "1,5", "-0,31", "> 4"])
def test_text_label_is_named_by_line(tmp_path: Path, label: str) -> None:
    line = failure(write(tmp_path / "x.csv", f'smiles,y\nCC,1\nCCO,"{label}"\n'))
    assert "x.csv:3" in line
    assert "not a number" in line
    assert ("decimals take a point" in line) == ("," in label)


def test_where_most_rows_are_bad_the_file_is_to_be_corrected(tmp_path: Path) -> None:
    few = "".join(f"{'C' * i},{i}\n" for i in range(1, 6))
    line = failure(write(tmp_path / "x.csv", f'smiles,y\nCCO,"1,5"\n{few}'))
    assert "1 bad row among 6; --on-invalid skip leaves them out" in line
    many = "".join(f'{"C" * i},"{i},5"\n' for i in range(1, 6))
    line = failure(write(tmp_path / "y.csv", f"smiles,y\nCCO,1\n{many}"))
    assert "5 bad rows among 6; correct the file" in line


def test_missing_label_is_named_by_line(tmp_path: Path) -> None:
    assert "x.csv:2: the label is missing" in failure(write(tmp_path / "x.csv", "smiles,y\nCC,\n"))


def test_broken_smiles_is_named_by_line_with_the_count(tmp_path: Path) -> None:
    line = failure(write(tmp_path / "x.csv", "smiles,y\nCC,1\nC1CC,1\nCCO,1\nc1cc,1\n"))
    assert "x.csv:3" in line
    assert "syntax" in line
    assert "2 bad rows among 4" in line


def test_smiles_of_2000_characters_is_a_bad_row(tmp_path: Path) -> None:
    line = failure(write(tmp_path / "x.csv", f"smiles,y\n{'C' * 2000},1\n"))
    assert "x.csv:2" in line
    assert "2,000 characters" in line
    assert len(line) < 400


def test_duplicate_with_another_label_is_averaged_and_its_spread_told(tmp_path: Path) -> None:
    path = write(tmp_path / "x.csv", "smiles,y,k\nOCC,1,a\nCC,7,b\nC(O)C,2,c\nCCO,4.5,d\n")
    table = read_table(path)
    assert table.smiles == ["CCO", "CC"]
    assert table.labels == pytest.approx([2.5, 7])
    assert list(table.frame["n_merged"]) == [3, 1]
    assert list(table.frame["label_spread"]) == [3.5, 0]
    assert list(table.frame["row"]) == [0, 1]
    assert list(table.frame["k"]) == ["a", "b"]
    assert table.n_merged_rows == 2


def test_header_only(tmp_path: Path) -> None:
    assert "no rows" in failure(write(tmp_path / "x.csv", "smiles,y\n"))


def test_missing_file(tmp_path: Path) -> None:
    assert "does not exist" in failure(tmp_path / "nowhere.csv")


def test_a_spreadsheet(tmp_path: Path) -> None:
    path = tmp_path / "mine.xlsx"
    path.write_bytes(b"PK\x03\x04 and what Excel writes")
    assert "is a spreadsheet or a zip file, not text (save it as CSV)" in failure(path)


def test_directory(tmp_path: Path) -> None:
    assert "is a directory" in failure(tmp_path)


@pytest.mark.parametrize("kept", [12, 200])
def test_gzip_cut_short(tmp_path: Path, kept: int) -> None:
    rows = "".join(f"{'C' * (1 + i % 40)},{i}\n" for i in range(4000))
    path = tmp_path / "x.csv.gz"
    path.write_bytes(gzip.compress(f"smiles,y\n{rows}".encode())[:kept])
    assert "cut short" in failure(path)


def test_gzip_name_over_plain_text(tmp_path: Path) -> None:
    assert "gzip" in failure(write(tmp_path / "x.csv.gz", "smiles,y\nCC,1\n"))


def test_damaged_gzip(tmp_path: Path) -> None:
    packed = bytearray(gzip.compress(b"smiles,y\n" + b"CC,1\n" * 999))
    packed[20:30] = b"\xff" * 10
    path = tmp_path / "x.csv.gz"
    path.write_bytes(bytes(packed))
    assert "gzip" in failure(path)


# What is read well.


def test_columns_are_found_by_name(good: Path) -> None:
    table = read_table(good)
    assert (table.smiles_column, table.label_column) == ("SMILES", "Label")
    assert table.smiles == ["CCO", "CCN"]
    assert list(table.frame["input_smiles"]) == ["OCC", "CCN"]
    assert list(table.frame["note"]) == ["a", "b"]
    assert table.sha256 == hashlib.sha256(good.read_bytes()).hexdigest()
    assert table.labels.dtype == np.float64


@pytest.mark.parametrize("name", ["exp", "label", "LogD", "logD7.4", "log_d", "y", "Target"])
def test_usual_label_names(tmp_path: Path, name: str) -> None:
    assert read_table(write(tmp_path / "x.csv", f"smiles,{name}\nCC,1\n")).label_column == name


def test_several_label_candidates_are_named(tmp_path: Path) -> None:
    path = write(tmp_path / "x.csv", "smiles,exp,logd\nCC,1,2\n")
    line = failure(path)
    assert "exp, logd" in line
    assert "--label-column" in line
    assert read_table(path, label_column="LOGD").labels == [2.0]


def test_no_label_column_is_an_error_only_where_labels_are_needed(tmp_path: Path) -> None:
    path = write(tmp_path / "x.csv", "smiles,mass\nCC,1\n")
    assert "--label-column" in failure(path)
    table = read_table(path, require_label=False)
    assert table.label_column is None
    assert np.isnan(table.labels).all()


def test_column_named_twice_is_an_error(tmp_path: Path) -> None:
    path = write(tmp_path / "x.csv", "smiles,y,y\nCC,1,2\n")
    assert "2 columns named 'y'" in failure(path, label_column="y")


def test_one_column_cannot_be_smiles_and_label(good: Path) -> None:
    assert "both" in failure(good, smiles_column="SMILES", label_column="SMILES")


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_line_ends_and_byte_order_mark(tmp_path: Path, end: str, mark: str) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes((mark + end.join(["smiles,y", "CC,1", "CCO,2", ""])).encode())
    assert read_table(path).smiles == ["CC", "CCO"]


def test_line_numbers_are_true_after_quoted_line_breaks(tmp_path: Path) -> None:
    path = write(tmp_path / "x.csv", 'smiles,y,note\nCC,1,"a\nb\nc"\nCCO,2,d\nC1C,3,e\n')
    assert "x.csv:6" in failure(path)
    assert list(read_table(path, on_invalid="skip").frame["line"]) == [2, 5]


def test_tsv_gzip_and_semicolons(tmp_path: Path) -> None:
    packed = tmp_path / "x.tsv.gz"
    packed.write_bytes(gzip.compress(b"smiles\ty\nCC\t1\n"))
    for path in (packed, write(tmp_path / "x.csv", "smiles;y\nCC;1\n")):
        assert read_table(path).smiles == ["CC"]


def test_skipped_rows_are_recorded(tmp_path: Path) -> None:
    path = write(tmp_path / "x.csv", "smiles,y\nCC,1\n\nCCO\nCCN,x\nC(,1\nCCC,2\n\n\n")
    table = read_table(path, on_invalid="skip")
    assert table.smiles == ["CC", "CCC"]
    assert [bad.line for bad in table.bad_rows] == [3, 4, 5, 6]
    assert "empty" in table.bad_rows[0].reason
    assert "1 fields where the header names 2" in table.bad_rows[1].reason
    assert table.n_rows_read == 6


def test_all_rows_bad_is_an_error_even_when_skipping(tmp_path: Path) -> None:
    path = write(tmp_path / "x.csv", "smiles,y\nC(,1\n")
    assert "none of the 1 rows" in failure(path, on_invalid="skip")


def test_nan_keeps_the_order_for_prediction(tmp_path: Path) -> None:
    path = write(tmp_path / "x.csv", "smiles,id\nCC,a\nC(,b\nCC,c\n,d\n")
    table = read_table(path, on_invalid="nan", duplicates="keep", require_label=False)
    assert list(table.frame["id"]) == ["a", "b", "c", "d"]
    assert list(table.usable) == [True, False, True, False]
    assert table.frame["smiles"][1] is None
    assert table.smiles == ["CC", "", "CC", ""]
    assert [bad.line for bad in table.bad_rows] == [3, 5]


def test_duplicates_can_be_kept(tmp_path: Path) -> None:
    table = read_table(write(tmp_path / "x.csv", "smiles,y\nCC,1\nCC,2\n"), duplicates="keep")
    assert list(table.labels) == [1, 2]
    assert table.n_merged_rows == 0


def test_columns_that_bear_our_names_are_kept_apart(tmp_path: Path) -> None:
    path = write(tmp_path / "x.csv", "smiles,exp,row,label_spread\nCC,1,x,z\n")
    table = read_table(path)
    assert table.frame["file.row"][0] == "x"
    assert table.file_columns() == {"file.row": "row", "file.label_spread": "label_spread"}


def test_real_data(data_dir: Path) -> None:
    table: MoleculeTable = read_table(data_dir / "lipophilicity.csv")
    assert len(table) == 4200
    assert table.n_merged_rows == 0
    assert len(set(table.skeletons)) == 4102
    assert table.labels.mean() == pytest.approx(2.186, abs=5e-4)


# Rows that a column `selected` marks.


def test_rejected_rows_are_passed_over_as_if_they_were_not_there(tmp_path: Path) -> None:
    path = write(
        tmp_path / "chosen.csv",
        "smiles,y,selected\nOCC,1,True\nCCO,9,False\nno molecule,,0\nCCN,2,1\nCCN,4,true\n",
    )
    table = read_table(path, selected_only=True)
    assert table.smiles == ["CCO", "CCN"]
    assert table.labels.tolist() == [1.0, 3.0], "a rejected repeat has no say in the mean"
    assert table.frame["row"].tolist() == [0, 3]
    assert table.frame["line"].tolist() == [2, 5]
    assert (table.n_rows_read, table.bad_rows) == (5, ())


def test_without_the_column_every_row_is_read(good: Path) -> None:
    assert len(read_table(good, selected_only=True)) == 2


def test_the_mark_is_not_looked_at_unless_asked(tmp_path: Path) -> None:
    path = write(tmp_path / "x.csv", "smiles,y,selected\nCCO,1,False\nCCN,2,maybe\n")
    assert len(read_table(path)) == 2
    line = failure(path, selected_only=True)
    assert "x.csv:3: selected is 'maybe'" in line


def test_a_file_with_nothing_selected_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "x.csv", "smiles,y,Selected\nCCO,1,False\nCCN,2,False\n")
    assert "none of the 2 rows is selected" in failure(path, selected_only=True)


def test_a_row_cut_short_is_bad_and_not_rejected(tmp_path: Path) -> None:
    path = write(tmp_path / "x.csv", "smiles,y,selected\nCCO,1,True\nCCN,2\n")
    assert "x.csv:3" in failure(path, selected_only=True)
