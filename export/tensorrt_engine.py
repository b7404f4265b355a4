"""ONNX -> TensorRT engine, for the targets ``tensorrt`` and ``tensorrt-rtx``. No torch.

An engine is a cache of the ONNX, so the bundle always keeps ``model.onnx`` beside it.
TensorRT for RTX builds with no GPU; TensorRT proper only for the GPU it runs on, so without
one the bundle carries ``build_plan.json`` and the device builds, once, when it first loads.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from edgessl import errors, gpu
from edgessl.backend import BuildPlan
from edgessl.bundle import file_entry
from edgessl.errors import EdgesslError, MissingDependency, Unsupported
from edgessl.export.tensorrt_graph import inspect

ENGINE = "model.engine"
PLAN = "build_plan.json"
ON_DEVICE = "built on the device"


def build(onnx: Path, directory: Path, plan: BuildPlan) -> dict[str, Any]:
    """Put ``model.onnx`` and ``model.engine`` (or ``build_plan.json``) into *directory*.

    Returns the manifest's compatibility facts: ``engine`` (its file, or ``"built on the
    device"`` with a ``reason``), ``opset``, ``profiles``, ``workspace_mb``; with an engine also
    ``package``, ``version``, ``compute_capabilities``, ``strongly_typed``, ``tf32`` and, for
    TensorRT proper, ``platform``; for int8 ``int8_placement``; ``sparse_weights`` where the graph
    has 2:4 weights, which the engine then may use.

    Raises:
        MissingDependency: ``tensorrt-rtx`` is the target and is not installed.
        RecipeError: the plan's profiles do not fit the graph.
        Unsupported: TensorRT refuses the graph, the precision or a compute capability.
    """
    graph = inspect(onnx, plan.precision)
    facts: dict[str, Any] = {
        **graph,
        "profiles": {name: [list(s) for s in shapes] for name, shapes in plan.profiles.items()},
        "workspace_mb": plan.workspace_mb,
    }
    kept = directory / "model.onnx"
    if not (kept.exists() and kept.samefile(onnx)):
        shutil.copyfile(onnx, kept)
    try:
        reason = _cannot_build_here(plan)
        if reason is None:
            made = _build(kept, plan, directory / ENGINE, graph)
            return {"engine": ENGINE, **facts, **made}
    except MissingDependency as err:
        if plan.target != "tensorrt":
            raise
        reason = str(err)
    document = {
        "target": plan.target,
        "precision": plan.precision,
        "profiles": facts["profiles"],
        "workspace_mb": plan.workspace_mb,
        "onnx": {"file": kept.name, "sha256": file_entry(kept).sha256},
        "build_on_the_device": (
            f"edgessl export BUNDLE --target tensorrt --precision {plan.precision} -o NEW_BUNDLE"
        ),
        "otherwise": "the engine is built, once, when the bundle is first loaded on the device",
    }
    (directory / PLAN).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    plan.report(f"leaving the engine to the device: {reason.rstrip('.')}")
    return {"engine": ON_DEVICE, "reason": reason, **facts}


def build_engine(onnx: Path, plan: BuildPlan) -> bytes:
    """The serialized engine of *onnx*, built here and now.

    Raises:
        MissingDependency: the target's TensorRT package is not installed.
        RecipeError: the plan's profiles do not fit the graph.
        Unsupported: TensorRT refuses the graph, the precision or a compute capability.
    """
    graph = inspect(onnx, plan.precision)
    with tempfile.TemporaryDirectory(prefix="edgessl-") as scratch:
        path = Path(scratch) / ENGINE
        _build(onnx, plan, path, graph)
        return path.read_bytes()


def _cannot_build_here(plan: BuildPlan) -> str | None:
    """Why TensorRT proper has no GPU to build for; None where it has, and always for RTX."""
    if plan.target != "tensorrt":
        return None
    probe = gpu.probe()
    if not probe.usable:
        return f"{probe.reason}."
    here = probe.devices[0]
    if plan.compute_capabilities and plan.compute_capabilities != (here.compute_capability,):
        raise Unsupported(
            f"TensorRT builds for the GPU it runs on, {here.name} ({here.compute_capability}), not "
            f"for {', '.join(plan.compute_capabilities)}. Build on the device, or use --target "
            "tensorrt-rtx."
        )
    return None


def _build(onnx: Path, plan: BuildPlan, engine: Path, graph: dict[str, Any]) -> dict[str, Any]:
    """Build in a child process, then put the whole engine at *engine*; returns the facts.

    *graph*: what ``inspect`` has found; nothing, and the builder looks for 2:4 weights itself.
    """
    partial = engine.with_name(engine.name + ".partial").resolve()
    try:
        facts = _run_worker(onnx, plan, partial, not graph or "sparse_weights" in graph)
        os.replace(partial, engine)
    finally:
        partial.unlink(missing_ok=True)
    if plan.target == "tensorrt":
        devices = gpu.probe().devices
        facts["compute_capabilities"] = [device.compute_capability for device in devices[:1]]
        facts["platform"] = f"{sys.platform}-{platform.machine()}"
    return facts


def _run_worker(onnx: Path, plan: BuildPlan, engine: Path, sparse: bool) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="edgessl-") as scratch:
        result = Path(scratch).resolve() / "result.json"
        job = {
            "target": plan.target,
            "precision": plan.precision,
            "profiles": plan.profiles,
            "workspace_mb": plan.workspace_mb,
            "compute_capabilities": plan.compute_capabilities,
            "sparse": sparse,
            "onnx": str(onnx.resolve()),
            "engine": str(engine),
            "timing": str(plan.timing.resolve()) if plan.timing else None,
            "result": str(result),
        }
        child = subprocess.run(
            [sys.executable, "-c", "from edgessl.export.tensorrt_worker import main; main()"],
            input=json.dumps(job).encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=scratch,  # so that nothing in the user's directory can shadow a package
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(filter(None, map(_absolute, sys.path))),
            },
            check=False,
        )
        if not result.is_file():
            said = child.stdout.decode(errors="replace").strip().splitlines()
            raise Unsupported(
                f"the {plan.target} builder died with {gpu.exit_text(child.returncode)} on "
                f"{onnx.name}{': ' + said[-1][:300] if said else '.'} Some graphs crash it: "
                "try --target onnx or --target openvino."
            )
        facts: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
    if "error" in facts:
        kind = getattr(errors, facts["error"], EdgesslError)
        raise kind(facts["message"])
    return facts


def _absolute(entry: str) -> str:
    return os.path.abspath(entry) if entry else ""
