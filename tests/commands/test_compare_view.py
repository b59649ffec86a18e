"""What a comparison and a scoring say while they run and nobody looks."""

from __future__ import annotations

import pytest

from lipo_cli.commands import compare_view
from lipo_cli.commands.compare_view import CompareView


class Clock:
    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The view's clock, which the test moves."""
    found = Clock()
    monkeypatch.setattr(compare_view.time, "monotonic", found.monotonic)
    return found


def test_long_tasks_say_how_far_they_are(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with CompareView(5) as view:
        view.start("embedding", 1_000, "molecules")
        for clock.now in range(10, 101, 10):
            view.advance(50)
        view.finish()
        view.advance(50)  # of nothing
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "embedding: 200/1,000 molecules, 5.0 molecules/s, 2:40 left",
        "embedding: 400/1,000 molecules, 5.0 molecules/s, 2:00 left",
    ]


def test_what_an_earlier_run_did_is_not_in_the_rate(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with CompareView(5) as view:
        view.start("lora", 100, "batches")
        view.advance(60, epoch=3)
        clock.now = 40.0
        view.advance(20, epoch=4)
    line = "lora: 80/100 batches, 0.5 batches/s, 0:40 left  epoch 4"
    assert capsys.readouterr().err.splitlines() == [line]
