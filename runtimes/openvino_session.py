"""The ``openvino`` target: the OpenVINO runtime."""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgessl import cache, cores, parity
from edgessl.backend import Arrays, RuntimeOptions
from edgessl.bundle import REFERENCE, Manifest
from edgessl.errors import (
    BundleError,
    DeviceMismatch,
    EdgesslError,
    RecipeError,
    first_line,
)
from edgessl.isa import check
from edgessl.openvino_core import core as shared_core
from edgessl.openvino_core import library
from edgessl.runtimes import memory
from edgessl.runtimes.int8_probe import saturates

_DEVICES = {"cpu": "CPU", "gpu": "GPU", "npu": "NPU"}
_PURPOSE = "opening an openvino bundle"
_BESIDE, _WHOLE = b"b", b"w"  # a kept graph starts with where its weights are


class OpenVinoBackend:
    """A compiled model and its infer requests: as many as threads that ever ran at once.

    ``tensor``: ``openvino.Tensor``. ``outputs``: those that are given back. ``spare``: folders whose pages can go after the first run.
    """

    def __init__(
        self,
        compiled: Any,
        tensor: Any,
        outputs: list[str],
        streams: int,
        facts: dict[str, Any],
        spare: tuple[Path, ...] = (),
    ) -> None:
        self._compiled = compiled
        self._tensor = tensor
        self._streams = streams
        self._facts = facts
        self._spare = spare
        self._idle: deque[Any] = deque()  # its pop and append are safe from many threads
        self._inputs = [port.any_name for port in compiled.inputs]
        ports = [port.get_names() for port in compiled.outputs]
        self._outputs = [next((name for name in outputs if name in port), None) for port in ports]

    @property
    def streams(self) -> int:
        return self._streams

    def run(self, inputs: Mapping[str, npt.NDArray[np.generic]]) -> Arrays:
        """Inputs are read where they are; outputs are copied, once, out of the request.

        Raises:
            EdgesslError: OpenVINO fails, or the backend is closed.
        """
        try:
            request = self._idle.pop()
        except IndexError:
            request = self._new_request()
        # A request does not keep its inputs alive: they are held here until it is done.
        tensors = [self._shared(inputs[name]) for name in self._inputs]
        try:
            for index, tensor in enumerate(tensors):
                request.set_input_tensor(index, tensor)
            found = zip(self._outputs, request.infer(share_outputs=True).values(), strict=True)
            outputs = {name: array.copy() for name, array in found if name is not None}
        except RuntimeError as err:
            raise EdgesslError(f"OpenVINO cannot run the model: {_reason(err)}") from err
        self._idle.append(request)
        if self._spare:
            spare, self._spare = self._spare, ()
            memory.trim(*spare)
        return outputs

    def describe(self) -> dict[str, Any]:
        return dict(self._facts)

    def close(self) -> None:
        self._compiled = None
        self._idle.clear()

    def _new_request(self) -> Any:
        compiled = self._compiled
        if compiled is None:
            raise EdgesslError("this session is closed.")
        return compiled.create_infer_request()

    def _shared(self, array: npt.NDArray[np.generic]) -> Any:
        flags = array.flags
        if not (flags.c_contiguous and flags.writeable):  # OpenVINO takes no others
            array = array.copy()
        return self._tensor(array, shared_memory=True)


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
    openvino = library(_PURPOSE)
    device = "cpu" if options.device is None else options.device
    if device not in _DEVICES:
        raise RecipeError(f"device {device!r}: openvino bundles run on {' or '.join(_DEVICES)}.")
    core = shared_core(_PURPOSE)
    name = _DEVICES[device]
    if name == "CPU":  # always there; asking would load what drives the other devices
        check(manifest, lambda: saturates(lambda *probe: _run(core, *probe)))
    elif not any(found.partition(".")[0] == name for found in core.available_devices):
        raise DeviceMismatch(
            f"asked for device {device!r}, but OpenVINO finds only "
            f"{', '.join(core.available_devices) or 'none'} here. Is its driver installed?"
        )
    capabilities = core.get_property(name, "OPTIMIZATION_CAPABILITIES")
    wanted = manifest.compatibility.get("inference_precision", "f32")
    settings = {
        "PERFORMANCE_HINT": options.mode.upper(),
        "INFERENCE_PRECISION_HINT": arithmetic(wanted, capabilities),
        **(_on_cpu(options) if name == "CPU" else _elsewhere(options)),
    }
    path = directory / "openvino_model.xml"
    place = None
    if not path.is_file():
        path = directory / "model.onnx"
    elif options.cache and "EXPORT_IMPORT" in capabilities:
        full = core.get_property(name, "FULL_DEVICE_NAME")
        place = _place(path, manifest, [openvino.__version__, full, capabilities, settings])
    try:
        compiled, kept = _open(core, path, name, settings, place)
    except RuntimeError as err:
        raise BundleError(f"{path}: OpenVINO cannot open it: {_reason(err)}") from err
    facts = {
        "runtime": "openvino",
        "version": openvino.get_version().partition("-")[0],
        "device": str(compiled.get_property("EXECUTION_DEVICES")[0]).strip("()"),
        "inference_precision": str(
            compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        ),
    }
    streams = 1
    if name == "CPU":
        streams = compiled.get_property("NUM_STREAMS")
        facts["threads"] = compiled.get_property("INFERENCE_NUM_THREADS") // streams
    elif options.mode == "throughput":
        streams = compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")
    facts["streams"] = streams
    if kept:
        facts["cache"] = kept
    spare = (Path(openvino.__path__[0]), directory) if name == "CPU" else ()
    outputs = [spec.name for spec in manifest.encoder.outputs]
    return OpenVinoBackend(compiled, openvino.Tensor, outputs, streams, facts, spare)


def _on_cpu(options: RuntimeOptions) -> dict[str, Any]:
    plan = cores.plan(options.mode, options.threads, options.streams)
    settings: dict[str, Any] = {
        "NUM_STREAMS": plan.streams,
        "INFERENCE_NUM_THREADS": plan.streams * plan.threads,
    }
    if options.mode == "latency":
        # OpenVINO would tie each thread to a core, where it waits for whatever else runs there: on
        # a busy machine a short text then takes five times as long, on an idle one no less.
        settings["ENABLE_CPU_PINNING"] = False
    if plan.cpus:
        settings["SCHEDULING_CORE_TYPE"] = "PCORE_ONLY"
    return settings


def _elsewhere(options: RuntimeOptions) -> dict[str, Any]:
    return {} if options.streams is None else {"NUM_STREAMS": options.streams}


def _place(path: Path, manifest: Manifest, facts: list[Any]) -> Path:
    """Where the compiled model is kept: another manifest, or files written anew, is another."""
    facts = [manifest.dumps(), *facts]
    for file in (path, path.with_suffix(".bin")):
        if file.exists():
            facts += [file.stat().st_size, file.stat().st_mtime_ns]
    return cache.root() / "openvino" / f"{manifest.variant}-{cache.key(facts)}.blob"


def _open(
    core: Any, path: Path, name: str, settings: dict[str, Any], place: Path | None
) -> tuple[Any, str]:
    """Compile the model, or import what was kept at *place*; where it is kept, or why it is not."""
    if place is None:
        return core.compile_model(str(path), name, settings), ""
    made: list[Any] = []
    beside = {"CACHE_MODE": "OPTIMIZE_SIZE", "WEIGHTS_PATH": str(path.with_suffix(".bin"))}

    def import_(content: bytes) -> Any:
        options = settings | beside if content[:1] == _BESIDE else settings
        return core.import_model(content[1:], name, options)

    def build() -> bytes:
        """The graph alone, the weights left in the bundle, where that computes the same: OpenVINO
        2026.4 takes wrong weights for some convolutions. Else all of it."""
        for kind in (_BESIDE, _WHOLE) if name == "CPU" else (_WHOLE,):
            mode = {"CACHE_MODE": beside["CACHE_MODE"]} if kind == _BESIDE else {}
            compiled = core.compile_model(str(path), name, settings | mode)
            blob = io.BytesIO()
            compiled.export_model(blob)
            content = kind + blob.getvalue()
            if kind == _WHOLE or _agree(compiled, import_(content), path.parent):
                break
        made.append(compiled)
        return content

    try:
        content, kept = cache.fetch(place, build)
        where = str(place) if kept in (cache.FOUND, cache.MADE) else f"none: {kept}"
        return (made[0] if made else import_(content)), where
    except (RuntimeError, TypeError) as err:
        cache.drop(place)
        opened = made[0] if made else core.compile_model(str(path), name, settings)
        return opened, f"none: {_reason(err)}"


def _agree(compiled: Any, imported: Any, directory: Path) -> bool:
    """Whether both give the same bits for what the bundle's reference begins with."""
    inputs = parity.read(directory / REFERENCE)[0].inputs
    found = (model(inputs).values() for model in (compiled, imported))
    return all(np.array_equal(one, other) for one, other in zip(*found, strict=True))


def _reason(err: Exception) -> str:
    """OpenVINO's last line; the ones before it say where in its source."""
    lines = [line for line in str(err).splitlines() if line.strip()]
    return lines[-1].strip()[:300] if lines else first_line(err)


def _run(core: Any, graph: bytes, x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    results = core.compile_model(core.read_model(graph), "CPU", settings)(x)
    y: npt.NDArray[np.float32] = results[0]
    return y
