"""The value table, its files, and what reading them refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lipo_cli.errors import DataError, LipoError, ValuationError
from lipo_cli.valuation.removal import CURVE_COLUMNS, curve_of
from lipo_cli.valuation.selection import PointScores
from lipo_cli.valuation.selection_text import parse_selection
from lipo_cli.valuation.table import COLUMNS, read_curve, read_values, value_table, write_values

SMILES = ["CCO", "NA", "c1ccccc1", "[Na+].[Cl-]", 'C/C=C\\"x",C']


def make_table(values=(0.1, -0.2, 0.5, 1 / 3, -0.05), text="tsds:top=2") -> pd.DataFrame:
    scores = PointScores(np.asarray(values, dtype=float), np.full(5, 0.1))
    selected = parse_selection(text).select(scores, 5, np.random.default_rng(0))
    return value_table([3, 1, 4, 10, 5], SMILES, [1.0, 2.5, -1.0, 0.1 + 0.2, 4], scores, selected)


def test_the_table_holds_rank_selection_and_reason_in_the_given_order():
    table = make_table()
    assert tuple(table.columns) == COLUMNS
    assert table["row"].tolist() == [3, 1, 4, 10, 5]
    assert table["rank"].tolist() == [3, 5, 1, 2, 4]
    assert table["selected"].tolist() == [False, False, True, True, False]
    assert table["reason"].iloc[2] == "rank 1 of 5, kept: top 2"


def test_csv_and_parquet_read_back_equal(tmp_path):
    table = make_table()
    csv, parquet = write_values(tmp_path / "new", table)
    pd.testing.assert_frame_equal(read_values(csv), table)
    pd.testing.assert_frame_equal(read_values(parquet), table)
    pd.testing.assert_frame_equal(read_values(tmp_path / "new"), table)


@settings(max_examples=30, deadline=None)
@given(arrays(np.float64, 5, elements=st.floats(-1e300, 1e300, allow_nan=False)))
def test_any_values_read_back_to_the_bit(tmp_path_factory, values):
    table = make_table(values)
    for path in write_values(tmp_path_factory.mktemp("values"), table):
        pd.testing.assert_frame_equal(read_values(path), table, check_exact=True)


def test_the_curve_reads_back(tmp_path):
    curve = curve_of(np.random.default_rng(0).exponential(size=(6, 9)))
    paths = write_values(tmp_path, make_table(), curve)
    assert [path.name for path in paths] == ["values.csv", "values.parquet", "removal_curve.csv"]
    pd.testing.assert_frame_equal(read_curve(tmp_path), curve)


@pytest.mark.parametrize("column", COLUMNS)
def test_a_missing_column_is_named(tmp_path, column):
    path = tmp_path / "values.csv"
    make_table().drop(columns=column).to_csv(path, index=False)
    with pytest.raises(DataError, match=column) as caught:
        read_values(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("column", ["label", "value", "standard_error", "rank", "row"])
@pytest.mark.parametrize("bad", ["", "nan", "inf", "text"])
def test_a_number_that_is_none_is_refused_by_column_and_row(tmp_path, column, bad):
    table = make_table().astype({column: object})
    table.loc[2, column] = bad
    path = tmp_path / "values.csv"
    table.to_csv(path, index=False)
    with pytest.raises(DataError, match=f"column {column} .*data row 3"):
        read_values(path)


@pytest.mark.parametrize(
    ("column", "content", "message"),
    [
        ("row", [3, 3, 4, 10, 5], "row 3 is listed twice"),
        ("rank", [1, 1, 2, 3, 4], "ranks are not 1 to 5"),
        ("rank", [5, 3, 1, 2, 4], "ranks do not follow"),
        ("selected", ["yes", "no", "no", "no", "no"], "selected"),
        ("row", [0.5, 1, 2, 3, 4], "whole"),
        ("rank", [3.5, 5, 1, 2, 4], "whole"),
    ],
)
def test_a_table_that_contradicts_itself_is_refused(tmp_path, column, content, message):
    path = tmp_path / "values.csv"
    make_table().assign(**{column: content}).to_csv(path, index=False)
    with pytest.raises(DataError, match=message):
        read_values(path)


def test_unreadable_files_are_one_clear_line(tmp_path):
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00\x01")
    (tmp_path / "broken.parquet").write_text("no parquet")
    for name in ("empty.csv", "binary.csv", "broken.parquet", "missing.csv", "missing.parquet"):
        with pytest.raises(DataError) as caught:
            read_values(tmp_path / name)
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match=r"values\.parquet"):
        read_values(tmp_path)


def test_lengths_that_disagree_and_nan_are_refused():
    scores = PointScores(np.zeros(2), np.zeros(2))
    selected = parse_selection("all").select(None, 2, np.random.default_rng(0))
    with pytest.raises(ValuationError):
        value_table([1, 2], ["C", "CC", "CCC"], [1, 2, 3], scores, selected)
    with pytest.raises(ValuationError):
        value_table([1], ["C", "CC"], [1, 2], scores, selected)
    with pytest.raises(LipoError, match="non-finite"):
        value_table([1, 2], ["C", "CC"], [1, np.nan], scores, selected)


@pytest.mark.parametrize("rows", [[], [0, 1, 2, 2], [1, 2, 3]])
def test_a_curve_of_no_or_of_other_points_is_refused(tmp_path: Path, rows: list[int]) -> None:
    curve = pd.DataFrame({name: np.ones(len(rows)) for name in CURVE_COLUMNS})
    curve["n_kept"] = rows
    curve.to_csv(tmp_path / "removal_curve.csv", index=False)
    with pytest.raises(DataError, match="no removal curve"):
        read_curve(tmp_path)


def test_a_curve_must_be_that_of_the_pool(tmp_path: Path) -> None:
    curve = pd.DataFrame({name: np.ones(4) for name in CURVE_COLUMNS})
    curve["n_kept"] = [3, 2, 1, 0]
    curve.to_csv(tmp_path / "removal_curve.csv", index=False)
    assert len(read_curve(tmp_path, 3)) == 4
    with pytest.raises(DataError, match="no removal curve of 24 points"):
        read_curve(tmp_path, 24)


def test_a_standard_error_below_zero_is_refused(tmp_path: Path) -> None:
    table = make_table()
    table.loc[2, "standard_error"] = -0.1
    table.to_csv(tmp_path / "values.csv", index=False)
    with pytest.raises(DataError, match="standard_error holds a number below 0"):
        read_values(tmp_path / "values.csv")
