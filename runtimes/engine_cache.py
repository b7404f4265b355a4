"""Which engine a device may run, and where it keeps those that it built for itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgessl import cache
from edgessl.backend import BuildPlan
from edgessl.bundle import Manifest, file_entry
from edgessl.errors import BundleError


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

    Raises:
        BundleError: there is no *onnx* to build from.
    """
    try:
        sha256 = file_entry(onnx).sha256
    except OSError as err:
        raise BundleError(f"{onnx}: the engine is built from it, and it cannot be read.") from err
    shapes = cache.key([plan.precision, plan.workspace_mb, sorted(plan.profiles.items())])
    return cache.root() / "engines" / f"{sha256[:16]}-{shapes[:8]}-{_name(here)}.engine"


def timing_of(here: Here) -> Path:
    """Where this device keeps how fast TensorRT's kernels were, for the next engine it builds."""
    return cache.root() / "timing" / f"{_name(here)}.timing"


def _name(here: Here) -> str:
    architecture = here.compute_capability.replace(".", "")
    return f"{here.package}-{here.version}-{here.platform}-sm{architecture}"
