"""The live table of a comparison on stderr: state, epoch, validation RMSE, time left."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from lipo_cli.commands.console import err, say
from lipo_cli.comparison.cell_result import CellResult
from lipo_cli.comparison.digits import rmse_text
from lipo_cli.comparison.plan import Cell
from lipo_cli.comparison.scoring import Scored
from lipo_cli.comparison.tuning_result import Tuned
from lipo_cli.comparison.tuning_space import described
from lipo_cli.comparison.tuning_trial import TrialResult

_STYLES = {"waiting": "dim", "training": "bold cyan", "found": "green", "done": "green"}


PLAIN_EVERY_S = 30.0
"""Between lines about a task, where stderr is no terminal."""
_AT_THE_START_S = 0.02
_RECENT = 4
"""Epochs of each of several cells side by side that tell the time left."""


@dataclass
class _Row:
    cell: Cell
    state: str = "waiting"
    epoch: int = 0
    val_rmse: float | None = None
    seconds: float | None = None
    note: str = ""


@dataclass
class _Task:
    name: str
    total: int | None
    unit: str
    begun: float
    done: int = 0
    shown: str = ""
    found: int = 0
    """Of `done`, what an earlier run had done: it says nothing of the rate."""


class CompareView:
    """Shows a comparison while it runs; plain lines where stderr is no terminal.

    Args:
        n_epochs: Epochs of a cell, for the time left.
        console: Where to draw.
        jobs: Cells side by side.
    """

    def __init__(self, n_epochs: int, console: Console = err, *, jobs: int = 1) -> None:
        self._n_epochs = n_epochs
        self._jobs = jobs
        self._console = console
        self._rows: dict[Cell, _Row] = {}
        self._expected = 0
        self._tasks: list[_Task] = []
        self._last_line = time.monotonic()
        self._epoch_seconds: list[float] = []
        self._live = (
            Live(console=console, refresh_per_second=4, get_renderable=self._draw, transient=True)
            if console.is_terminal
            else None
        )

    def __enter__(self) -> Self:
        """Starts drawing."""
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Gives the terminal back."""
        if self._live is not None:
            self._live.stop()

    def planned(self, cells: Sequence[Cell], n_expected: int) -> None:
        """Takes the cells known so far, keeping the state of those already there."""
        self._rows = {cell: self._rows.get(cell, _Row(cell)) for cell in cells}
        self._expected = n_expected

    def started(self, cell: Cell) -> None:
        """Marks a cell as being worked on."""
        self._row(cell).state = "training"

    def epoch(self, cell: Cell, row: Mapping[str, float]) -> None:
        """Takes an epoch's numbers."""
        shown = self._row(cell)
        shown.epoch = int(row["epoch"])
        if shown.val_rmse is None or row["val_rmse"] < shown.val_rmse:
            shown.val_rmse = row["val_rmse"]
        self._epoch_seconds.append(row["seconds"])
        if self._live is None:
            left = f", {_clock(self.seconds_left())} left in all"
            say(
                f"{cell.name}: epoch {shown.epoch}/{self._n_epochs}, "
                f"validation RMSE {rmse_text(row['val_rmse'])}{left}"
            )

    def finished(self, cell: Cell, result: CellResult) -> None:
        """Takes a cell's result."""
        row = self._row(cell)
        row.epoch = len(result.history)
        row.val_rmse = result.val_rmse
        row.seconds = result.seconds
        if result.status == "failed":
            row.state, row.note = "failed", result.error or ""
        else:
            row.state = "found" if result.reused else "done"
        if self._live is None:
            number = f", validation RMSE {rmse_text(result.val_rmse)}" if result.val_rmse else ""
            say(f"{cell.name}: {row.state}{number}{': ' if row.note else ''}{row.note}")

    def scored(self, scored: Scored) -> None:
        """Tells what scoring found."""
        self._print("; ".join(filter(None, (f"{scored.method}: {scored.reason}", scored.sentence))))

    def _print(self, line: str) -> None:
        if self._live is not None:
            self._live.console.print(Text(line), soft_wrap=True)
        else:
            say(line)

    def tried(self, cell: Cell, trial: TrialResult, over: Sequence[TrialResult], n: int) -> None:
        """Tells how a trial of a tuning ended, the best so far and the time left."""
        self._print(_trial_line(cell, trial, over, n))

    def waiting(self, cell: Cell, n_open: int) -> None:
        """Tells that other processes are at the last trials of a tuning."""
        self._print(f"tuning {cell.peft}: other processes are at {n_open} trials: waiting for them")

    def tuned(self, tuned: Tuned) -> None:
        """Tells what is trained with from here on."""
        again = ", found again" if tuned.reused else ""
        self._print(f"tuning {tuned.cell.peft}: {described(tuned.parameters)} from here on{again}")

    def start(self, name: str, total: int | None, unit: str) -> None:
        """Opens a task below the table."""
        self._tasks.append(_Task(name, total, unit, time.monotonic()))

    def advance(self, n: int = 1, **fields: float | int | str) -> None:
        """Reports units of the innermost task."""
        if self._tasks:
            task = self._tasks[-1]
            if task.done == 0 and time.monotonic() - task.begun < _AT_THE_START_S:
                task.found = n
            task.done += n
            task.shown = "  ".join(
                f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in fields.items()
            )
            if self._live is None and time.monotonic() - self._last_line > PLAIN_EVERY_S:
                self._last_line = time.monotonic()
                say(_describe(task))

    def finish(self) -> None:
        """Closes the innermost task."""
        if self._tasks:
            self._tasks.pop()

    def seconds_left(self) -> float:
        """Estimates the time left: epochs to come, early stopping not counted on."""
        if not self._epoch_seconds:
            return 0.0
        # Side by side epochs take longer than that of the reference model, which runs alone.
        recent = self._epoch_seconds[-_RECENT * self._jobs :] if self._jobs > 1 else []
        taken = recent or self._epoch_seconds
        per_epoch = sum(taken) / len(taken)
        open_rows = [r for r in self._rows.values() if r.state in ("waiting", "training")]
        unknown = max(0, self._expected - len(self._rows))
        epochs = sum(self._n_epochs - r.epoch for r in open_rows) + unknown * self._n_epochs
        return per_epoch * epochs / min(self._jobs, max(1, len(open_rows) + unknown))

    def _row(self, cell: Cell) -> _Row:
        return self._rows.setdefault(cell, _Row(cell))

    def _draw(self) -> Group:
        table = Table(box=None, header_style="bold", pad_edge=False)
        for name in ("selection", "method", "seed", "state"):
            table.add_column(name)
        for name in ("epoch", "val RMSE", "seconds"):
            table.add_column(name, justify="right")
        for row in self._rows.values():
            table.add_row(
                row.cell.label,
                row.cell.peft,
                str(row.cell.seed),
                Text(f"{row.state} {row.note}"[:60], style=_STYLES.get(row.state, "red")),
                f"{row.epoch}/{self._n_epochs}" if row.epoch else "",
                rmse_text(row.val_rmse),
                f"{row.seconds:.0f}" if row.seconds is not None else "",
            )
        lines: list[Table | Text] = [table]
        if self._expected > len(self._rows):
            lines.append(
                Text(f"+ {self._expected - len(self._rows)} random controls of equal size", "dim")
            )
        lines.extend(Text(_describe(task), "cyan") for task in self._tasks)
        if self._epoch_seconds:
            lines.append(Text(f"about {_clock(self.seconds_left())} left"))
        return Group(*lines)


def _describe(task: _Task) -> str:
    elapsed = time.monotonic() - task.begun
    new = task.done - task.found
    known = new > 0 and elapsed > 0
    rate = f", {new / elapsed:,.1f} {task.unit}/s" if known else ""
    total = f"/{task.total:,}" if task.total else ""
    left = ""
    if known and task.total:
        left = f", {_clock(elapsed * max(0, task.total - task.done) / new)} left"
    return f"{task.name}: {task.done:,}{total} {task.unit}{rate}{left}  {task.shown}".rstrip()


def _trial_line(cell: Cell, trial: TrialResult, over: Sequence[TrialResult], n: int) -> str:
    """Says how a trial ended, the best so far, and about how long the rest takes.

    Args:
        cell: What is tuned.
        trial: The trial.
        over: All trials that are over.
        n: How many there are to be.
    """
    value = f", validation RMSE {rmse_text(trial.val_rmse)}" if trial.val_rmse is not None else ""
    ended = f"pruned after epoch {len(trial.curve)}" if trial.state == "pruned" else trial.state
    line = f"tuning {cell.peft}: trial {trial.ordinal + 1}/{n} {ended}{value}"
    line += f" ({described(trial.parameters)})"
    complete = [t for t in over if t.state == "complete" and t.val_rmse is not None]
    if complete:
        best = min(complete, key=lambda t: (t.val_rmse, t.ordinal))
        line += f"; best {rmse_text(best.val_rmse)}, trial {best.ordinal + 1}"
    left = (n - len(over)) * sum(t.seconds for t in over) / max(1, len(over))
    return f"{line}; {_clock(left)} left" if len(over) < n else line


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}:{rest:02d}"
