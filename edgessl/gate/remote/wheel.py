"""edgessl itself as a wheel, packed of the files that this very process runs.

So it does not matter whether they are a checkout or an installed package, and a device measures
with the same code, byte for byte.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import importlib.metadata
import io
import os
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import edgessl
from edgessl.errors import MissingDependency

_WHEEL = "Wheel-Version: 1.0\nGenerator: edgessl\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
_DATE = (1980, 1, 1, 0, 0, 0)  # the same files are the same wheel


@dataclass(frozen=True)
class Wheel:
    """``digest``: SHA-256 of ``content``; ``needs``: of what it declares to depend on."""

    name: str
    content: bytes
    digest: str
    needs: str


@functools.cache
def pack() -> Wheel:
    """The wheel of this edgessl.

    Raises:
        MissingDependency: it runs from sources that were never installed, so nothing says what
            it depends on.
    """
    try:
        installed = importlib.metadata.distribution("edgessl")
    except importlib.metadata.PackageNotFoundError as err:
        raise MissingDependency(
            "--on sends edgessl along, and this one is not installed. Install it: pip install -e ."
        ) from err
    # the second where a checkout lies on the path
    metadata = installed.read_text("METADATA") or installed.read_text("PKG-INFO") or ""
    info = f"edgessl-{installed.version}.dist-info"
    files = dict(_sources())
    files[f"{info}/METADATA"] = metadata.encode()
    files[f"{info}/WHEEL"] = _WHEEL.encode()
    if entry_points := installed.read_text("entry_points.txt"):
        files[f"{info}/entry_points.txt"] = entry_points.encode()
    record = [f"{name},sha256={_hash(content)},{len(content)}" for name, content in files.items()]
    files[f"{info}/RECORD"] = "\n".join([*record, f"{info}/RECORD,,", ""]).encode()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name, _DATE)
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, content, zipfile.ZIP_DEFLATED)
    content = packed.getvalue()
    return Wheel(
        name=f"edgessl-{installed.version}-py3-none-any.whl",
        content=content,
        digest=hashlib.sha256(content).hexdigest(),
        needs=hashlib.sha256(metadata.encode()).hexdigest(),
    )


def _sources() -> Iterator[tuple[str, bytes]]:
    """Every file of the package by its name in the wheel; a checkout's rooms are links in it."""
    top = Path(edgessl.__file__).parent
    for folder, folders, names in os.walk(top, followlinks=True):
        folders[:] = sorted(n for n in folders if n != "__pycache__" and not n.startswith("."))
        for name in sorted(names):
            path = Path(folder, name)
            if not name.startswith(".") and path.suffix != ".pyc":
                yield f"edgessl/{path.relative_to(top).as_posix()}", path.read_bytes()


def _hash(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
