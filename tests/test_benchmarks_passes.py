"""The benchmark of passes beside one another: both ways take turns and predict the same."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

from passes import compare, main, row

from lipo_cli.model import parallel
from tests.fixtures.models import SMILES, tiny_checkpoint, tiny_regressor


@pytest.fixture(autouse=True)
def _two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_ratios_are_those_of_a_round() -> None:
    assert row(12, {"one": (2.0, 4.0, 6.0), "other": (1.0, 4.0, 2.0)}) == "| 12 | 3 | 6 | 2.00x |"


def test_both_ways_take_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    regressor = tiny_regressor(tiny_checkpoint(tmp_path), "full")
    seen: list[int] = []
    predict = regressor.predict

    def watched(smiles: list[str]) -> object:
        seen.append(parallel.MOST_AT_ONCE)
        return predict(smiles)

    monkeypatch.setattr(regressor, "predict", watched)
    taken = compare(regressor, SMILES, repeats=2)
    assert seen == [1, 16] * 3
    assert parallel.MOST_AT_ONCE == 16
    assert [len(seconds) for seconds in taken.values()] == [2, 2]


def test_ways_that_differ_are_no_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    regressor = tiny_regressor(tiny_checkpoint(tmp_path), "full")
    monkeypatch.setattr(
        regressor, "predict", lambda s: np.full(len(s), parallel.MOST_AT_ONCE * 1e-9)
    )
    with pytest.raises(SystemExit, match="differ by"):
        compare(regressor, SMILES, repeats=1)


def test_a_quick_run_writes_its_section(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tiny_checkpoint(tmp_path / "model")
    page = tmp_path / "page.md"
    assert main(["--quick", "--rounds", "1", "--model", str(model), "--page", str(page)]) == 0
    text = page.read_text(encoding="utf-8")
    assert "passes:begin" in text
    assert "| 40 | " in text
    assert "faster by" in capsys.readouterr().out
