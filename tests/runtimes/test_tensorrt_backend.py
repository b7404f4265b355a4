"""The TensorRT backend on a GPU made of numpy: CUDA's calls and the engine's, their rules checked."""

from __future__ import annotations

import ctypes
import threading
import time
import types
from collections import deque
from typing import Any

import numpy as np
import pytest

from edgessl.errors import EdgesslError, RecipeError
from edgessl.runtimes import tensorrt_backend
from edgessl.runtimes.tensorrt_backend import TensorRTBackend

LOW, HIGH = (1, 1), (8, 16)


class Cuda:
    """cuda-python's runtime API over host memory; copies and kernels wait for the stream."""

    cudaMemcpyKind = types.SimpleNamespace(cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2)

    def __init__(self, memory: int = 1 << 20) -> None:
        self.memory = memory
        self.allocated: dict[int, Any] = {}
        self.streams: dict[int, list[Any]] = {}
        self.mallocs = 0
        self.delay_s = 0.0
        self.waiting = self.most = 0  # synchronisations at once
        self.lock = threading.Lock()

    def cudaStreamCreate(self) -> tuple[int, int]:
        stream = 7 + len(self.streams)
        self.streams[stream] = []
        return 0, stream

    def cudaStreamDestroy(self, stream: int) -> tuple[int]:
        del self.streams[stream]
        return (0,)

    def cudaStreamSynchronize(self, stream: int) -> tuple[int]:
        with self.lock:
            self.waiting += 1
            self.most = max(self.most, self.waiting)
        time.sleep(self.delay_s)
        while self.streams[stream]:
            self.streams[stream].pop(0)()
        with self.lock:
            self.waiting -= 1
        return (0,)

    def cudaMalloc(self, size: int) -> tuple[int, int | None]:
        assert size > 0
        if sum(map(len, self.allocated.values())) + size > self.memory:
            return 2, None
        self.mallocs += 1
        buffer = ctypes.create_string_buffer(size)
        address = ctypes.addressof(buffer)
        self.allocated[address] = buffer
        return 0, address

    def cudaFree(self, address: int) -> tuple[int]:
        del self.allocated[address]
        return (0,)

    def cudaMemcpyAsync(self, to: int, source: int, size: int, kind: int, stream: int) -> Any:
        device = to if kind == 1 else source
        assert size <= len(self.allocated[device])
        self.streams[stream].append(lambda: ctypes.memmove(to, source, size))
        return (0,)

    def cudaGetErrorString(self, error: int) -> tuple[int, bytes]:
        return 0, b"out of memory"

    def at(self, address: int, shape: tuple[int, ...], dtype: Any) -> np.ndarray[Any, Any]:
        count = int(np.prod(shape))
        return np.frombuffer(self.allocated[address], dtype, count).reshape(shape)


class Engine:
    """Two inputs ``(batch, sequence)``; the vector is their masked sum and the row's sum."""

    num_io_tensors = 3
    names = ("input_ids", "attention_mask", "sentence_embedding")

    def __init__(self, cuda: Cuda, integer: str = "INT64", output: str = "FLOAT") -> None:
        self.cuda, self.integer, self.output = cuda, integer, output

    def get_tensor_name(self, index: int) -> str:
        return self.names[index]

    def get_tensor_mode(self, name: str) -> str:
        return "output" if name == self.names[2] else "input"

    def get_tensor_dtype(self, name: str) -> Any:
        return types.SimpleNamespace(name=self.output if name == self.names[2] else self.integer)

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[tuple[int, ...]]:
        return [LOW, LOW, HIGH]

    def create_execution_context(self) -> Context:
        return Context(self)


class Context:
    def __init__(self, engine: Engine) -> None:
        self.engine, self.cuda = engine, engine.cuda
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}
        self.busy = threading.Lock()

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        fits = all(a <= n <= b for a, n, b in zip(LOW, shape, HIGH, strict=True))
        if fits:
            self.shapes[name] = shape
        return fits

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return (self.shapes["input_ids"][0], 2)

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        integer = np.int64 if self.engine.integer == "INT64" else np.int32
        real = np.float32 if self.engine.output == "FLOAT" else np.float16
        assert self.busy.acquire(blocking=False), "two threads in one context"
        where = dict(self.addresses)
        shape = self.shapes["input_ids"]

        def kernel() -> None:
            ids = self.cuda.at(where["input_ids"], shape, integer)
            mask = self.cuda.at(where["attention_mask"], shape, integer)
            out = self.cuda.at(where["sentence_embedding"], (shape[0], 2), real)
            out[:, 0], out[:, 1] = (ids * mask).sum(1), ids.sum(1)
            self.busy.release()

        self.cuda.streams[stream].append(kernel)
        return True


TRT = types.SimpleNamespace(TensorIOMode=types.SimpleNamespace(INPUT="input", OUTPUT="output"))


def backend(cuda: Cuda, streams: int = 1, **kinds: str) -> TensorRTBackend:
    promised = {"sentence_embedding": "float32"}
    facts = {"runtime": "numpy"}
    return TensorRTBackend(TRT, cuda, Engine(cuda, **kinds), promised, facts, streams)


def batch(rows: int, length: int, seed: int = 0) -> dict[str, np.ndarray[Any, Any]]:
    rng = np.random.default_rng(seed)
    return {
        "input_ids": rng.integers(0, 100, (rows, length)),
        "attention_mask": rng.integers(0, 2, (rows, length)),
    }


def expected(inputs: dict[str, np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    return np.stack([(ids * mask).sum(1), ids.sum(1)], 1).astype(np.float32)


@pytest.mark.parametrize("kinds", [{}, {"integer": "INT32"}, {"output": "HALF"}])
def test_numpy_in_numpy_out(kinds: dict[str, str]) -> None:
    cuda = Cuda()
    opened = backend(cuda, 1, **kinds)
    for rows, length in [(2, 3), (8, 16), (1, 1), (5, 7)]:
        inputs = batch(rows, length, seed=rows)
        (vectors,) = opened.run(inputs).values()
        assert vectors.dtype == np.float32
        np.testing.assert_array_equal(vectors, expected(inputs))
    assert opened.describe() == {"runtime": "numpy"}


def test_inputs_that_are_views_are_copied_in_order() -> None:
    inputs = {name: array.T for name, array in batch(6, 5).items()}
    assert not inputs["input_ids"].flags.c_contiguous
    vectors = backend(Cuda()).run(inputs)["sentence_embedding"]
    np.testing.assert_array_equal(vectors, expected(inputs))


def test_results_are_the_callers_own() -> None:
    opened = backend(Cuda())
    first = opened.run(batch(4, 4))["sentence_embedding"]
    kept = first.copy()
    opened.run(batch(4, 4, seed=1))
    np.testing.assert_array_equal(first, kept)


def test_device_buffers_grow_and_are_reused_and_freed() -> None:
    cuda = Cuda()
    opened = backend(cuda)
    opened.run(batch(2, 4))
    assert cuda.mallocs == 3
    opened.run(batch(2, 4))
    opened.run(batch(1, 2))
    assert cuda.mallocs == 3
    opened.run(batch(4, 4))
    assert cuda.mallocs == 6 and len(cuda.allocated) == 3
    opened.close()
    assert cuda.allocated == {} and cuda.streams == {}
    opened.close()  # once more is no error
    with pytest.raises(EdgesslError, match="closed"):
        opened.run(batch(2, 4))


@pytest.mark.parametrize("streams", [1, 2, 3])
def test_many_threads_share_the_streams(streams: int) -> None:
    cuda = Cuda()
    cuda.delay_s = 0.001
    opened = backend(cuda, streams)
    assert opened.streams == streams
    wrong: list[int] = []

    def work(seed: int) -> None:
        for step in range(30):
            inputs = batch(1 + (seed + step) % 8, 1 + step % 16, seed=seed * 100 + step)
            if not np.array_equal(opened.run(inputs)["sentence_embedding"], expected(inputs)):
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert cuda.most == len(cuda.streams) == streams
    opened.close()
    assert cuda.allocated == {} and cuda.streams == {}


def test_a_stream_is_made_when_it_is_needed() -> None:
    cuda = Cuda()
    opened = backend(cuda, 4)
    for _ in range(3):
        opened.run(batch(2, 4))
    assert len(cuda.streams) == 1


def test_who_waits_for_a_stream_of_a_closed_backend() -> None:
    cuda = Cuda()
    cuda.delay_s = 0.3
    opened = backend(cuda)
    said: list[str] = []

    def work() -> None:
        try:
            opened.run(batch(2, 4))
            said.append("done")
        except EdgesslError as err:
            said.append(str(err))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    while cuda.waiting == 0:
        time.sleep(0.005)
    opened.close()
    for thread in threads:
        thread.join(10)
    assert set(said) <= {"done", "this session is closed."} and len(said) == 3
    assert "done" in said and cuda.allocated == {}


def test_a_batch_outside_the_profile_says_what_fits_and_spoils_nothing() -> None:
    cuda = Cuda()
    opened = backend(cuda)
    with pytest.raises(RecipeError, match=r"\(9, 4\) is outside .* \(1, 1\) to \(8, 16\)"):
        opened.run(batch(9, 4))
    assert cuda.streams[7] == []
    inputs = batch(8, 4)
    np.testing.assert_array_equal(opened.run(inputs)["sentence_embedding"], expected(inputs))


def test_a_missing_input() -> None:
    with pytest.raises(RecipeError, match="attention_mask"):
        backend(Cuda()).run({"input_ids": np.ones((1, 1), np.int64)})


def test_out_of_gpu_memory_and_on_after_it() -> None:
    cuda = Cuda(memory=700)
    opened = backend(cuda)
    with pytest.raises(EdgesslError, match=r"cudaMalloc fails .* out of memory \(CUDA error 2\)"):
        opened.run(batch(8, 16))
    assert cuda.streams[7] == []
    inputs = batch(2, 4)
    np.testing.assert_array_equal(opened.run(inputs)["sentence_embedding"], expected(inputs))


def test_an_engine_that_refuses_to_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Context, "execute_async_v3", lambda *_: False)
    monkeypatch.setattr(tensorrt_backend, "_problems", deque(["bad weather"]))
    with pytest.raises(EdgesslError, match="cannot run the engine: bad weather"):
        backend(Cuda()).run(batch(1, 1))


def test_a_type_that_numpy_lacks() -> None:
    with pytest.raises(EdgesslError, match="sentence_embedding is BF16"):
        backend(Cuda(), output="BF16")


def test_the_logger_of_a_real_tensorrt_keeps_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    trt = pytest.importorskip("tensorrt_rtx")
    monkeypatch.setattr(tensorrt_backend, "_problems", deque(maxlen=3))
    logger = tensorrt_backend.logger("tensorrt_rtx")
    assert isinstance(logger, trt.ILogger)
    assert tensorrt_backend.last_problem() == "it gives no reason."
    logger.log(trt.ILogger.WARNING, "a warning")
    assert tensorrt_backend.last_problem() == "it gives no reason."
    logger.log(trt.ILogger.ERROR, "two\n  lines")
    assert tensorrt_backend.last_problem() == "two lines"
