"""Which process owns a run, and whether that process still lives.

A process number alone says nothing: numbers are given out again, and containers count from one.
On Linux an owner is the machine's boot, the namespace of process numbers and the process's start
in clock ticks since the boot, none of which a correction of the clock can move.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import psutil

PID_TAG = "lipo.pid"
HOST_TAG = "lipo.host"
START_TAG = "lipo.process_start"

Liveness = Literal["alive", "dead", "unknown"]

_CLOCK_TOLERANCE_S = 2.0


@dataclass(frozen=True)
class Owner:
    """A process on a machine.

    Attributes:
        host: The name of the machine.
        pid: The process number.
        start: `boot/namespace/ticks` on Linux, seconds since the epoch elsewhere.
    """

    host: str
    pid: int
    start: str

    def tags(self) -> dict[str, str]:
        """Returns the owner as tags of a run."""
        return {HOST_TAG: self.host, PID_TAG: str(self.pid), START_TAG: self.start}

    @classmethod
    def from_tags(cls, tags: Mapping[str, str]) -> Self | None:
        """Reads the owner back from a run's tags; None when the run is not one of ours."""
        try:
            return cls(tags[HOST_TAG], int(tags[PID_TAG]), tags[START_TAG])
        except (KeyError, ValueError):
            return None


def this_process() -> Owner:
    """Returns the process that asks."""
    pid = os.getpid()
    ticks = _ticks(pid)
    start = (
        f"{_boot()}/{_namespace()}/{ticks}"
        if ticks is not None
        else f"{psutil.Process(pid).create_time():.2f}"
    )
    return Owner(socket.gethostname(), pid, start)


def liveness(owner: Owner, run_started: float) -> Liveness:
    """Tells whether an owner still lives, and says "unknown" rather than guess.

    Args:
        owner: The process.
        run_started: When its run began, in seconds since the epoch.
    """
    if owner.host != socket.gethostname():
        return "unknown"
    boot, _, rest = owner.start.partition("/")
    namespace, _, ticks = rest.partition("/")
    if not ticks:
        return _alive_by_clock(owner)
    if boot != _boot():
        # Another boot of this machine, or another machine of the same name: only a run that is
        # older than this boot is certainly over.
        return "dead" if run_started < psutil.boot_time() - _CLOCK_TOLERANCE_S else "unknown"
    if namespace != _namespace():
        return "unknown"
    try:
        os.kill(owner.pid, 0)
    except ProcessLookupError:
        return "dead"
    except PermissionError:
        pass
    now = _ticks(owner.pid)
    if now is None:
        return "unknown"
    return "alive" if str(now) == ticks else "dead"


def _alive_by_clock(owner: Owner) -> Liveness:
    try:
        process = psutil.Process(owner.pid)
        drift = abs(process.create_time() - float(owner.start))
        zombie = process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return "dead"
    except (psutil.Error, ValueError):
        return "unknown"
    return "dead" if zombie or drift > _CLOCK_TOLERANCE_S else "alive"


def _ticks(pid: int) -> int | None:
    """Returns a process's start in clock ticks since the boot; -1 when it only waits to be reaped.

    None when this is not Linux or the process cannot be seen.
    """
    try:
        # The command's name stands in brackets and may hold anything: count from the last one.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    state, start = fields[0], fields[19]
    return -1 if state in "ZX" else int(start)


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _namespace() -> str:
    try:
        return Path("/proc/self/ns/pid").readlink().name
    except OSError:
        return ""
