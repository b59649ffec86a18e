"""Freed memory stays for the next pass, and goes back to the machine where that is asked for."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys

import psutil
import pytest

from lipo_cli.model.memory import _c_library, give_back, keep_freed

_PIECE, _PIECES = 60_000, 4_000
"""Below the size that is mapped on its own; 240 MB together."""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's heap")
def test_holes_in_the_heap_are_given_back() -> None:
    library = _c_library()
    if library is None:
        pytest.skip("another C library")
    process = psutil.Process()
    library.malloc.restype = ctypes.c_void_p
    library.free.argtypes = [ctypes.c_void_p]
    pieces = [library.malloc(_PIECE) for _ in range(_PIECES)]
    for piece in pieces:
        ctypes.memset(piece, 1, _PIECE)
    for piece in pieces[:-1]:  # the last one keeps the heap from shrinking by itself
        library.free(piece)
    before = process.memory_info().rss
    give_back()
    assert before - process.memory_info().rss > 0.9 * _PIECE * _PIECES
    library.free(pieces[-1])


_PASSES = """
import ctypes, resource, sys
from lipo_cli.model.memory import _c_library, keep_freed

kept = sys.argv[1] == "kept" and keep_freed()
library = ctypes.CDLL(None)
library.malloc.restype = ctypes.c_void_p
library.free.argtypes = [ctypes.c_void_p]
size, count, page = 3_000_000, 40, resource.getpagesize()

def one_pass():
    blocks = [library.malloc(size) for _ in range(count)]
    for block in blocks:
        ctypes.memset(block, 1, size)
    for block in blocks:
        library.free(block)

one_pass()
one_pass()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    one_pass()
faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(int(kept), faults * page / (5 * size * count))
"""


def _share_taken_anew(how: str, **environment: str) -> tuple[bool, float]:
    """Runs passes in a fresh process; returns whether freed memory is kept, and what came anew."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    found = subprocess.run(
        [sys.executable, "-c", _PASSES, how],
        env={**clean, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    kept, share = found.stdout.split()
    return kept == "1", float(share)


@pytest.mark.skipif(_c_library() is None, reason="glibc's heap")
def test_a_pass_takes_what_the_last_one_freed() -> None:
    assert _share_taken_anew("kept") == (True, pytest.approx(0.0, abs=0.05))
    left_alone = _share_taken_anew("as it is")
    assert left_alone[1] > 0.5  # else the test above shows nothing


@pytest.mark.skipif(_c_library() is None, reason="glibc's heap")
def test_who_has_set_it_is_left_alone() -> None:
    kept, share = _share_taken_anew("kept", MALLOC_TRIM_THRESHOLD_="131072")
    assert not kept
    assert share > 0.5


def test_elsewhere_it_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    _c_library.cache_clear()
    keep_freed.cache_clear()
    assert _c_library() is None
    assert not keep_freed()
    give_back()
    _c_library.cache_clear()
    keep_freed.cache_clear()
