"""Which engine a device may run, and the cache of those that it built for itself."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from edgessl.backend import BuildPlan
from edgessl.bundle import Manifest, file_entry
from edgessl.errors import BundleError, OutputError

CACHE_VARIABLE = "EDGESSL_CACHE_DIR"


@dataclass(frozen=True)
class Here:
    """What an engine must have been built for to run on this device."""

    package: str  # tensorrt, tensorrt_rtx
    version: str
    compute_capability: str  # "8.6"
    platform: str  # sys.platform and the processor: "linux-aarch64"


def misfit(compatibility: dict[str, Any], here: Here) -> str | None:
    """Why the bundle's own engine is not for this device, or None when it is."""
    if compatibility.get("engine") != "model.engine":
        return "the bundle carries none"
    for fact in ("package", "version"):
        if compatibility.get(fact) != getattr(here, fact):
            return (
                f"the bundle's is for {fact} {compatibility.get(fact)}, not {getattr(here, fact)}"
            )
    capabilities = compatibility.get("compute_capabilities", [])
    if here.compute_capability not in capabilities:
        able = ", ".join(capabilities)
        return f"the bundle's is for compute capability {able}, not {here.compute_capability}"
    if compatibility.get("platform", here.platform) != here.platform:
        return f"the bundle's is for {compatibility['platform']}, not {here.platform}"
    return None


def plan_of(manifest: Manifest, here: Here) -> BuildPlan:
    """The plan that the bundle was exported with, for the GPU that is here.

    Raises:
        BundleError: the manifest does not say it.
    """
    facts = manifest.compatibility
    try:
        profiles = {
            name: (tuple(low), tuple(optimal), tuple(high))
            for name, (low, optimal, high) in facts["profiles"].items()
        }
        workspace_mb = int(facts["workspace_mb"])
    except (KeyError, TypeError, ValueError, AttributeError) as err:
        raise BundleError(
            "the manifest does not say how to build the engine (profiles, workspace_mb). "
            "Export the bundle again."
        ) from err
    return BuildPlan(
        manifest.target,
        manifest.precision,
        profiles,
        workspace_mb=workspace_mb,
        compute_capabilities=(here.compute_capability,),
    )


def path_of(onnx: Path, plan: BuildPlan, here: Here) -> Path:
    """Where this device keeps its engine for that ONNX, plan, TensorRT and GPU architecture.

    In ``$EDGESSL_CACHE_DIR``, or ``~/.cache/edgessl``.

    Raises:
        BundleError: there is no *onnx* to build from.
    """
    try:
        sha256 = file_entry(onnx).sha256
    except OSError as err:
        raise BundleError(f"{onnx}: the engine is built from it, and it cannot be read.") from err
    shapes = json.dumps([plan.precision, plan.workspace_mb, sorted(plan.profiles.items())])
    name = (
        f"{sha256[:16]}-{hashlib.sha256(shapes.encode()).hexdigest()[:8]}-{here.package}-"
        f"{here.version}-{here.platform}-sm{here.compute_capability.replace('.', '')}.engine"
    )
    root = os.environ.get(CACHE_VARIABLE)
    return (Path(root) if root else Path.home() / ".cache" / "edgessl") / "engines" / name


def fetch(path: Path, build: Callable[[], bytes]) -> bytes:
    """The bytes at *path*; where there are none, *build* makes them, once among all processes.

    Raises:
        OutputError: the cache cannot be written.
    """
    try:
        if path.is_file():
            return path.read_bytes()
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path.with_name(path.name + ".lock")):
            if path.is_file():  # another process was faster
                return path.read_bytes()
            engine = build()
            _write(path, engine)
            return engine
    except OSError as err:
        raise OutputError(
            f"the engine cache {path.parent} cannot be written: {err}. "
            f"Point {CACHE_VARIABLE} to a directory that can."
        ) from err


def _write(path: Path, content: bytes) -> None:
    """Write beside *path* and rename, so that nobody ever reads half an engine."""
    handle, partial = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".partial")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
        os.replace(partial, path)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold *path* against other processes. The kernel lets go when a process dies.

    Without fcntl (Windows) nothing is held: two processes may both build, and the last
    rename wins, which costs time and no correctness.
    """
    try:
        fcntl: Any = importlib.import_module("fcntl")
    except ImportError:
        yield
        return
    stream: IO[bytes]
    with path.open("wb") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
