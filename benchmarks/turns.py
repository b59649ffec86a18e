"""Ways of doing the same, timed in turn in one process: what the machine does meets all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TypeVar

T = TypeVar("T")


def take_turns(
    ways: Mapping[str, Callable[[], T]], repeats: int
) -> tuple[dict[str, tuple[float, ...]], dict[str, T]]:
    """Times every way once a round, after a round that does not count.

    Args:
        ways: What to do, by name.
        repeats: Rounds that count.

    Returns:
        Seconds of each way, a number for each round; and what each came to in the last one.
    """
    taken: dict[str, list[float]] = {name: [] for name in ways}
    found = {}
    for _ in range(repeats + 1):
        for name, do in ways.items():
            start = time.perf_counter()
            found[name] = do()
            taken[name].append(time.perf_counter() - start)
    return {name: tuple(seconds[1:]) for name, seconds in taken.items()}, found
