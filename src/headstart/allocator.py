"""Memory that a long calculation frees stays with the process, for its next step.

A step of training frees what it took, tens or hundreds of megabytes, and the next step takes as much. The C library of
Linux (glibc) gives large pieces back to the system at once, and each of their pages must then be fetched and cleared
again: up to a third of the time of a step (`benchmarks/allocator.py`). See mallopt(3).
"""

import ctypes
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

TRIM_THRESHOLD, MMAP_THRESHOLD, MMAP_MAX = -1, -3, -4  # what mallopt calls them (malloc.h)
NEVER = -1  # give the end of the heap back
USUAL_PIECES = 65_536  # pieces with pages of their own: glibc's default
MEGABYTE = 2**20
#: what glibc's own adjustment comes to after it has seen large pieces; calling mallopt ends that adjustment
AFTERWARDS = ((MMAP_MAX, USUAL_PIECES), (MMAP_THRESHOLD, 32 * MEGABYTE), (TRIM_THRESHOLD, 64 * MEGABYTE))

_lock = threading.Lock()
_blocks = 0  # that are running


@contextmanager
def memory_kept() -> Iterator[None]:
    """Within the block the process keeps what it frees; after it the rest goes back to the system.

    Blocks may lie within each other and run beside each other. Nothing happens where the C library has no such setting,
    or where the user has chosen one by MALLOC_... or GLIBC_TUNABLES.
    """
    global _blocks  # noqa: PLW0603 - the setting is one of the whole process
    library = _library()
    if library is None:
        yield
        return
    with _lock:
        _blocks += 1
        if _blocks == 1:
            library.mallopt(MMAP_MAX, 0)
            library.mallopt(TRIM_THRESHOLD, NEVER)
    try:
        yield
    finally:
        with _lock:
            _blocks -= 1
            if not _blocks:
                for name, value in AFTERWARDS:
                    library.mallopt(name, value)
                library.malloc_trim(ctypes.c_size_t(0))


def _library() -> ctypes.CDLL | None:
    """The C library, where it is glibc and left to us."""
    chosen = any(name.startswith("MALLOC_") for name in os.environ) or "malloc" in os.environ.get("GLIBC_TUNABLES", "")
    if sys.platform != "linux" or chosen:
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "mallopt") and hasattr(library, "malloc_trim") else None
