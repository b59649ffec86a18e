"""The benchmark of the curvature's train molecules: all of them are the truth, some are near it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.fixtures.bench import make_bench

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

from curvature_rows import main


def test_all_rows_are_the_truth_and_some_are_near(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_bench(tmp_path)
    own = [
        *("--data", str(tmp_path / "primary.csv"), "--secondary", str(tmp_path / "secondary.csv")),
        *("--model", str(tmp_path / "model"), "--page", str(tmp_path / "page.md")),
    ]
    assert main([*own, "--quick"]) == 0
    text = capsys.readouterr().out
    some, every = (
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in text.splitlines()
        if line.startswith("| lora")
    )
    assert every[3:] == ["1.00", "", "", "100%", "1.00", "0.00"]
    assert some[:2] == ["lora", "20"]
    lowest = float(some[3].split(" to ")[0])
    assert 0.3 < lowest < 1  # of a random model of some thousand parameters
    assert 0 < float(some[8].split(" to ")[0]) < 5
    with pytest.raises(SystemExit):
        main(["--peft", "lorra", "--dry"])  # the model would be fitted by another method
    assert "--peft lorra: no method" in capsys.readouterr().err
    assert "curvature-rows:begin" in (tmp_path / "page.md").read_text(encoding="utf-8")
