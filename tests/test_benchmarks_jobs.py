"""The benchmark of cells side by side: its data are apart, its ratios those of a round."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

from jobs import Timed, section, write_data

ASKED = argparse.Namespace(rows=60, epochs=1, seeds=1, peft="lora", rounds=2)


def runs(off: float) -> list[Timed]:
    cells = [{"test_rmse": 1.0, "seconds": 10.0}, {"test_rmse": 2.0, "seconds": 10.0}]
    moved = [{**cell, "test_rmse": cell["test_rmse"] + off} for cell in cells]
    return [
        Timed(1, 40.0, 20.0, cells), Timed(2, 10.0, 30.0, moved),
        Timed(1, 60.0, 20.0, cells), Timed(2, 30.0, 30.0, moved),
    ]  # fmt: skip


def test_ratios_are_within_a_round() -> None:
    rows = [line for line in section(runs(1e-9), ASKED, 0.0).splitlines() if line.startswith("| 2")]
    assert rows == ["| 2 | 20 | 30 | 3.00 | 1e-09 |"]


def test_other_tables_are_no_result() -> None:
    with pytest.raises(SystemExit, match=r"test RMSE differs by 1\.0e-01"):
        section(runs(0.1), ASKED, 0.0)


def test_what_is_added_is_not_in_train(tmp_path: Path) -> None:
    write_data(tmp_path, 60)
    primary, secondary = (pd.read_csv(tmp_path / f"{n}.csv") for n in ("primary", "secondary"))
    assert (len(primary), len(secondary)) == (60, 6)
    assert not set(primary["smiles"]) & set(secondary["smiles"])
