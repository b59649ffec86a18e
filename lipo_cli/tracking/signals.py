"""Ctrl-C and SIGTERM: raised as exceptions, and held back while a run is being written.

A signal that lands inside a database write is turned into an ordinary database error on its way
up, and a run that is being closed when the signal comes stays open for ever. So every short call
to MLflow runs under `deferred_signals`: the signal is delivered right after it.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from lipo_cli.errors import Interrupted

_HELD = (signal.SIGINT, signal.SIGTERM)


def _raise_interrupted(number: int, _frame: FrameType | None) -> None:
    raise Interrupted(number)


def raise_on_sigterm() -> None:
    """Makes SIGTERM raise `Interrupted(15)`, unless someone already handles it.

    Does nothing outside the main thread, where Python allows no handlers.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _raise_interrupted)


@contextmanager
def sigterm_raises() -> Iterator[None]:
    """Makes SIGTERM raise `Interrupted(15)` inside the block, and puts the old handler back."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    raise_on_sigterm()
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before if before is not None else signal.SIG_DFL)


@contextmanager
def deferred_signals() -> Iterator[None]:
    """Holds Ctrl-C and SIGTERM back until the end of the block, then delivers the first of them.

    Only signals with a Python handler can be held; the others keep their meaning.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    pending: list[tuple[int, FrameType | None]] = []

    def hold(number: int, frame: FrameType | None) -> None:
        pending.append((number, frame))

    before = {number: signal.getsignal(number) for number in _HELD}
    held = {number: old for number, old in before.items() if callable(old)}
    for number in held:
        signal.signal(number, hold)
    try:
        yield
    finally:
        for number, handler in held.items():
            signal.signal(number, handler)
        if pending:  # whether the block raised or not
            first, at = pending[0]
            held[signal.Signals(first)](first, at)


def is_interruption(error: BaseException | None) -> bool:
    """Tells whether an exception is a stop from outside, or was caused by one."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, KeyboardInterrupt | Interrupted | SystemExit | GeneratorExit):
            return True
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return False
