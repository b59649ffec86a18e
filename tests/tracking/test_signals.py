from __future__ import annotations

import os
import signal
import threading

import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine

from lipo_cli.errors import Interrupted
from lipo_cli.tracking.runs import find_runs, start_run
from lipo_cli.tracking.signals import (
    deferred_signals,
    is_interruption,
    raise_on_sigterm,
    sigterm_raises,
)
from lipo_cli.tracking.store import Store


def test_sigterm_raises_interrupted_with_its_exit_code() -> None:
    raise_on_sigterm()
    with pytest.raises(Interrupted) as caught:
        os.kill(os.getpid(), signal.SIGTERM)
    assert caught.value.exit_code == 143


def test_handler_of_somebody_else_is_left_alone() -> None:
    seen = []
    signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
    raise_on_sigterm()
    os.kill(os.getpid(), signal.SIGTERM)
    assert seen == [signal.SIGTERM]


def test_old_handler_comes_back() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with sigterm_raises():
        assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@pytest.mark.parametrize(
    ("number", "error"), [(signal.SIGTERM, Interrupted), (signal.SIGINT, KeyboardInterrupt)]
)
def test_signal_waits_for_the_end_of_the_block(number: int, error: type[BaseException]) -> None:
    raise_on_sigterm()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    steps = []

    def work() -> None:
        with deferred_signals():
            steps.append("before")
            with deferred_signals():
                os.kill(os.getpid(), number)
                steps.append("inner")
            steps.append("outer")

    with pytest.raises(error):
        work()
    assert steps == ["before", "inner", "outer"]


def test_ignored_signal_stays_ignored() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with deferred_signals():
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_other_threads_are_let_through() -> None:
    done = []

    def work() -> None:
        with sigterm_raises(), deferred_signals():
            raise_on_sigterm()
            done.append(1)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [1]


def test_interruption_is_seen_through_wrapping() -> None:
    wrapped, outer = OSError("wrapped"), ValueError("again")
    wrapped.__cause__ = KeyboardInterrupt()
    outer.__context__ = wrapped
    assert is_interruption(wrapped)
    assert is_interruption(outer)
    assert not is_interruption(ValueError())


def test_signal_in_the_middle_of_a_read_is_not_turned_into_an_error(store: Store) -> None:
    raise_on_sigterm()
    with start_run(store, "lipo", "there"):
        pass

    def strike(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    event.listen(Engine, "before_cursor_execute", strike)
    try:
        with pytest.raises(Interrupted):
            find_runs(store, "lipo")
    finally:
        event.remove(Engine, "before_cursor_execute", strike)
    assert len(find_runs(store, "lipo")) == 1


def test_signal_is_delivered_though_the_block_failed() -> None:
    raise_on_sigterm()

    def work() -> None:
        with deferred_signals():
            os.kill(os.getpid(), signal.SIGTERM)
            raise ValueError("the write failed too")

    with pytest.raises(Interrupted):
        work()
