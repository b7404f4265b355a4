"""The noun ``Bundle``: a directory, the only thing that crosses to a device.

``manifest.json`` says what is inside; ``read`` and ``check_files`` trust nothing else.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from edgessl.errors import BundleError
from edgessl.spec import EncoderSpec, Provenance

MANIFEST = "manifest.json"
REFERENCE = "reference.npz"
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class FileEntry:
    """One file of a bundle: ``size`` in bytes, ``sha256`` in hex."""

    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """``manifest.json`` as data. See docs/bundle.md for every field."""

    target: str
    precision: str
    encoder: EncoderSpec
    provenance: Provenance
    variant: str
    recipe: dict[str, Any]  # the resolved options that built it
    compatibility: dict[str, Any]  # what the target's builder says of where it runs
    parity: dict[str, Any]  # measured at export; see edgessl.parity
    compute: dict[str, Any]  # parameters, and FLOPs at a stated shape
    calibration: dict[str, Any] | None = None  # source, samples, sha256; None unless int8
    files: dict[str, FileEntry] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION

    def dumps(self) -> str:
        """The text of manifest.json; its last field is a hash over all the others."""
        data = {"schema_version": self.schema_version, **asdict(self)}
        data["digest"] = _digest(data)
        return json.dumps(data, indent=2, ensure_ascii=False) + "\n"


def variant_id(identity: dict[str, Any]) -> str:
    """A short name for the vector space that *identity* gives: 16 hex digits of its SHA-256.

    *identity* holds all that moves the vectors: weights, precision, pooling, normalisation,
    preprocessing, and for quantized variants the quantizer and the calibration data.
    """
    return hashlib.sha256(_canonical(identity)).hexdigest()[:16]


def file_entry(path: Path) -> FileEntry:
    """Size and SHA-256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while piece := stream.read(1 << 20):
            digest.update(piece)
    return FileEntry(path.stat().st_size, digest.hexdigest())


def list_files(directory: Path) -> list[str]:
    """Every file below *directory* but the manifest, as relative POSIX paths, sorted."""
    paths = (p.relative_to(directory).as_posix() for p in directory.rglob("*") if not p.is_dir())
    return sorted(path for path in paths if path != MANIFEST)


def is_bundle(directory: Path) -> bool:
    """Whether *directory* has a manifest (it may still be damaged)."""
    return (directory / MANIFEST).is_file()


def read(directory: Path) -> Manifest:
    """Read a bundle's manifest.

    Raises:
        BundleError: no such directory, no manifest, or a manifest that was changed.
    """
    path = directory / MANIFEST
    if not directory.is_dir():
        raise BundleError(f"no bundle at {str(directory)!r}: there is no such directory.")
    if not path.is_file():
        raise BundleError(
            f"{str(directory)!r} is not a bundle: it has no {MANIFEST}. "
            "Make one with: edgessl export MODEL --target TARGET -o BUNDLE"
        )
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        version = data["schema_version"]
    except (ValueError, KeyError, TypeError) as err:
        raise BundleError(f"{path}: damaged, not a manifest ({err}). Export it again.") from err
    if version != SCHEMA_VERSION:
        raise BundleError(
            f"{path}: manifest version {version}, this edgessl reads {SCHEMA_VERSION}. "
            "Use the edgessl that wrote it, or export it again."
        )
    if data.pop("digest", None) != _digest(data):
        raise BundleError(f"{path}: changed after it was written. Export or copy it again.")
    try:
        return _from_json(data)
    except (KeyError, TypeError, ValueError, AttributeError) as err:
        raise BundleError(
            f"{path}: not laid out as this edgessl expects ({err}). Use the edgessl that wrote "
            "it, or export it again."
        ) from err


def check_files(directory: Path, manifest: Manifest) -> list[str]:
    """What differs between *directory* and its manifest, a line each; empty when nothing does."""
    problems = []
    present = set(list_files(directory))
    for name, entry in manifest.files.items():
        if name not in present:
            problems.append(f"{name}: missing")
        elif (actual := file_entry(directory / name)) != entry:
            what = "size" if actual.size != entry.size else "sha256"
            problems.append(
                f"{name}: changed ({what} {getattr(actual, what)}, "
                f"manifest says {getattr(entry, what)})"
            )
    problems += [f"{name}: not in the manifest" for name in sorted(present - set(manifest.files))]
    return problems


def _from_json(data: dict[str, Any]) -> Manifest:
    fields = dict(data)
    fields["encoder"] = EncoderSpec.from_json(data["encoder"])
    origin = data["provenance"]
    fields["provenance"] = Provenance(
        **{**origin, **{key: tuple(origin.get(key, ())) for key in ("assumptions", "passes")}}
    )
    fields["files"] = {name: FileEntry(**entry) for name, entry in data["files"].items()}
    return Manifest(**fields)


def _canonical(data: Any) -> bytes:
    return json.dumps(data, sort_keys=True, ensure_ascii=False).encode()


def _digest(data: Any) -> str:
    return hashlib.sha256(_canonical(data)).hexdigest()
