"""A text file that is there whole, or as it was before."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from edgessl.errors import OutputError
from edgessl.staging import fsync


def check(path: Path, overwrite: bool) -> None:
    """Find out before any long work whether *path* can be written.

    Raises:
        OutputError: it is there already (unless *overwrite*) or a directory, or its directory is
            not there or cannot be written.
    """
    folder = path.absolute().parent
    if path.is_dir():
        raise OutputError(f"{path} is a directory; name a file in it.")
    if path.is_file() and not overwrite:
        raise OutputError(f"{path} exists; pass --overwrite to replace it.")
    if not folder.is_dir():
        raise OutputError(f"cannot write {path}: there is no directory {folder}. Make it first.")
    if not os.access(path if _is_stream(path) else folder, os.W_OK):
        raise OutputError(f"cannot write {path}: permission denied. Name another file.")


def write(path: Path, text: str) -> None:
    """Write *text* as UTF-8, and let nobody see half of it.

    Raises:
        OutputError: the disk is full, or *path* cannot be written.
    """
    try:
        if _is_stream(path):
            path.write_text(text, encoding="utf-8")
            return
        real = Path(os.path.realpath(path))  # a link is kept, and what it points to is replaced
        partial = real.with_name(f".{real.name}.tmp-{os.getpid()}-{secrets.token_hex(4)}")
        try:
            partial.write_text(text, encoding="utf-8")
            fsync(str(partial))
            os.replace(partial, real)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as err:
        raise OutputError(
            f"cannot write {path}: {err.strerror or err}. Make room, or name another file."
        ) from err


def _is_stream(path: Path) -> bool:
    """Such as /dev/stdout: nothing that could be replaced."""
    return path.exists() and not path.is_file()
