"""The grid behind the kernel readout: its chosen cell is the product's readout."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.fixtures.bench import make_bench

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import accuracy
from accuracy_ours import _content
from kernel_grid import main
from split_files import split_file

from lipo_cli.model.kernel import KernelReadout
from lipo_cli.settings import DataSettings, TrainingSettings, build


def test_the_chosen_cell_is_the_readout_and_kept_networks_join_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_bench(tmp_path)
    data, model = str(tmp_path / "primary.csv"), str(tmp_path / "model")
    own = ["--data", data, "--model", model, "--out", str(tmp_path / "out")]
    page = tmp_path / "page.md"
    assert main([*own, "--page", str(page)]) == 0
    text = capsys.readouterr().out
    assert "share beside networks" not in text
    settings = build(DataSettings, {"dataset": data, "split": "reference"})
    splits = split_file(settings, tmp_path / "out")
    train, val = splits.examples("train"), splits.examples("val")
    training = build(TrainingSettings, {"model": model})
    readout = KernelReadout.fit(training, train.smiles, train.labels)
    rmse = np.sqrt(np.mean((readout.predict(val.smiles) - val.labels) ** 2))
    chosen = re.findall(r"\| 0\.5 \| 1 \|.*\*\*([0-9.]+)\*\*", text)
    assert [float(cell) for cell in chosen] == [pytest.approx(rmse, abs=6e-4)]
    assert "kernel-grid:begin" in page.read_text(encoding="utf-8")
    # Networks of the accuracy benchmark, trained with the same settings, are found.
    assert accuracy.main([*own, "--split", "reference", "--seeds", "1", "--dry"]) == 0
    capsys.readouterr()
    assert main([*own, "--dry"]) == 0
    assert "| share beside networks | one network, mean of 1 |" in capsys.readouterr().out


def test_a_patience_that_cannot_run_out_is_that_of_none() -> None:
    keys = [
        _content(build(TrainingSettings, {"epochs": 20, "patience": patience}))
        for patience in (None, 20, 99)
    ]
    assert keys[0] == keys[1] == keys[2]
    assert _content(build(TrainingSettings, {"epochs": 20, "patience": 5})) != keys[0]
