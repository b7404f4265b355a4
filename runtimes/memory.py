"""Give memory back that a runtime library needed only to open a graph."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator
from pathlib import Path

_DONTNEED = 4  # MADV_DONTNEED: the same number on every Linux


def trim(*folders: Path) -> None:
    """Return freed heap to the system, and forget pages of the files in *folders*.

    Of files, the code of shared libraries and data that is mapped to be read only: their pages
    come back from the system's own cache when they are touched. Compiling a graph touches far
    more of them than running it does. Linux only; elsewhere nothing happens.
    """
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None)
    with contextlib.suppress(AttributeError):  # musl has no malloc_trim
        libc.malloc_trim(ctypes.c_size_t(0))
    with contextlib.suppress(OSError):
        maps = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace")
        inside = tuple(os.path.join(os.path.realpath(folder), "") for folder in folders)
        for start, end in _clean(maps, inside):
            size = ctypes.c_size_t(end - start)
            libc.madvise(ctypes.c_void_p(start), size, _DONTNEED)


def _clean(maps: str, inside: tuple[str, ...]) -> Iterator[tuple[int, int]]:
    """Address ranges of the files *inside*, in the text of /proc/self/maps, that hold what the
    file holds and nothing else: code, and shared mappings. A library's read-only data is left
    alone, since the loader may have written addresses into it."""
    for line in maps.splitlines():
        words = line.split(maxsplit=5)
        if len(words) < 6 or not words[5].startswith(inside) or "w" in words[1]:
            continue
        if "x" in words[1] or words[1].endswith("s"):
            start, _, end = words[0].partition("-")
            yield int(start, 16), int(end, 16)
