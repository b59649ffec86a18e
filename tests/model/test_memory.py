"""Freed memory goes back to the machine where the C library is asked for it."""

from __future__ import annotations

import ctypes
import sys

import psutil
import pytest

from lipo_cli.model.memory import _c_library, give_back

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


def test_elsewhere_it_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    _c_library.cache_clear()
    assert _c_library() is None
    give_back()
    _c_library.cache_clear()
