"""The ``onnx`` target: ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgessl import cores
from edgessl.backend import Arrays, RuntimeOptions
from edgessl.bundle import Manifest
from edgessl.errors import (
    BundleError,
    DeviceMismatch,
    EdgesslError,
    RecipeError,
    first_line,
    require,
)
from edgessl.isa import at_risk
from edgessl.runtimes import memory
from edgessl.runtimes.int8_probe import saturates

# In 1.31 the fused operator takes three times as long as the sum and the LayerNormalization that it
# replaces: a short text is a tenth quicker without. Older versions do not care. On GPUs it is kept.
SLOWER = {"cpu": ["SkipLayerNormFusion"], "gpu": []}
_PROVIDERS = {"cpu": "CPUExecutionProvider", "gpu": "CUDAExecutionProvider"}
_STREAMS_ON_GPU = {"latency": 1, "throughput": 2}  # one copies while the other computes


class OrtBackend:
    """One ``onnxruntime.InferenceSession``; its ``run`` is safe from many threads."""

    def __init__(
        self, session: Any, outputs: list[str], streams: int, facts: dict[str, Any]
    ) -> None:
        self._session = session
        self._outputs = outputs
        self._streams = streams
        self._facts = facts

    @property
    def streams(self) -> int:
        return self._streams

    def run(self, inputs: Mapping[str, npt.NDArray[np.generic]]) -> Arrays:
        """ONNX Runtime reads the arrays where they are, and makes new ones. (Its I/O binding and
        its ``OrtValue`` take longer, for inputs on the CPU.)

        Raises:
            EdgesslError: ONNX Runtime fails, or the backend is closed.
        """
        session = self._session
        if session is None:
            raise EdgesslError("this session is closed.")
        try:
            found = session.run(self._outputs, inputs if type(inputs) is dict else dict(inputs))
        except Exception as err:  # its exception types live in a private module
            raise EdgesslError(f"ONNX Runtime cannot run the model: {first_line(err)}") from err
        return dict(zip(self._outputs, found, strict=True))

    def describe(self) -> dict[str, Any]:
        return dict(self._facts)

    def close(self) -> None:
        self._session = None


def open_backend(directory: Path, manifest: Manifest, options: RuntimeOptions) -> OrtBackend:
    """Open ``model.onnx``.

    Nothing is cached: an optimized copy of the file opens no faster than the file.

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
    facts: dict[str, Any] = {"runtime": "onnxruntime", "version": ort.__version__}
    if device == "cpu":
        plan = cores.plan(options.mode, options.threads, options.streams)
        streams, facts["threads"] = plan.streams, plan.threads
        _set_threads(settings, plan)
    else:
        streams = options.streams or _STREAMS_ON_GPU[options.mode]
        facts["threads"] = "on the GPU"
    widened = device == "cpu" and at_risk(manifest) and saturates(lambda *probe: _run(ort, *probe))
    if widened:  # weights become uint8, whose kernels add in 32 bits
        settings.add_session_config_entry("session.x64quantprecision", "1")
    path = directory / "model.onnx"
    try:
        session = ort.InferenceSession(
            str(path), settings, providers=[wanted], disabled_optimizers=SLOWER[device]
        )
    except Exception as err:
        reason = str(err).strip().splitlines()[0][:300]
        raise BundleError(f"{path}: ONNX Runtime cannot open it: {reason}") from err
    # get_providers() is the truth: an unusable GPU provider falls back to the CPU in silence.
    running = session.get_providers()[0]
    if running != wanted:
        raise _not_here(device, f"would run on {running}")
    facts |= {"device": running.removesuffix("ExecutionProvider"), "streams": streams}
    if widened:
        facts["int8"] = "exact, by slower kernels: this CPU has no VNNI (--isa any avoids them)"
    memory.trim(Path(ort.__path__[0]))
    return OrtBackend(session, [spec.name for spec in manifest.encoder.outputs], streams, facts)


def _set_threads(settings: Any, plan: cores.Plan) -> None:
    """One pool serves all streams, and the thread that calls works with it."""
    settings.intra_op_num_threads = plan.streams * (plan.threads - 1) + 1
    if plan.streams == 1 and len(plan.cpus) > 1:  # numbered from 1; the caller's is not pinned
        pinned = ";".join(str(cpu + 1) for cpu in plan.cpus[1:])
        settings.add_session_config_entry("session.intra_op_thread_affinities", pinned)


def _run(ort: Any, graph: bytes, x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    session = ort.InferenceSession(graph, providers=[_PROVIDERS["cpu"]])
    y: npt.NDArray[np.float32] = session.run(None, {"x": x})[0]
    return y


def _not_here(device: str, why: str) -> DeviceMismatch:
    return DeviceMismatch(
        f"asked for device {device!r}, but ONNX Runtime {why}. For NVIDIA GPUs: pip uninstall "
        "onnxruntime && pip install onnxruntime-gpu; or use the CPU."
    )
