"""The throughput benchmark: the ways of training differ in what they say, and all are timed."""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

from lipo_cli.chem.molecules import canonical_smiles
from lipo_cli.model.batches import collate
from tests.fixtures.bench import make_bench
from tests.fixtures.models import SMILES, tiny_checkpoint, tiny_regressor

# The benchmarks are scripts: they import each other by their bare names.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import throughput
from prediction_run import PredictionRun, measure_prediction, write_molecules
from training_ways import OURS, PADDED, REDRAWN, StepClock, Timing, in_place, ratios, settings_for

PYTHON = sys.executable


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return tiny_checkpoint(tmp_path / "model")


def test_padding_lasts_as_long_as_the_way(checkpoint: Path) -> None:
    regressor = tiny_regressor(checkpoint)
    rows = regressor.encode(["CCO", "c1ccccc1"]).ids
    with in_place(OURS, regressor):
        assert collate(rows, 2).input_ids.shape == (2, 16)
    with in_place(PADDED, regressor):
        assert collate(rows, 2).input_ids.shape == (2, 128)
    assert collate(rows, 2).input_ids.shape == (2, 16)


def test_features_are_redrawn_at_each_pass_of_the_published_way_alone(checkpoint: Path) -> None:
    regressor = tiny_regressor(checkpoint)
    layer = regressor.network.molformer.encoder.layer[0].attention.self
    drawn = layer.feature_map.weight
    for way, changes in ((PADDED, False), (REDRAWN, True)):
        before = drawn.clone()
        with in_place(way, regressor):
            regressor.predict(["CCO"])
            first = drawn.clone()
            regressor.predict(["CCO"])
        assert torch.equal(before, first) is not changes
        assert torch.equal(first, drawn) is not changes
    last = drawn.clone()
    regressor.predict(["CCO"])
    assert torch.equal(last, drawn)


def test_the_ways_share_every_setting_but_length_and_precision(checkpoint: Path) -> None:
    ours, padded = (
        settings_for(way, str(checkpoint), 8, epochs=2).model_dump() for way in (OURS, PADDED)
    )
    assert {name for name in ours if ours[name] != padded[name]} == {"max_length", "precision"}
    assert (padded["max_length"], padded["precision"]) == (128, "float32")


def test_a_validation_is_not_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter([10.0, 12.0, 15.0])
    monkeypatch.setattr("training_ways.time.perf_counter", lambda: next(ticks))
    clock = StepClock()
    clock.start("full", 2, "batches")
    clock.advance(1)
    clock.advance(1)
    clock.advance(0, val_rmse=0.7)
    assert clock.seconds == 5.0


def test_ratios_are_taken_within_a_round() -> None:
    timings = [
        *(Timing("ours", 100, 1.0, 1.5), Timing("padded", 100, 4.0, 5.0)),
        *(Timing("ours", 100, 2.0, 2.5), Timing("padded", 100, 6.0, 7.0)),
    ]
    assert ratios(timings, PADDED) == [4.0, 3.0]
    assert timings[0].rate == 100
    assert throughput.spread_of([4.0, 3.0], "{:.1f}") == "3.5 (3.0 to 4.0)"
    assert throughput.spread_of([4.0], "{:.1f}") == "4.0"


def test_the_rate_between_two_sizes_leaves_out_the_start() -> None:
    lines = throughput.prediction_lines(
        [PredictionRun(100, 11.0, 0.5), PredictionRun(1100, 21.0, 0.5)]
    )
    assert lines[-1] == "Between the two sizes, without the start: 100 molecules/s."
    assert "| 1,100 | 21.0 | 52 | 0.50 |" in lines


def test_the_file_of_molecules_repeats_those_given(tmp_path: Path) -> None:
    write_molecules(tmp_path / "m.csv", SMILES, 30)
    written = pd.read_csv(tmp_path / "m.csv")["smiles"].tolist()
    assert written[: len(SMILES)] == list(SMILES)
    assert len(written) == 30
    expected = [canonical_smiles(SMILES[i % len(SMILES)]) for i in range(30)]
    assert [canonical_smiles(text) for text in written] == expected


def fake_python(folder: Path, lines: str) -> str:
    script = folder / "python"
    script.write_text(f"#!{PYTHON} -S\nimport sys\n{lines}\n")
    script.chmod(0o755)
    return str(script)


def test_a_prediction_that_fails_or_loses_rows_is_no_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, model = tmp_path / "m.csv", tmp_path / "model"
    write_molecules(file, SMILES, 3)
    broken = fake_python(tmp_path, "sys.exit('no such folder')")
    monkeypatch.setattr("sys.executable", broken)
    with pytest.raises(SystemExit, match="no such folder"):
        measure_prediction(model, file, 3, threads=1)
    lines = "open(sys.argv[-1], 'w').write('id,smiles,prediction\\n0,C,1.0\\n')"
    monkeypatch.setattr("sys.executable", fake_python(tmp_path, lines))
    with pytest.raises(SystemExit, match="1 rows of 3"):
        measure_prediction(model, file, 3, threads=1)
    run = measure_prediction(model, file, 1, threads=1)
    assert run.rate == 1 / run.seconds
    assert 0 <= run.peak_gib < 1


@pytest.mark.slow
def test_a_quick_run_writes_both_sections(tmp_path: Path) -> None:
    bench, page = tmp_path / "bench", tmp_path / "page.md"
    make_bench(bench)
    command = [
        *("--quick", "--data", str(bench / "primary.csv"), "--model", str(bench / "model")),
        *("--epochs", "1", "--threads", "1", "--n-predict", "30", "--page", str(page)),
    ]
    assert throughput.parse(command[:1]).page is None
    assert throughput.main(command) == 0
    text = page.read_text()
    assert "<!-- throughput-training:begin -->" in text
    assert "<!-- throughput-prediction:begin -->" in text
    assert "features redrawn by QR |" in text
    assert "Best validation RMSE within 1 epoch(s)" in text
    assert "| 30 | " in text
