"""The ``tensorrt`` and ``tensorrt-rtx`` targets: find an engine for this GPU, or build it once."""

from __future__ import annotations

import platform
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgessl import cache, gpu
from edgessl.backend import RuntimeOptions
from edgessl.bundle import Manifest
from edgessl.errors import DeviceMismatch, RecipeError, Unsupported, require
from edgessl.runtimes import engine_cache
from edgessl.runtimes.tensorrt_backend import TensorRTBackend, last_problem, logger
from edgessl.target import get, resolve

_STREAMS = {"latency": 1, "throughput": 2}  # one copies while the other computes


def open_backend(directory: Path, manifest: Manifest, options: RuntimeOptions) -> TensorRTBackend:
    """Open the bundle's engine, or one from the cache, or build it once on this GPU.

    Raises:
        MissingDependency: TensorRT or cuda-python is not installed.
        DeviceMismatch: no usable NVIDIA GPU, or TensorRT cannot build for this one.
    """
    target = get(manifest.target)
    if options.device not in (None, "gpu"):
        raise RecipeError(
            f"device {options.device!r}: {target.key} bundles run on an NVIDIA GPU only. "
            + _elsewhere(manifest)
        )
    package = target.modules[0]
    trt = require(package, target.extra, f"opening a {target.key} bundle")
    # Before anything of TensorRT is made: its runtime can kill the process without a GPU.
    probe = gpu.probe()
    if not probe.usable:
        raise DeviceMismatch(
            f"{directory}: a {target.key} bundle needs an NVIDIA GPU: {probe.reason}. "
            + _elsewhere(manifest)
        )
    cudart = require("cuda.bindings.runtime", target.extra, f"opening a {target.key} bundle")
    here = engine_cache.Here(
        package,
        trt.__version__,
        probe.devices[0].compute_capability,
        f"{sys.platform}-{platform.machine()}",
    )
    runtime = trt.Runtime(logger(package))
    engine, source = _engine(runtime, directory, manifest, here, options.cache)
    streams = options.streams or _STREAMS[options.mode]
    facts = {
        "runtime": package,
        "version": trt.__version__,
        "device": probe.devices[0].name,
        "compute_capability": here.compute_capability,
        "driver": probe.driver_version,
        "engine": source,
        "threads": "on the GPU",
        "streams": streams,
    }
    dtypes = {spec.name: spec.dtype for spec in manifest.encoder.outputs}
    return TensorRTBackend(trt, cudart, engine, dtypes, facts, streams)


def _engine(
    runtime: Any, directory: Path, manifest: Manifest, here: engine_cache.Here, keep: bool
) -> tuple[Any, str]:
    """An engine that loads here, and where it is from."""
    misfit = engine_cache.misfit(manifest.compatibility, here)
    if misfit is None:
        engine = runtime.deserialize_cuda_engine((directory / "model.engine").read_bytes())
        if engine is not None:
            return engine, "bundle"
        misfit = f"it does not load: {last_problem()}"
    onnx = directory / "model.onnx"
    plan = engine_cache.plan_of(manifest, here)
    path = engine_cache.path_of(onnx, plan, here)
    if keep and here.package == "tensorrt":  # RTX times its kernels when it loads an engine
        plan = replace(plan, timing=engine_cache.timing_of(here))

    def build() -> bytes:
        said = f"once, into {path}" if keep else "for this session alone"
        _say(f"building the engine for this GPU, {said} ({misfit})")
        try:
            content: bytes = resolve("edgessl.export.tensorrt_engine:build_engine")(onnx, plan)
        except Unsupported as err:
            raise DeviceMismatch(f"no engine for this GPU: {err} {_elsewhere(manifest)}") from err
        return content

    def fetched() -> tuple[bytes, str]:
        if not keep:
            return build(), "built for this session"
        content, kept = cache.fetch(path, build)
        if kept in (cache.FOUND, cache.MADE):
            return content, str(path)
        _say(f"the engine cannot be kept ({kept}): set {cache.VARIABLE} to a folder that can")
        return content, "built for this session"

    content, source = fetched()
    engine = runtime.deserialize_cuda_engine(content)
    if engine is None and keep:  # a cached file that another driver has made useless
        cache.drop(path)
        content, source = fetched()
        engine = runtime.deserialize_cuda_engine(content)
    if engine is None:
        raise DeviceMismatch(
            f"{directory}: TensorRT does not load the engine that it built here: "
            f"{last_problem()} {_elsewhere(manifest)}"
        )
    return engine, source


def _say(line: str) -> None:
    """A build takes minutes: whoever waits wants to know for what."""
    print(f"edgessl: {line}", file=sys.stderr, flush=True)


def _elsewhere(manifest: Manifest) -> str:
    """The command that makes a bundle for a device without this GPU, from the ONNX in this one."""
    target = dict(get(manifest.target).stand_ins)[manifest.precision]
    return (
        f"To run it elsewhere: edgessl export BUNDLE --target {target} "
        f"--precision {manifest.precision} -o NEW_BUNDLE"
    )
