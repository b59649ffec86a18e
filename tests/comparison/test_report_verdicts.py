"""What a report says of differences that were not tested, and of the time that cells took."""

from __future__ import annotations

from dataclasses import replace

from lipo_cli.comparison.cell_result import CellResult
from lipo_cli.comparison.report import _times
from lipo_cli.comparison.report_verdicts import _untested
from lipo_cli.comparison.summary import SummaryRow

ROW = SummaryRow(
    selection="random:k=5",
    peft="lora",
    role="control",
    n_seeds=2,
    n_failed=0,
    n_selected=5,
    n_train=105,
    trainable_parameters=10,
    seconds=1.0,
    val_rmse=0.6,
    test_rmse=0.6,
    test_rmse_sd=0.01,
    delta_none=0.012,
    delta_low=None,
    delta_high=None,
)


def test_no_interval_is_promised_where_there_is_none() -> None:
    (line,) = _untested(ROW, 3)
    assert line.sentence == "random:k=5 / lora: +0.012 against none"
    assert line.meaning == "mean over seeds, without an interval: a control for others"
    (line,) = _untested(replace(ROW, delta_low=-0.01, delta_high=0.034), 3)
    assert line.sentence.endswith("+0.012 [\N{MINUS SIGN}0.010, +0.034] against none")
    assert line.meaning.startswith("95 % interval over training seeds")
    (line,) = _untested(replace(ROW, n_seeds=1), 3)
    assert line.meaning.startswith("one seed")


def test_a_run_that_selections_share_has_taken_its_time_once() -> None:
    def cell(selection: str, run_id: str | None, seconds: float) -> CellResult:
        return CellResult(selection, "lora", 0, "asked", "finished", run_id=run_id, seconds=seconds)

    cells = [cell("all", "a", 4.0), cell("random:k=24", "a", 4.0), cell("none", "b", 2.0)]
    (time,) = _times([*cells, cell("tsds", None, 3.0), cell("knn", None, 3.0)])
    assert (time.n_cells, time.total) == (4, 12.0)
