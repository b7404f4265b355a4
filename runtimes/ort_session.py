"""The ``onnx`` target: ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgessl.backend import Arrays, RuntimeOptions
from edgessl.bundle import Manifest
from edgessl.errors import BundleError, DeviceMismatch, RecipeError, require
from edgessl.isa import at_risk
from edgessl.runtimes.int8_probe import saturates

# In 1.31 the fused operator takes three times as long as the sum and the LayerNormalization that it
# replaces: a short text is a tenth quicker without. Older versions do not care. On GPUs it is kept.
SLOWER = {"cpu": ["SkipLayerNormFusion"], "gpu": []}
_PROVIDERS = {"cpu": "CPUExecutionProvider", "gpu": "CUDAExecutionProvider"}


class OrtBackend:
    """One ``onnxruntime.InferenceSession``; its ``run`` is safe from many threads."""

    def __init__(self, session: Any, outputs: list[str], facts: dict[str, Any]) -> None:
        self._session = session
        self._outputs = outputs
        self._facts = facts

    def run(self, inputs: Mapping[str, npt.NDArray[np.generic]]) -> Arrays:
        return dict(zip(self._outputs, self._session.run(self._outputs, dict(inputs)), strict=True))

    def describe(self) -> dict[str, Any]:
        return dict(self._facts)

    def close(self) -> None:
        self._session = None


def open_backend(directory: Path, manifest: Manifest, options: RuntimeOptions) -> OrtBackend:
    """Open ``model.onnx``.

    On a CPU whose int8 sums would saturate, ONNX Runtime is told to take its exact kernels,
    which are slower; ``describe`` says so.

    Raises:
        MissingDependency: onnxruntime is not installed.
        RecipeError: a device that this target does not know.
        DeviceMismatch: the device that was asked for is not what would run.
        BundleError: ONNX Runtime cannot load the file.
    """
    ort = require("onnxruntime", "onnx", "opening an onnx bundle")
    device = "cpu" if options.device is None else options.device
    if device not in _PROVIDERS:
        raise RecipeError(f"device {device!r}: onnx bundles run on {' or '.join(_PROVIDERS)}.")
    wanted = _PROVIDERS[device]
    if wanted not in ort.get_available_providers():
        raise _not_here(device, "has no such provider")
    settings = ort.SessionOptions()
    settings.log_severity_level = 3  # its warnings speak to ONNX Runtime's developers
    if options.threads is not None:
        settings.intra_op_num_threads = options.threads
    widened = device == "cpu" and at_risk(manifest) and saturates(lambda *probe: _run(ort, *probe))
    if widened:  # weights become uint8, whose kernels add in 32 bits
        settings.add_session_config_entry("session.x64quantprecision", "1")
    path = directory / "model.onnx"
    try:
        session = ort.InferenceSession(
            str(path), settings, providers=[wanted], disabled_optimizers=SLOWER[device]
        )
    except Exception as err:  # its exception types live in a private module
        reason = str(err).strip().splitlines()[0][:300]
        raise BundleError(f"{path}: ONNX Runtime cannot open it: {reason}") from err
    # get_providers() is the truth: an unusable GPU provider falls back to the CPU in silence.
    running = session.get_providers()[0]
    if running != wanted:
        raise _not_here(device, f"would run on {running}")
    facts = {
        "runtime": "onnxruntime",
        "version": ort.__version__,
        "device": running.removesuffix("ExecutionProvider"),
        "threads": options.threads or "all cores",
    }
    if widened:
        facts["int8"] = "exact, by slower kernels: this CPU has no VNNI (--isa any avoids them)"
    return OrtBackend(session, [spec.name for spec in manifest.encoder.outputs], facts)


def _run(ort: Any, graph: bytes, x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    session = ort.InferenceSession(graph, providers=[_PROVIDERS["cpu"]])
    y: npt.NDArray[np.float32] = session.run(None, {"x": x})[0]
    return y


def _not_here(device: str, why: str) -> DeviceMismatch:
    return DeviceMismatch(
        f"asked for device {device!r}, but ONNX Runtime {why}. For NVIDIA GPUs: pip uninstall "
        "onnxruntime && pip install onnxruntime-gpu; or use the CPU."
    )
