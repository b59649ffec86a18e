"""A function over many items in other processes, results in order, little held at a time."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from typing import TypeVar

from lipo_cli.errors import TrainingError

A = TypeVar("A")
B = TypeVar("B")


def usable_cores() -> int:
    """Returns the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def ordered_map(
    function: Callable[[A], B],
    items: Iterable[A],
    workers: int,
    check: Callable[[], None] = lambda: None,
) -> Generator[B, None, None]:
    """Yields function(item) in the order of the items.

    Args:
        function: A function of a module, without side effects.
        items: Read as needed: at most a few per worker ahead.
        workers: Processes; 0 computes here.
        check: Called between results; it may raise to stop.

    Raises:
        TrainingError: a worker died.
    """
    if workers == 0:
        for item in items:
            check()
            yield function(item)
        return
    # A forked child of a process with torch's threads may hang, so children start anew.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(
        workers, mp_context=context, initializer=_settle, initargs=(os.getpid(),)
    )
    waiting: deque[Future[B]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > 2 * workers:
                check()
                yield waiting.popleft().result()
        while waiting:
            check()
            yield waiting.popleft().result()
    except BrokenProcessPool:
        raise TrainingError(
            "a process that prepares molecules died", hint="out of memory? try --workers 0"
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _settle(parent: int) -> None:
    """Leaves signals to the parent, and ends with it even when it was killed without notice."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    when_gone(parent, partial(os._exit, 1))


def when_gone(parent: int, then: Callable[[], object]) -> None:
    """Calls a function, from a thread, once the parent process has ended, killed perhaps.

    Args:
        parent: The number of the process that this one is a child of.
        then: What to do; nobody is left to hear of it.
    """

    def follow() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        then()

    threading.Thread(target=follow, daemon=True).start()
