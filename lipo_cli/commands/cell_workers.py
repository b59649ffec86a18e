"""Cells of a comparison side by side, each in a process with its share of the cores.

The matrices of a small model keep few cores busy, and between them Python has the word; cells know
nothing of each other. How much that gives is a matter of the machine: benchmarks/jobs.py.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from lipo_cli.comparison.cell_result import CellResult
from lipo_cli.comparison.cell_runs import Task, failed, run_task
from lipo_cli.comparison.ledger import Ledger
from lipo_cli.comparison.plan import Cell
from lipo_cli.comparison.prepare import Prepared
from lipo_cli.comparison.view import View
from lipo_cli.errors import Interrupted, TrainingError
from lipo_cli.model.precision import threads_of
from lipo_cli.tracking.signals import raise_on_sigterm

_TO_CLOSE_S = 30.0
"""For a process that was told to stop, to close its run."""


class CellWorkers:
    """Processes that run cells side by side.

    Args:
        n: How many.
    """

    def __init__(self, n: int) -> None:
        self._n = n

    def run(
        self, tasks: Sequence[Task], prepared: Prepared, ledger: Ledger, view: View
    ) -> Iterator[CellResult]:
        """Yields the results in the order of the tasks; see `lipo_cli.comparison.cell_runs`.

        A process that dies, for want of memory say, is a failed cell; another takes its place. When
        this one is interrupted the others close their runs and end; when it is killed they notice.
        """
        waiting = deque(tasks)
        results: dict[Cell, CellResult] = {}
        workers: list[_Worker] = []
        try:
            while waiting or workers:
                while waiting and len(workers) < self._n:
                    workers.append(_started(prepared, ledger, self._n))
                    _give(workers[-1], waiting, view)
                for connection in wait([worker.connection for worker in workers]):
                    worker = next(w for w in workers if w.connection is connection)
                    result = _heard(worker, view)
                    if result is None:
                        continue
                    results[worker.cell] = result
                    view.finished(worker.cell, result)
                    if waiting and worker.process.is_alive():
                        _give(worker, waiting, view)
                    else:
                        workers.remove(worker)
                        _dismiss(worker)
        finally:
            for worker in workers:
                worker.process.terminate()
            for worker in workers:
                _dismiss(worker)
        yield from (results[task.cell] for task in tasks)


@dataclass
class _Worker:
    """A process, the line to it, and the cell that it is at."""

    process: BaseProcess
    connection: Connection
    task: Task | None = None

    @property
    def cell(self) -> Cell:
        assert self.task is not None
        return self.task.cell


def _started(prepared: Prepared, ledger: Ledger, n: int) -> _Worker:
    # A forked child of a process with torch's threads may hang, so children start anew.
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(
        target=_serve, args=(there, os.getpid(), prepared, ledger, n), daemon=True
    )
    process.start()
    there.close()  # so that the end of the process is the end of the line
    return _Worker(process, here)


def _give(worker: _Worker, waiting: deque[Task], view: View) -> None:
    worker.task = waiting.popleft()
    view.started(worker.cell)
    worker.connection.send(worker.task)


def _heard(worker: _Worker, view: View) -> CellResult | None:
    """Takes an epoch, or the end of the cell."""
    try:
        heard = worker.connection.recv()
    except (EOFError, ConnectionResetError):
        worker.process.join(_TO_CLOSE_S)
        error = TrainingError(
            f"its process ended with code {worker.process.exitcode}",
            hint="out of memory? fewer --jobs",
        )
        return failed(worker.cell, error)
    if isinstance(heard, CellResult):
        return heard
    view.epoch(worker.cell, heard)
    return None


def _dismiss(worker: _Worker) -> None:
    worker.connection.close()
    worker.process.join(_TO_CLOSE_S)
    if worker.process.is_alive():
        worker.process.kill()
        worker.process.join()


def _serve(connection: Connection, parent: int, prepared: Prepared, ledger: Ledger, n: int) -> None:
    """Runs the cells that come in, until the line ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears it too, and decides
    raise_on_sigterm()
    threading.Thread(target=_follow, args=(parent,), daemon=True).start()

    def tell(news: object) -> None:
        try:
            connection.send(news)
        except OSError:  # nobody listens any more: a stop from outside, no failure of the cell
            raise Interrupted(signal.SIGTERM) from None

    try:
        with threads_of(n):
            while True:
                task: Task = connection.recv()
                tell(run_task(task, prepared, ledger, tell))
    except (EOFError, Interrupted):
        return


def _follow(parent: int) -> None:
    """Stops this process as SIGTERM does once its parent is gone, killed without notice perhaps."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os.kill(os.getpid(), signal.SIGTERM)
