"""What the terminal shows: results on stdout, everything else on stderr."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

# A file or a pipe has no width of its own: a table cut to 80 columns would lose digits there.
PIPE_WIDTH = 160
out = Console(highlight=False, width=None if sys.stdout.isatty() else PIPE_WIDTH)
err = Console(stderr=True, highlight=False)

PLAIN_EVERY_S = 5.0


def say(message: str) -> None:
    """Tells the user something on stderr, in one line however long it is."""
    err.print(Text(message), soft_wrap=True)


def warn(message: str) -> None:
    """Warns the user on stderr."""
    err.print(Text(f"warning: {message}", style="yellow"), soft_wrap=True)


def emit_json(content: object) -> None:
    """Prints one JSON document on stdout; NaN and infinity become null, which JSON has."""
    sys.stdout.write(json.dumps(json_ready(content), allow_nan=False, default=str) + "\n")
    sys.stdout.flush()


def json_ready(content: object) -> object:
    """Returns the content with NaN and infinity as None, which JSON has."""
    if isinstance(content, Mapping):
        return {str(key): json_ready(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [json_ready(value) for value in content]
    if isinstance(content, float) and not math.isfinite(content):
        return None
    return content


class RichProgress:
    """Bars on stderr with rate and time left; a plain line every few seconds where no one looks.

    Tasks nest: the innermost one advances. Use it as a context manager, so that the terminal is
    given back on every way out.
    """

    def __init__(self, console: Console = err, every: float = PLAIN_EVERY_S) -> None:
        self._plain = not console.is_terminal
        self._console = console
        self._every = every
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            _Rate(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[shown]}"),
            console=console,
            transient=True,
        )
        self._open: list[TaskID] = []
        self._last_line = time.monotonic()

    def __enter__(self) -> Self:
        """Returns itself; the bars appear with the first task."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Takes the bars away."""
        self._open.clear()
        self._stop()

    def start(self, name: str, total: int | None, unit: str) -> None:
        """Opens a task of `total` units (None: unknown) inside the present one."""
        if not self._plain and not self._open:
            self._bars.start()
        self._open.append(self._bars.add_task(name, total=total, unit=unit, shown=""))

    def advance(self, n: int = 1, **fields: float | int | str) -> None:
        """Reports `n` more units of the innermost task, with fields to show."""
        if not self._open:
            return
        update: dict[str, Any] = {"shown": _shown(fields)} if fields else {}
        self._bars.update(self._open[-1], advance=n, **update)
        if self._plain:
            self._maybe_print()

    def finish(self) -> None:
        """Closes the innermost task."""
        if not self._open:
            return
        self._bars.remove_task(self._open.pop())
        if not self._open:
            self._stop()

    def _stop(self) -> None:
        # Where nothing was shown, stopping would print an empty line.
        if not self._plain:
            self._bars.stop()

    def _maybe_print(self) -> None:
        now = time.monotonic()
        if now - self._last_line < self._every:
            return
        self._last_line = now
        names = [self._task(task).description for task in self._open]
        self._console.print(
            Text(f"{' > '.join(names)}: {_line(self._task(self._open[-1]))}"), soft_wrap=True
        )

    def _task(self, number: TaskID) -> Task:
        return next(task for task in self._bars.tasks if task.id == number)


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(_rate(task))


def _rate(task: Task) -> str:
    speed = task.finished_speed or task.speed
    if not speed:
        return ""
    unit = task.fields["unit"]
    # Slow work reads better the other way round.
    return f"{speed:,.1f} {unit}/s" if speed >= 0.1 else f"{1 / speed:,.0f} s per {unit}"


def _line(task: Task) -> str:
    total = f"/{task.total:,.0f}" if task.total is not None else ""
    left = task.time_remaining
    parts = [
        f"{task.completed:,.0f}{total} {task.fields['unit']}",
        _rate(task),
        f"{_clock(left)} left" if left else "",
        task.fields["shown"],
    ]
    return ", ".join(part for part in parts if part)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _shown(fields: Mapping[str, float | int | str]) -> str:
    return "  ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in fields.items()
    )
