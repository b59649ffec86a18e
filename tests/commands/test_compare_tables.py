"""What a comparison prints is whole, however narrow the terminal is."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console

from lipo_cli.commands import compare_tables
from lipo_cli.comparison.cell_result import CellResult
from lipo_cli.comparison.constant import Constant, constant_line, hardly_beaten, warning_line
from lipo_cli.comparison.statistics import verdicts_of
from lipo_cli.comparison.summary import summarise
from lipo_cli.settings import CompareSettings


def cells(val: float = 0.6) -> list[CellResult]:
    """Two selections with two methods and three seeds, whose numbers are all different."""
    return [
        CellResult(
            *(name, peft, seed, "asked", "finished"),
            n_selected=48 * i,
            n_train=3024 + 48 * i,
            trainable_parameters=3_319_809,
            seconds=100.0 + i,
            val_rmse=val + seed / 100,
            test_rmse=0.612345 + i / 10 + seed * (1 + i) / 100 + j / 1000,
        )
        for i, name in enumerate(("none", "tsds:top=48"))
        for j, peft in enumerate(("full", "bitfit"))
        for seed in range(3)
    ]


@pytest.mark.parametrize(("width", "left_out"), [(160, 0), (100, 2), (80, 4), (40, 4)])
def test_no_number_of_the_table_is_cut(
    width: int, left_out: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = io.StringIO()
    monkeypatch.setattr(compare_tables, "out", Console(file=shown, width=width, highlight=False))
    summary = summarise(cells())
    compare_tables.print_whole(
        lambda names: compare_tables._summary_table(summary, names), compare_tables._LEFT_OUT_FIRST
    )
    text = shown.getvalue()
    assert "…" not in text
    for row in summary:
        assert row.selection in text
        assert row.peft in text
        assert f"{row.test_rmse:.4f} ± {row.test_rmse_sd:.4f}" in text
        if row.delta_none is not None:
            assert f"{row.delta_none:+.4f} [{row.delta_low:+.4f}, {row.delta_high:+.4f}]" in text
    names = ("parameters", "seconds", "train", "chosen")
    assert [name for name in names if name not in text] == list(names[:left_out])
    if left_out < len(names):
        assert max(map(len, text.splitlines())) <= width


@pytest.mark.parametrize(("val", "warned"), [(0.6, False), (0.97, True)])
@pytest.mark.parametrize("as_json", [False, True])
def test_what_every_model_has_to_beat_is_said(
    val: float, warned: bool, as_json: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    result = SimpleNamespace(
        constants=[Constant(None, 1.0, 2.0)], cells=cells(val), summary=[], verdicts=[],
        tunings=SimpleNamespace(found={}), overlaps=[], champion=None,
    )  # fmt: skip
    tell = compare_tables.tell_notes if as_json else compare_tables.show_result
    tell(result, CompareSettings())  # type: ignore[arg-type]  # all that it reads
    said = capsys.readouterr().err
    assert "predicted for all: val RMSE 1.0000, test RMSE 2.0000" in said
    assert ("warning: the mean label" in said) is warned


def test_the_mean_label_is_measured_on_every_split() -> None:
    labels = {"train": [1.0, 3.0], "val": [1.0, 3.0], "test": [0.0, 4.0]}
    parts = {name: SimpleNamespace(labels=np.array(each)) for name, each in labels.items()}
    prepared = SimpleNamespace(train=parts["train"], part=parts.__getitem__)
    easy = Constant.of(prepared, 0)  # type: ignore[arg-type]  # all that it reads
    assert easy == Constant(0, 1.0, 2.0)
    hard = replace(easy, split=1, val_rmse=0.5)
    both = [replace(cell, split=split) for cell in cells(0.6) for split in (0, 1)]
    assert not hardly_beaten([easy], both)
    # Well on one split, no better than the mean on the other: the other is named.
    assert hardly_beaten([easy, hard], both) == [hard]
    assert warning_line([hard], 2, 2).endswith(
        "val RMSE 0.50, test RMSE 2.00 (split 1); no cell is much better than that on that split"
    )
    assert constant_line([easy, hard], 2).endswith(
        "val RMSE 1.00, test RMSE 2.00 (split 0); val RMSE 0.50, test RMSE 2.00 (split 1)"
    )


@pytest.mark.parametrize(
    ("epochs", "added", "expected"),
    [(1, True, None), (3, False, "falling: give"), (3, True, "falling; with equal steps a cell")],
)
def test_only_what_there_is_to_say_is_said_of_late_epochs(
    epochs: int, added: bool, expected: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    history = [{"epoch": float(i)} for i in range(epochs)]
    done = [
        replace(cell, best_epoch=epochs, history=history, n_selected=cell.n_selected * added)
        for cell in cells()
        if cell.n_selected is not None
    ]
    training = CompareSettings().training.model_copy(update={"epochs": epochs})
    compare_tables._tell_training(done, training)
    said = capsys.readouterr().err
    assert (expected or "falling") in said or expected is None
    assert ("still falling" in said) is (expected is not None)


def test_no_number_of_small_labels_is_all_zeros(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Labels in mol/l: RMSEs of 6e-6."""
    shown = io.StringIO()
    monkeypatch.setattr(compare_tables, "out", Console(file=shown, width=200, highlight=False))
    small = [
        replace(cell, val_rmse=cell.val_rmse * 1e-5, test_rmse=cell.test_rmse * 1e-5)
        for cell in cells()
        if cell.val_rmse is not None and cell.test_rmse is not None
    ]
    result = SimpleNamespace(
        constants=[Constant(None, 9e-6, 8e-6)], cells=small, summary=summarise(small),
        verdicts=verdicts_of(small), tunings=SimpleNamespace(found={}), overlaps=[], champion=None,
    )  # fmt: skip
    assert len(result.verdicts) == 2
    compare_tables.show_result(result, CompareSettings(seeds=3))  # type: ignore[arg-type]
    text = shown.getvalue()
    for row in result.summary:
        assert f"{row.val_rmse:.9f}" in text
        assert f"{row.test_rmse:.9f} ± {row.test_rmse_sd:.9f}" in text
    assert "val RMSE 0.000009000, test RMSE 0.000008000" in capsys.readouterr().err
    assert all(verdict.sentence() in text for verdict in result.verdicts)
    numbers = re.findall(r"\d+\.\d+", text)
    assert len(numbers) > 20
    assert not [number for number in numbers if float(number) == 0]
