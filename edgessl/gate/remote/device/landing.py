"""Unpacks edgessl on a device. Sent as text: nothing of edgessl can be imported yet.

``look FOLDER SHA256``: says which Python this is, where FOLDER is, and whether the code is there.
``unpack FOLDER SHA256 NAME``: makes it of the wheel on standard input. FOLDER may be empty.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import platform
import shutil
import sys
import zipfile
from pathlib import Path
from typing import Any

MARK = "edgessl> "  # what a login shell prints by itself has none
_MAIN = "from edgessl.gate.remote.device.main import main\n\nmain()\n"


def root(folder: str) -> Path:
    """The folder of all that edgessl keeps on this device."""
    if folder:
        return Path(folder).expanduser().absolute()
    xdg = os.environ.get("XDG_CACHE_HOME", "")
    caches = Path(xdg) if os.path.isabs(xdg) else Path.home() / ".cache"
    return caches / "edgessl" / "remote"


def look(folder: str, digest: str) -> dict[str, Any]:
    place = root(folder)
    code = place / "code" / digest
    if code.is_dir():
        os.utime(code)  # what is not used for long is removed
    return {
        "python": sys.executable,
        "version": platform.python_version(),
        "system": platform.system(),
        "root": str(place),
        "code": code.is_dir(),
    }


def unpack(folder: str, digest: str, name: str, wheel: bytes) -> dict[str, Any]:
    """Put the wheel and its content at code/DIGEST, whole or not at all."""
    if hashlib.sha256(wheel).hexdigest() != digest:
        return {"error": "edgessl arrived damaged. Try again."}
    place = root(folder)
    there = place / "code" / digest
    partial = place / "code" / f".{digest}.{os.getpid()}"
    try:
        partial.mkdir(parents=True)
        (partial / name).write_bytes(wheel)
        (partial / "__main__.py").write_text(_MAIN)
        zipfile.ZipFile(io.BytesIO(wheel)).extractall(partial)
        os.sync()  # a device that loses power now must not find a whole name for half a content
        if not there.is_dir():
            os.rename(partial, there)
    except OSError as err:
        if not there.is_dir():  # else another connection was faster
            return {"error": f"{err.strerror}: {place}"}
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return {}


if __name__ == "__main__":
    command, *words = sys.argv[1:]
    folder, digest, *names = words
    if command == "look":
        found = look(folder, digest)
    else:
        found = unpack(folder, digest, names[0], sys.stdin.buffer.read())
    print(MARK + json.dumps(found), flush=True)
