"""What runtimes make of a bundle on this device (engines, compiled graphs), kept for next time.

A file is a SHA-256 and the content it is of. It is written beside its place and renamed, so a
killed writer leaves nothing that is read, and what a disk has spoilt is made again. A cache that
cannot be written is no error: things are then made every time.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

VARIABLE = "EDGESSL_CACHE_DIR"
KINDS = ("engines", "openvino", "timing")
LIMIT = 4_000_000_000  # bytes of all kinds together; the least recently used go first
FOUND, MADE = "found", "made"
_DIGEST = hashlib.sha256().digest_size
_PARTIAL, _LOCK = ".partial", ".lock"
_ABANDONED = 86_400  # seconds after which a half-written file has no writer any more


def root() -> Path:
    """``$EDGESSL_CACHE_DIR``, or ``edgessl`` in the system's folder for caches."""
    named = os.environ.get(VARIABLE)
    if named:
        return Path(named)
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA")
        return (Path(local) if local else Path.home() / "AppData" / "Local") / "edgessl" / "cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "edgessl"
    xdg = os.environ.get("XDG_CACHE_HOME")
    return (Path(xdg) if xdg and os.path.isabs(xdg) else Path.home() / ".cache") / "edgessl"


def key(facts: Any) -> str:
    """16 hex digits that change with anything in *facts* (JSON, or what ``str`` tells apart)."""
    text = json.dumps(facts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def get(path: Path) -> bytes | None:
    """The content at *path*; None where there is none, or a spoilt one, which is removed."""
    try:
        with path.open("rb") as stream:
            digest, content = stream.read(_DIGEST), stream.read()
    except OSError:
        return None
    if hashlib.sha256(content).digest() != digest:
        drop(path)
        return None
    with contextlib.suppress(OSError):  # when it was last used; a read-only cache has no such time
        os.utime(path)
    return content


def put(path: Path, content: bytes) -> str | None:
    """Keep *content* at *path*; says why where that is not possible."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, partial = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=_PARTIAL)
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(hashlib.sha256(content).digest())
                stream.write(content)
            os.replace(partial, path)
        except BaseException:
            Path(partial).unlink(missing_ok=True)
            raise
    except OSError as err:
        return f"{path.parent}: {err.strerror or err}"
    _evict(path)
    return None


def drop(path: Path) -> None:
    """Forget what is at *path*."""
    with contextlib.suppress(OSError):
        path.unlink()


def fetch(path: Path, build: Callable[[], bytes]) -> tuple[bytes, str]:
    """The content at *path*; where there is none, *build* makes it, once among all processes.

    Returns:
        the content, and ``FOUND``, ``MADE``, or why what was made could not be kept.
    """
    content = get(path)
    if content is not None:
        return content, FOUND
    with _locked(path):
        content = get(path)  # another process was faster
        if content is not None:
            return content, FOUND
        content = build()
        return content, put(path, content) or MADE


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold *path* against other processes. The kernel lets go when a process dies.

    Where nothing can be locked (Windows, a read-only folder, some network file systems) several
    may build, and the last rename wins: it costs time and nothing else.
    """
    lock = path.with_name(path.name + _LOCK)
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError, ImportError):
            fcntl: Any = importlib.import_module("fcntl")
            path.parent.mkdir(parents=True, exist_ok=True)
            stream = stack.enter_context(lock.open("wb"))
            fcntl.flock(stream, fcntl.LOCK_EX)
            # Who waits for a lock that is gone looks for the content first, and finds it.
            stack.callback(drop, lock)
        yield


def _evict(kept: Path) -> None:
    """Make room: never what was written last, *kept*."""
    found = []
    for kind in KINDS:
        with contextlib.suppress(OSError):
            for path in (root() / kind).iterdir():
                if path.name.endswith(_LOCK) or path == kept:
                    continue
                found.append((path.stat().st_mtime, path.stat().st_size, path))
    total = kept.stat().st_size if kept.exists() else 0
    total += sum(size for _, size, path in found)
    for used, size, path in sorted(found):
        partial = path.name.endswith(_PARTIAL)
        if (partial and used < time.time() - _ABANDONED) or (not partial and total > LIMIT):
            drop(path)
            total -= size
