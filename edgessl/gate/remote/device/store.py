"""Directories by the hash of their content, sent file by file: there whole, or not at all."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from edgessl.errors import OutputError

UNUSED_DAYS = 30  # after which what is kept between jobs is removed
_PIECE = 1 << 20
Listing = dict[str, tuple[int, str]]  # name -> bytes, SHA-256


def want(root: Path, request: dict[str, Any]) -> dict[str, Any]:
    """Which files of a directory are not here yet; none: it is here, and counts as just used."""
    there, partial = _places(root, request["digest"])
    listing = request["files"]
    if there.is_dir():
        if all(_size(there / name) == size for name, (size, _) in listing.items()):
            os.utime(there)
            return {"names": []}
        shutil.rmtree(there)  # a file system that lost something
    # A file gets its name in *partial* only after its hash was found right.
    return {"names": [name for name, (size, _) in listing.items() if _size(partial / name) != size]}


def put(root: Path, request: dict[str, Any], stream: BinaryIO) -> dict[str, Any]:
    """Take the files ``names`` one after the other from *stream*.

    Raises:
        OutputError: they would not fit; nothing of them is kept.
        OSError: the disk.
    """
    there, partial = _places(root, request["digest"])
    listing: Listing = request["files"]
    needed = sum(listing[name][0] for name in request["names"])
    partial.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(partial).free
    if needed > free:
        shutil.rmtree(partial, ignore_errors=True)
        raise OutputError(
            f"no space left on the device: {needed / 1e6:.1f} MB are to be copied to {root}, "
            f"where {free / 1e6:.1f} MB are free"
        )
    for name in request["names"]:
        _take(partial, name, listing[name], stream)
    for folder, _, _ in os.walk(partial):
        _fsync(folder)
    try:
        os.rename(partial, there)
    except OSError:
        if not there.is_dir():  # else another connection was faster with the same content
            raise
    return {}


def forget(root: Path) -> None:
    """Remove what has not been used for ``UNUSED_DAYS``."""
    oldest = time.time() - UNUSED_DAYS * 86_400
    for kind in ("code", "store", "envs"):
        for path in (root / kind).glob("*"):
            if path.stat().st_mtime < oldest:
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink()


def _places(root: Path, digest: str) -> tuple[Path, Path]:
    return root / "store" / digest, root / "store" / f".{digest}.part"


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def _take(folder: Path, name: str, entry: tuple[int, str], stream: BinaryIO) -> None:
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise OutputError(f"{name!r} lies outside what is copied")
    path.parent.mkdir(parents=True, exist_ok=True)
    unchecked = folder.with_suffix(f".{os.getpid()}")  # beside it: a lost device leaves it there
    size, sha256 = entry
    digest = hashlib.sha256()
    try:
        with unchecked.open("wb") as output:
            for piece in _pieces(stream.read, size):
                digest.update(piece)
                output.write(piece)
            output.flush()
            os.fsync(output.fileno())
        if digest.hexdigest() != sha256:
            raise OutputError(f"{name} arrived damaged, or changed while it was copied. Try again")
        os.replace(unchecked, path)
    finally:
        unchecked.unlink(missing_ok=True)


def _pieces(read: Callable[[int], bytes], size: int) -> Any:
    while size > 0:
        piece = read(min(size, _PIECE))
        if not piece:
            raise OutputError(
                "fewer bytes came than were announced: a file changed while it was copied"
            )
        size -= len(piece)
        yield piece


def _fsync(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
