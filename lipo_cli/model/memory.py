"""Memory that is free for this process, given back to the machine."""

from __future__ import annotations

import ctypes
import sys
from functools import cache
from typing import Any


@cache
def _c_library() -> Any:
    """Returns the C library where it can trim its heap (glibc), else None."""
    if not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "malloc_trim") else None


def give_back() -> None:
    """Returns freed pages to the machine, where the C library keeps them otherwise.

    Batches of many lengths leave its heap full of holes: after 100,000 molecules were embedded it
    held three times what the embeddings take.
    """
    library = _c_library()
    if library is not None:
        library.malloc_trim(0)
