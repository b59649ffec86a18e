"""Cells of a comparison side by side, each in a process with its share of the cores.

The matrices of a small model keep few cores busy, and between them Python has the word; cells know
nothing of each other. How much that gives is a matter of the machine: benchmarks/jobs.py.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import FrameType

from lipo_cli.comparison.cell_result import CellResult
from lipo_cli.comparison.cell_runs import Task, failed, run_task
from lipo_cli.comparison.ledger import Ledger
from lipo_cli.comparison.prepare import Prepared
from lipo_cli.comparison.view import View
from lipo_cli.errors import Interrupted, TrainingError
from lipo_cli.model.precision import threads_of
from lipo_cli.training.workers import when_gone

_TO_CLOSE_S = 30.0
"""For a process that was told to stop, to close its run."""
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_READY = "ready"


class CellWorkers:
    """Processes that run cells side by side.

    Args:
        n: How many at most.
    """

    def __init__(self, n: int) -> None:
        self._n = n

    def run(
        self, tasks: Sequence[Task], prepared: Prepared, ledger: Ledger, view: View
    ) -> list[CellResult]:
        """Returns the results in the order of the tasks; see `lipo_cli.comparison.cell_runs`.

        The cell of a process that dies, for want of memory say, has failed; another process takes
        its place. When this one is interrupted the others close their runs and end; when it is
        killed they notice.
        """
        waiting = deque(enumerate(tasks))
        results: dict[int, CellResult] = {}
        workers: list[_Worker] = []
        n = min(self._n, len(tasks))
        try:
            while waiting or workers:
                while waiting and len(workers) < n:
                    workers.append(_started(*waiting.popleft(), n))
                ready = wait([worker.connection for worker in workers])
                for worker in [worker for worker in workers if worker.connection in ready]:
                    result = _heard(worker, prepared, ledger, view)
                    if result is None:
                        continue
                    results[worker.ordinal] = result
                    view.finished(worker.task.cell, result)
                    if waiting and not worker.gone:
                        worker.ordinal, worker.task = waiting.popleft()
                        _give(worker, view)
                    else:
                        workers.remove(worker)
                        _dismiss(worker)
        finally:
            for worker in workers:
                # One that is not ready has no run to close, and would hear it late.
                worker.process.terminate() if worker.ready else worker.process.kill()
            for worker in workers:
                _dismiss(worker)
        return [results[i] for i in range(len(tasks))]


@dataclass
class _Worker:
    """A process, the line to it, and the cell that it is at.

    Attributes:
        ready: Whether it has begun to listen.
        gone: Whether the line is broken; the process has ended, or is about to.
    """

    process: BaseProcess
    connection: Connection
    ordinal: int
    task: Task
    ready: bool = False
    gone: bool = False


def _started(ordinal: int, task: Task, n: int) -> _Worker:
    """Starts a process; it says when it is ready for its task."""
    # A forked child of a process with torch's threads may hang, so children start anew. What they
    # are given at birth is small: the parent would wait for ever for one that died reading it.
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(there, os.getpid(), n), daemon=True)
    with _signals_held():
        process.start()
    there.close()  # so that the end of the process is the end of the line
    return _Worker(process, here, ordinal, task)


@contextmanager
def _signals_held() -> Iterator[None]:
    """Starts what is born inside with signals held, which `_serve` lets through when it can."""
    resource_tracker.ensure_running()  # which lets them through, where it is not running yet
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _give(worker: _Worker, view: View, *before: object) -> None:
    """Sends a process its task; that it is gone is heard when it is listened to."""
    view.started(worker.task.cell)
    try:
        for each in (*before, worker.task):
            worker.connection.send(each)
    except OSError:
        worker.gone = True


def _heard(worker: _Worker, prepared: Prepared, ledger: Ledger, view: View) -> CellResult | None:
    """Takes what a process says: that it is ready, an epoch, or the end of its cell."""
    try:
        heard = worker.connection.recv()
    except (EOFError, OSError):
        worker.gone = True
        worker.process.join(_TO_CLOSE_S)
        code = worker.process.exitcode
        hint = "out of memory? fewer --jobs" if code == -signal.SIGKILL else None
        error = TrainingError(f"its process ended with code {code}", hint=hint)
        return failed(worker.task.cell, error)
    if heard == _READY:
        worker.ready = True
        _give(worker, view, (prepared, ledger))
    elif isinstance(heard, CellResult):
        return heard
    else:
        view.epoch(worker.task.cell, heard)
    return None


def _dismiss(worker: _Worker) -> None:
    worker.connection.close()
    worker.process.join(_TO_CLOSE_S)
    if worker.process.is_alive():
        worker.process.kill()
        worker.process.join()


def _serve(connection: Connection, parent: int, n: int) -> None:
    """Runs the cells that come in, until the line ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears it too, and decides
    signal.signal(signal.SIGTERM, _stop)
    when_gone(parent, partial(os.kill, os.getpid(), signal.SIGTERM))

    def tell(news: object) -> None:
        try:
            connection.send(news)
        except OSError:  # nobody listens any more: a stop from outside, no failure of the cell
            raise Interrupted(signal.SIGTERM) from None

    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        tell(_READY)
        prepared, ledger = connection.recv()
        with threads_of(n):
            while True:
                task: Task = connection.recv()
                tell(run_task(task, prepared, ledger, tell))
    except (EOFError, ConnectionResetError, Interrupted):
        return


def _stop(number: int, _frame: FrameType | None) -> None:
    # Once: the run is being closed on the way out, and a second signal would leave it open.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Interrupted(number)
