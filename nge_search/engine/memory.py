"""Memory of the C library: what a training step frees, the next one needs again."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # glibc's M_TRIM_THRESHOLD and M_MMAP_MAX
_DEFAULTS = {_TRIM_THRESHOLD: 128 * 1024, _MMAP_MAX: 65536}


@contextlib.contextmanager
def keep_freed_memory() -> Iterator[None]:
    """Within this context, memory that is freed stays with the process, where that is glibc's to decide.

    It would give large blocks back to the system at once, and a step that allocates gigabytes of maps would spend a
    fifth of its time on fresh pages. The peak stays what it is. Afterwards all that is free goes back.
    """
    library = ctypes.CDLL(None)
    if not hasattr(library, "mallopt"):
        yield
        return
    library.mallopt(_TRIM_THRESHOLD, -1)  # never
    library.mallopt(_MMAP_MAX, 0)
    try:
        yield
    finally:
        for parameter, value in _DEFAULTS.items():
            library.mallopt(parameter, value)
        library.malloc_trim(0)
