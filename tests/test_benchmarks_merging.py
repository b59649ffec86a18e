"""The benchmark of merged adapters: both ways take turns, and other predictions are no result."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import merging
from merging import Compared, compare, main, section

from lipo_cli.model import merging as adapters
from tests.fixtures.models import SMILES, disturb, tiny_checkpoint, tiny_regressor


def test_ratios_are_those_of_a_round() -> None:
    row = Compared("lora", 3, merged=(1.0, 2.0, 4.0), layers=(2.0, 2.0, 12.0))
    assert row.gain == 2.0
    assert "| lora | 3 | 2000 | 2000 | 2.00x |" in section([row], "small", 0.0)


def test_both_ways_take_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    regressor = tiny_regressor(tiny_checkpoint(tmp_path), "lora")
    disturb(regressor)
    regressor.model.eval()
    seen: list[int] = []
    predict = regressor.predict

    def watched(smiles: list[str]) -> object:
        seen.append(adapters.WORTH_MERGING)
        return predict(smiles)

    monkeypatch.setattr(regressor, "predict", watched)
    row = compare(regressor, SMILES, repeats=2)
    assert seen == [0, sys.maxsize] * 3
    assert adapters.WORTH_MERGING == 64
    assert (len(row.merged), len(row.layers), row.n) == (2, 2, len(SMILES))


def test_ways_that_differ_are_no_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    regressor = tiny_regressor(tiny_checkpoint(tmp_path), "lora")
    monkeypatch.setattr(
        regressor, "predict", lambda s: np.full(len(s), float(adapters.WORTH_MERGING > 0))
    )
    with pytest.raises(SystemExit, match="differ by"):
        compare(regressor, SMILES, repeats=1)


def test_a_quick_run_writes_its_section(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tiny_checkpoint(tmp_path / "model")
    page = tmp_path / "page.md"
    assert main(["--quick", "--model", str(model), "--page", str(page)]) == 0
    text = page.read_text(encoding="utf-8")
    assert all(f"| {peft} | {n} |" in text for peft in merging.METHODS for n in (1, 8))
    assert "merging:begin" in text
    assert "faster by" in capsys.readouterr().out
