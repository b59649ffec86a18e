from __future__ import annotations

import io
import json
import math

import pytest
from rich.console import Console

from lipo_cli.commands.console import RichProgress, _clock, emit_json, say


def test_json_has_no_nan(capsys: pytest.CaptureFixture[str]) -> None:
    emit_json({"a": math.nan, "b": [1.5, math.inf, {"c": (math.nan,)}], "d": "NaN"})
    content = json.loads(capsys.readouterr().out)
    assert content == {"a": None, "b": [1.5, None, {"c": [None]}], "d": "NaN"}


def test_messages_go_to_stderr_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    say("x" * 500 + " [not markup]")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "x" * 500 + " [not markup]\n"


def test_plain_progress_tells_rate_time_left_and_fields() -> None:
    stream = io.StringIO()
    with RichProgress(Console(file=stream, width=200), every=0) as progress:
        progress.start("comparing", 2, "cells")
        progress.start("training", 10, "batches")
        for step in range(5):
            progress.advance(val_rmse=0.7123456, epoch=step)
        progress.finish()
        progress.advance()
        progress.finish()
    lines = stream.getvalue().splitlines()
    assert lines[0].startswith("comparing > training: 1/10 batches")
    assert "val_rmse 0.7123  epoch 4" in lines[4]
    assert "batches/s" in lines[4]
    assert lines[5].startswith("comparing: 1/2 cells")


def test_plain_progress_is_quiet_between_its_lines() -> None:
    stream = io.StringIO()
    with RichProgress(Console(file=stream), every=3600) as progress:
        progress.start("predicting", None, "molecules")
        for _ in range(1000):
            progress.advance(7)
        progress.finish()
    assert stream.getvalue() == ""


def test_unknown_total_is_no_total() -> None:
    stream = io.StringIO()
    with RichProgress(Console(file=stream, width=200), every=0) as progress:
        progress.start("predicting", None, "molecules")
        progress.advance(2048)
    assert stream.getvalue().startswith("predicting: 2,048 molecules")


def test_terminal_is_given_back_after_a_failure() -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True)

    def work() -> None:
        with RichProgress(console) as progress:
            progress.start("training", 10, "batches")
            progress.advance(loss=1.0)
            raise ValueError("x")

    with pytest.raises(ValueError, match="x"):
        work()
    # Cursor hidden once, shown again at the end.
    assert stream.getvalue().count("\x1b[?25l") == stream.getvalue().count("\x1b[?25h") == 1


def test_extra_steps_outside_a_task_do_nothing() -> None:
    progress = RichProgress(Console(file=io.StringIO()))
    progress.advance()
    progress.finish()


@pytest.mark.parametrize(("seconds", "text"), [(5, "0:05"), (65, "1:05"), (3725, "1:02:05")])
def test_clock(seconds: float, text: str) -> None:
    assert _clock(seconds) == text
