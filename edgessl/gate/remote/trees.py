"""What is copied to a device: directories and files, by the hash of their content."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgessl.bundle import FileEntry, file_entry
from edgessl.errors import RecipeError
from edgessl.gate.remote.errors import Lost
from edgessl.gate.remote.link import Link

_PIECE = 1 << 18


@dataclass(frozen=True)
class Tree:
    """``files``: below ``folder``; ``name``: what the plan names, a first part of theirs."""

    folder: Path
    name: str
    files: dict[str, FileEntry]
    digest: str


def of(path: Path) -> Tree:
    """A file, or a directory with all that is in it, links followed.

    Raises:
        RecipeError: there is none, it is empty, or it cannot be read.
    """
    path = Path(os.path.abspath(path))
    try:
        files = {
            found.relative_to(path.parent).as_posix(): file_entry(found) for found in _walk(path)
        }
    except OSError as err:
        raise RecipeError(f"{str(path)!r} cannot be copied: {err.strerror or err}.") from err
    if not files:
        raise RecipeError(f"{str(path)!r} cannot be copied: there is nothing in it.")
    listing = sorted((name, entry.size, entry.sha256) for name, entry in files.items())
    return Tree(
        path.parent, path.name, files, hashlib.sha256(json.dumps(listing).encode()).hexdigest()
    )


def send(tree: Tree, link: Link, called: str) -> str:
    """Copy what the device does not have yet of *tree*, *called* so; its path there.

    A lost connection costs the file that was on its way.
    """
    listing = {name: (entry.size, entry.sha256) for name, entry in tree.files.items()}
    request = {"digest": tree.digest, "files": listing}
    while names := link.ask("want", request)["names"]:
        link.report(f"copying {called} to {link.called}")
        try:
            link.ask_once("put", {**request, "names": names}, _pieces(tree, names, link))
        except Lost as lost:
            link.reconnect(lost)  # some of them may have come through
    return f"{link.root}/store/{tree.digest}/{tree.name}"


def _pieces(tree: Tree, names: Sequence[str], link: Link) -> Iterator[bytes]:
    sent, total = 0, sum(tree.files[name].size for name in names)
    for name in names:
        with (tree.folder / name).open("rb") as stream:
            while piece := stream.read(_PIECE):
                yield piece
                sent += len(piece)
                link.report.count(sent // 1_000_000, total // 1_000_000, "MB")


def _walk(path: Path) -> Iterator[Path]:
    if not path.is_dir():
        yield path
    for folder, folders, names in os.walk(path, followlinks=True):
        folders.sort()
        yield from (Path(folder, name) for name in sorted(names))
