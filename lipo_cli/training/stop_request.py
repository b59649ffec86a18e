"""Ctrl-C and SIGTERM as a question asked between steps, so that no step is ever half done."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self

from lipo_cli.errors import Interrupted

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """Remembers the first signal inside its block; the second one stops at once.

    with StopRequest() as stop:
        while working:
            step()
            stop.check()

    `signal_number` is the signal that came, or None. Outside the main thread, where Python allows
    no handlers, and outside its block, nothing is ever asked.
    """

    def __init__(self) -> None:
        self.signal_number: int | None = None
        self._before: dict[int, Any] = {}

    def check(self) -> None:
        """Raises Interrupted when a signal came."""
        if self.signal_number is not None:
            raise Interrupted(self.signal_number)

    def __enter__(self) -> Self:
        """Takes both signals over."""
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._ask) for number in _SIGNALS}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Gives both signals back."""
        for number, handler in self._before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        self._before = {}

    def _ask(self, number: int, _frame: FrameType | None) -> None:
        if self.signal_number is not None:
            raise Interrupted(number)
        self.signal_number = number
