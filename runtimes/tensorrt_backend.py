"""Run a TensorRT engine over cuda-python: numpy in, numpy out."""

from __future__ import annotations

import functools
import sys
import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
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
    """One engine and ``streams`` lanes through it, each with an execution context, a CUDA stream
    and device buffers of its own. A lane is made when all others are busy; a call that finds none
    free waits for one.
    """

    def __init__(
        self,
        trt: Any,
        cudart: Any,
        engine: Any,
        dtypes: Mapping[str, str],
        facts: Mapping[str, Any],
        streams: int = 1,
    ) -> None:
        self._facts = dict(facts)
        self._streams = streams
        self._graph: _Graph | None = _Graph.of(trt, cudart, engine, dtypes)
        self._free = threading.Condition()
        self._idle = [_Lane(self._graph)]
        self._made = 1

    @property
    def streams(self) -> int:
        return self._streams

    def run(self, inputs: Mapping[str, npt.NDArray[np.generic]]) -> Arrays:
        """Copy in, execute, copy out. Integer inputs are cast to what the engine takes.

        Raises:
            RecipeError: an input is missing, or a shape is outside the engine's profile.
            EdgesslError: CUDA or TensorRT fails, or the backend is closed.
        """
        lane = self._take()
        try:
            return lane.run(inputs)
        finally:
            with self._free:
                self._idle.append(lane)
                self._free.notify_all()  # one that waits for a lane, or who closes

    def describe(self) -> dict[str, Any]:
        return dict(self._facts)

    def close(self) -> None:
        """Waits for what is running."""
        with self._free:
            self._graph = None
            self._free.notify_all()
            self._free.wait_for(lambda: len(self._idle) == self._made)
            for lane in self._idle:
                lane.close()
            self._idle, self._made = [], 0

    def _take(self) -> _Lane:
        with self._free:
            while self._graph is not None:
                if self._idle:
                    return self._idle.pop()
                if self._made < self._streams:
                    lane = _Lane(self._graph)
                    self._made += 1
                    return lane
                self._free.wait()
        raise EdgesslError("this session is closed.")


@dataclass(frozen=True)
class _Graph:
    """An engine, and what it says of its tensors."""

    cudart: Any
    engine: Any
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    dtypes: Mapping[str, npt.DTypeLike]
    promised: Mapping[str, str]  # output -> the manifest's dtype

    @staticmethod
    def of(trt: Any, cudart: Any, engine: Any, promised: Mapping[str, str]) -> _Graph:
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        is_input = {n: engine.get_tensor_mode(n) == trt.TensorIOMode.INPUT for n in names}
        return _Graph(
            cudart,
            engine,
            tuple(name for name in names if is_input[name]),
            tuple(name for name in names if not is_input[name]),
            {name: _dtype(name, engine.get_tensor_dtype(name)) for name in names},
            dict(promised),
        )

    def call(self, function: str, *args: Any) -> Any:
        error, *values = getattr(self.cudart, function)(*args)
        if int(error) != 0:
            text = self.cudart.cudaGetErrorString(error)[1]
            text = text.decode() if isinstance(text, bytes) else text
            raise EdgesslError(f"{function} fails on the GPU: {text} (CUDA error {int(error)}).")
        return values[0] if values else None


class _Lane:
    """An execution context, a CUDA stream, and device buffers that grow to the largest batch seen;
    for one thread at a time."""

    def __init__(self, graph: _Graph) -> None:
        self._graph = graph
        self._buffers: dict[str, tuple[int, int]] = {}  # tensor -> device address, bytes
        self._context = graph.engine.create_execution_context()
        if self._context is None:
            raise EdgesslError(
                "TensorRT cannot make an execution context: is the GPU's memory full?"
            )
        self._stream = graph.call("cudaStreamCreate")

    def run(self, inputs: Mapping[str, npt.NDArray[np.generic]]) -> Arrays:
        if missing := [name for name in self._graph.inputs if name not in inputs]:
            raise RecipeError(f"the engine also needs the inputs {', '.join(missing)}.")
        try:
            return self._execute(inputs)
        except BaseException:  # nothing may go on reading or writing the host's arrays
            self._graph.cudart.cudaStreamSynchronize(self._stream)
            raise

    def close(self) -> None:
        for address, _ in self._buffers.values():
            self._graph.call("cudaFree", address)
        self._buffers.clear()
        self._graph.call("cudaStreamDestroy", self._stream)
        self._context = None  # before its engine

    def _execute(self, inputs: Mapping[str, npt.NDArray[np.generic]]) -> Arrays:
        graph, context, stream = self._graph, self._context, self._stream
        kinds, copy = graph.cudart.cudaMemcpyKind, "cudaMemcpyAsync"
        hosts = {}  # keeps the arrays alive until the stream is done
        for name in graph.inputs:
            host = np.ascontiguousarray(inputs[name], dtype=graph.dtypes[name])
            hosts[name] = host
            if not context.set_input_shape(name, tuple(host.shape)):
                low, _, high = graph.engine.get_tensor_profile_shape(name, 0)
                raise RecipeError(
                    f"{name} {host.shape} is outside the shapes that this engine was built for, "
                    f"{tuple(low)} to {tuple(high)}. Use smaller batches, or export it again."
                )
            device, size = self._device(name, host.nbytes), host.nbytes
            graph.call(copy, device, host.ctypes.data, size, kinds.cudaMemcpyHostToDevice, stream)
        outputs: Arrays = {}
        for name in graph.outputs:
            shape = tuple(context.get_tensor_shape(name))
            if -1 in shape:
                raise EdgesslError(f"TensorRT cannot tell the shape of {name}: {last_problem()}")
            outputs[name] = np.empty(shape, graph.dtypes[name])
            self._device(name, outputs[name].nbytes)
        for name, (address, _) in self._buffers.items():
            context.set_tensor_address(name, address)
        if not context.execute_async_v3(int(stream)):
            raise EdgesslError(f"TensorRT cannot run the engine: {last_problem()}")
        for name, host in outputs.items():
            device, size = self._buffers[name][0], host.nbytes
            graph.call(copy, host.ctypes.data, device, size, kinds.cudaMemcpyDeviceToHost, stream)
        graph.call("cudaStreamSynchronize", stream)
        return {
            name: host.astype(graph.promised.get(name, host.dtype), copy=False)
            for name, host in outputs.items()
        }

    def _device(self, name: str, size: int) -> int:
        """Address of *name*'s device buffer, of at least *size* bytes."""
        address, capacity = self._buffers.get(name, (0, 0))
        if capacity < max(size, 1):
            if self._buffers.pop(name, None):
                self._graph.call("cudaFree", address)
            address = int(self._graph.call("cudaMalloc", max(size, 1)))
            self._buffers[name] = (address, max(size, 1))
        return address


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
