"""What is measured: bundles and callables by name, looked at but not opened."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from edgessl import bundle
from edgessl.bundle import MANIFEST, Manifest
from edgessl.errors import RecipeError
from edgessl.gate.report import Subject
from edgessl.target import get


@dataclass(frozen=True)
class Thing:
    """One subject. ``manifest``: None of a callable."""

    subject: Subject
    manifest: Manifest | None = None

    @property
    def reads(self) -> str:
        """Bundles with the same turn texts into the same tokens."""
        if self.manifest is None:
            return ""
        files = self.manifest.files
        names = [name for name in ("tokenizer.json", "tokenizer_config.json") if name in files]
        facts = [files[name].sha256 for name in names]
        facts.append(repr(self.manifest.encoder.preprocessing))
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def named(things: Iterable[str]) -> dict[str, str]:
    """name -> path of arguments ``PATH`` or ``NAME=PATH``; a directory's own name by default.

    Raises:
        RecipeError: two of one name, or no name.
    """
    found: dict[str, str] = {}
    for thing in things:
        name, equals, path = thing.partition("=")
        if not equals or "/" in name:  # a path may have one
            name, path = _own_name(thing), thing
        if not name or not path:
            raise RecipeError(f"{thing!r}: a subject is PATH or NAME=PATH.")
        if name in found:
            raise RecipeError(
                f"two subjects are called {name!r}: {found[name]} and {path}. Give one another "
                f"name: NAME={path}"
            )
        found[name] = path
    return found


def is_callable(path: str) -> bool:
    """Whether a subject is ``FILE.py:FACTORY``."""
    return path.rpartition(":")[0].endswith(".py")


def look(subjects: Mapping[str, str]) -> dict[str, Thing]:
    """Read the manifests, and see that all are for one kind of items.

    Raises:
        RecipeError: no subject, no such file, or bundles for different kinds of items.
        BundleError: not a bundle, or a damaged one.
    """
    if not subjects:
        raise RecipeError("nothing to measure: name a bundle.")
    found = {name: _look(name, path) for name, path in subjects.items()}
    tasks = {
        thing.manifest.encoder.task: name
        for name, thing in found.items()
        if thing.manifest is not None
    }
    if len(tasks) > 1:
        kinds = " and ".join(f"{name!r} ({task})" for task, name in tasks.items())
        raise RecipeError(f"{kinds} take different items: measure them apart.")
    return found


def _look(name: str, path: str) -> Thing:
    if is_callable(path):
        file = path.rpartition(":")[0]
        if not Path(file).is_file():
            raise RecipeError(f"{path}: there is no file {file!r}.")
        return Thing(Subject(name, path, task=""))
    manifest = bundle.read(Path(path))
    digest = json.loads((Path(path) / MANIFEST).read_text(encoding="utf-8"))["digest"]
    size = sum(entry.size for entry in manifest.files.values())
    spec = manifest.encoder
    return Thing(
        Subject(
            name,
            path,
            size_bytes=size,
            digest=digest,
            variant=manifest.variant,
            family=spec.family,
            task=spec.task,
            target=manifest.target,
            precision=manifest.precision,
        ),
        manifest,
    )


def _own_name(path: str) -> str:
    if is_callable(path):
        file, _, factory = path.rpartition(":")
        return f"{Path(file).stem}:{factory}"
    return os.path.basename(os.path.abspath(path))  # of a link, the link's


def on_gpu(things: Mapping[str, Thing], device: str | None) -> bool:
    """Whether a bundle is to run on a GPU."""
    manifests = [thing.manifest for thing in things.values() if thing.manifest is not None]
    return device == "gpu" or any(get(found.target).needs_gpu for found in manifests)
