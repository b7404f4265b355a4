"""The ``openvino`` target: the OpenVINO runtime."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgessl.backend import Arrays, RuntimeOptions
from edgessl.bundle import Manifest
from edgessl.errors import BundleError, DeviceMismatch, RecipeError, require
from edgessl.isa import check
from edgessl.runtimes.int8_probe import saturates

_DEVICES = {"cpu": "CPU", "gpu": "GPU", "npu": "NPU"}


class OpenVinoBackend:
    """A compiled model; each calling thread has an infer request of its own."""

    def __init__(self, compiled: Any, facts: dict[str, Any]) -> None:
        self._compiled = compiled
        self._facts = facts
        self._local = threading.local()

    def run(self, inputs: Mapping[str, npt.NDArray[np.generic]]) -> Arrays:
        request = getattr(self._local, "request", None)
        if request is None:
            request = self._local.request = self._compiled.create_infer_request()
        # Inputs are shared for the length of the call; outputs are copied, since the request
        # writes over them next time.
        results = request.infer(dict(inputs), share_inputs=True)
        return {port.any_name: array.copy() for port, array in results.items()}

    def describe(self) -> dict[str, Any]:
        return dict(self._facts)

    def close(self) -> None:
        self._local = threading.local()
        self._compiled = None


def arithmetic(wanted: str, capabilities: list[str]) -> str:
    """The precision hint for a device: *wanted* where the hardware has it, else f32.

    OpenVINO would take another 16-bit type unasked: bf16 for f16 on a CPU with AVX512-BF16.
    """
    return wanted if {"f16": "FP16", "bf16": "BF16"}.get(wanted) in capabilities else "f32"


def open_backend(directory: Path, manifest: Manifest, options: RuntimeOptions) -> OpenVinoBackend:
    """Open ``openvino_model.xml``, or ``model.onnx`` where the bundle has no IR.

    Raises:
        MissingDependency: openvino is not installed.
        RecipeError: a device that this target does not know.
        DeviceMismatch: the device that was asked for is not in this machine, or is a CPU on
            which the bundle's int8 sums would saturate.
        BundleError: OpenVINO cannot load the file.
    """
    openvino = require("openvino", "openvino", "opening an openvino bundle")
    device = "cpu" if options.device is None else options.device
    if device not in _DEVICES:
        raise RecipeError(f"device {device!r}: openvino bundles run on {' or '.join(_DEVICES)}.")
    core = openvino.Core()
    name = _DEVICES[device]
    if not any(found.partition(".")[0] == name for found in core.available_devices):
        raise DeviceMismatch(
            f"asked for device {device!r}, but OpenVINO finds only "
            f"{', '.join(core.available_devices) or 'none'} here. Is its driver installed?"
        )
    if name == "CPU":
        check(manifest, lambda: saturates(lambda *probe: _run(core, *probe)))
    settings: dict[str, Any] = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": arithmetic(
            manifest.compatibility.get("inference_precision", "f32"),
            core.get_property(name, "OPTIMIZATION_CAPABILITIES"),
        ),
    }
    if options.threads is not None and name == "CPU":
        settings["INFERENCE_NUM_THREADS"] = options.threads
    path = directory / "openvino_model.xml"
    if not path.is_file():
        path = directory / "model.onnx"
    try:
        compiled = core.compile_model(str(path), name, settings)
    except RuntimeError as err:
        reason = str(err).strip().splitlines()[-1][:300]
        raise BundleError(f"{path}: OpenVINO cannot open it: {reason}") from err
    facts = {
        "runtime": "openvino",
        "version": openvino.get_version().partition("-")[0],
        "device": str(compiled.get_property("EXECUTION_DEVICES")[0]).strip("()"),
        "inference_precision": str(
            compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        ),
        "threads": compiled.get_property("INFERENCE_NUM_THREADS") if name == "CPU" else None,
    }
    return OpenVinoBackend(compiled, facts)


def _run(core: Any, graph: bytes, x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    results = core.compile_model(core.read_model(graph), "CPU", settings)(x)
    y: npt.NDArray[np.float32] = results[0]
    return y
