"""Run a TensorRT engine over cuda-python: numpy in, numpy out."""

from __future__ import annotations

import functools
import sys
import threading
from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from edgessl.backend import Arrays
from edgessl.errors import EdgesslError, RecipeError

_DTYPES = {
    "FLOAT": np.float32,
    "HALF": np.float16,
    "INT64": np.int64,
    "INT32": np.int32,
    "INT8": np.int8,
    "UINT8": np.uint8,
    "BOOL": np.bool_,
}


class TensorRTBackend:
    """One engine, one execution context, one CUDA stream; calls from many threads take turns.

    Device buffers grow to the largest batch seen and are kept until ``close``.
    """

    def __init__(
        self,
        trt: Any,
        cudart: Any,
        engine: Any,
        dtypes: Mapping[str, str],
        facts: Mapping[str, Any],
    ) -> None:
        self._cudart, self._engine, self._facts = cudart, engine, dict(facts)
        self._promised = dict(dtypes)  # output -> the manifest's dtype
        self._lock = threading.Lock()
        self._buffers: dict[str, tuple[int, int]] = {}  # tensor -> device address, bytes
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        is_input = {n: engine.get_tensor_mode(n) == trt.TensorIOMode.INPUT for n in names}
        self._inputs = [name for name in names if is_input[name]]
        self._outputs = [name for name in names if not is_input[name]]
        self._dtypes = {name: _dtype(name, engine.get_tensor_dtype(name)) for name in names}
        self._context = engine.create_execution_context()
        if self._context is None:
            raise EdgesslError(
                "TensorRT cannot make an execution context: is the GPU's memory full?"
            )
        self._stream = self._call("cudaStreamCreate")

    def run(self, inputs: Mapping[str, npt.NDArray[np.generic]]) -> Arrays:
        """Copy in, execute, copy out. Integer inputs are cast to what the engine takes.

        Raises:
            RecipeError: an input is missing, or a shape is outside the engine's profile.
            EdgesslError: CUDA or TensorRT fails, or the backend is closed.
        """
        if missing := [name for name in self._inputs if name not in inputs]:
            raise RecipeError(f"the engine also needs the inputs {', '.join(missing)}.")
        with self._lock:
            if self._context is None:
                raise EdgesslError("this session is closed.")
            try:
                return self._execute(inputs)
            except BaseException:  # nothing may go on reading or writing the host's arrays
                self._cudart.cudaStreamSynchronize(self._stream)
                raise

    def describe(self) -> dict[str, Any]:
        return dict(self._facts)

    def close(self) -> None:
        with self._lock:
            if self._context is None:
                return
            for address, _ in self._buffers.values():
                self._call("cudaFree", address)
            self._buffers.clear()
            self._call("cudaStreamDestroy", self._stream)
            self._context = None  # before its engine
            self._engine = None

    def _execute(self, inputs: Mapping[str, npt.NDArray[np.generic]]) -> Arrays:
        kinds, context, copy = self._cudart.cudaMemcpyKind, self._context, "cudaMemcpyAsync"
        hosts = {}  # keeps the arrays alive until the stream is done
        for name in self._inputs:
            host = np.ascontiguousarray(inputs[name], dtype=self._dtypes[name])
            hosts[name] = host
            if not context.set_input_shape(name, tuple(host.shape)):
                low, _, high = self._engine.get_tensor_profile_shape(name, 0)
                raise RecipeError(
                    f"{name} {host.shape} is outside the shapes that this engine was built for, "
                    f"{tuple(low)} to {tuple(high)}. Use smaller batches, or export it again."
                )
            device = self._device(name, host.nbytes)
            self._call(
                copy,
                device,
                host.ctypes.data,
                host.nbytes,
                kinds.cudaMemcpyHostToDevice,
                self._stream,
            )
        outputs: Arrays = {}
        for name in self._outputs:
            shape = tuple(context.get_tensor_shape(name))
            if -1 in shape:
                raise EdgesslError(f"TensorRT cannot tell the shape of {name}: {last_problem()}")
            outputs[name] = np.empty(shape, self._dtypes[name])
            self._device(name, outputs[name].nbytes)
        for name, (address, _) in self._buffers.items():
            context.set_tensor_address(name, address)
        if not context.execute_async_v3(int(self._stream)):
            raise EdgesslError(f"TensorRT cannot run the engine: {last_problem()}")
        for name, host in outputs.items():
            device = self._buffers[name][0]
            self._call(
                copy,
                host.ctypes.data,
                device,
                host.nbytes,
                kinds.cudaMemcpyDeviceToHost,
                self._stream,
            )
        self._call("cudaStreamSynchronize", self._stream)
        return {
            name: host.astype(self._promised.get(name, host.dtype), copy=False)
            for name, host in outputs.items()
        }

    def _device(self, name: str, size: int) -> int:
        """Address of *name*'s device buffer, of at least *size* bytes."""
        address, capacity = self._buffers.get(name, (0, 0))
        if capacity < max(size, 1):
            if self._buffers.pop(name, None):
                self._call("cudaFree", address)
            address = int(self._call("cudaMalloc", max(size, 1)))
            self._buffers[name] = (address, max(size, 1))
        return address

    def _call(self, function: str, *args: Any) -> Any:
        error, *values = getattr(self._cudart, function)(*args)
        if int(error) != 0:
            text = self._cudart.cudaGetErrorString(error)[1]
            text = text.decode() if isinstance(text, bytes) else text
            raise EdgesslError(f"{function} fails on the GPU: {text} (CUDA error {int(error)}).")
        return values[0] if values else None


_problems: deque[str] = deque(maxlen=20)


@functools.cache  # TensorRT keeps the first logger of a process
def logger(package: str) -> Any:
    """The one logger for *package*, which is imported; it keeps the last errors."""
    trt = sys.modules[package]

    def log(self: Any, severity: Any, text: str) -> None:
        if int(severity) <= int(trt.ILogger.ERROR):  # smaller is graver
            _problems.append(" ".join(text.split())[:300])

    body = {"__init__": lambda self: trt.ILogger.__init__(self), "log": log}
    return type("Logger", (trt.ILogger,), body)()


def last_problem() -> str:
    """TensorRT's last error, one line."""
    return _problems[-1] if _problems else "it gives no reason."


def _dtype(name: str, kind: Any) -> npt.DTypeLike:
    if kind.name not in _DTYPES:
        raise EdgesslError(f"the engine's {name} is {kind.name}, which numpy does not have.")
    return _DTYPES[kind.name]
