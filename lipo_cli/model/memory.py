"""Memory that is free for this process: kept for the next pass, or given back to the machine."""

from __future__ import annotations

import ctypes
import os
import sys
from functools import cache
from typing import Any

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h of glibc
_KEPT = 512 * 2**20
"""Bytes free at the end of the heap that stay there."""
_MAPPED = 32 * 2**20
"""Bytes from which on a block is mapped by itself, and unmapped when freed: glibc's largest."""
_OF_THE_USER = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_")


@cache
def _c_library() -> Any:
    """Returns the C library where it can trim its heap (glibc), else None."""
    if not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "malloc_trim") else None


@cache
def keep_freed() -> bool:
    """Lets the C library keep what a pass has freed for the next one; says whether it does.

    By itself glibc returns the end of its heap to the machine whenever some hundred KiB of it are
    free, and maps large tensors one by one. Every pass over a batch then takes its memory anew,
    page by page, each zeroed by the kernel: ten million page faults where 0.14 million do, and up
    to a third of the time of a pass. The setting holds for the whole process. Who has set glibc's
    own environment variables for this is left alone.
    """
    library = _c_library()
    chosen = any(os.environ.get(name) for name in _OF_THE_USER)
    if library is None or chosen or "malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        return False
    # The second call also ends glibc's own adjustment of both.
    return bool(
        library.mallopt(_M_TRIM_THRESHOLD, _KEPT) and library.mallopt(_M_MMAP_THRESHOLD, _MAPPED)
    )


def give_back() -> None:
    """Returns freed pages to the machine, where the C library keeps them otherwise.

    Batches of many lengths leave its heap full of holes: after 100,000 molecules were embedded it
    held three times what the embeddings take.
    """
    library = _c_library()
    if library is not None:
        library.malloc_trim(0)
