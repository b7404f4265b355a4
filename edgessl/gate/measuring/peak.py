"""How much of this machine's matrix multiplication a subject uses.

The peak is measured, not read from a data sheet: large products of the subject's own runtime, on
every core at once. What an item needs is counted from the graph: two operations a weight of a
linear layer and token, and attention's two products; padding counts for nothing.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from edgessl import cores, openvino_core
from edgessl.errors import require

SIZES = (1024, 2048)  # of square matrices
_ARITHMETIC = {"int8": "int8", "int8-dynamic": "int8", "bf16": "bf16"}  # all others: fp32
_WINDOW_S, _WINDOWS = 0.08, 5
_LAYERS = ("num_hidden_layers", "num_layers", "n_layers", "n_layer")
_WIDTH = ("hidden_size", "d_model", "dim", "n_embd")

# ONNX's numbers for types.
_FLOAT, _UINT8, _INT8, _INT32 = 1, 2, 3, 6

_PURPOSE = "measuring this machine's peak"


def measure(runtime: str, precision: str) -> float:
    """Operations a second of large products, the best of what was tried.

    Args:
        runtime: ``openvino`` or ``onnxruntime``.
        precision: a bundle's: ``int8``, ``bf16``, ``fp32``, ... (what is float on a CPU is fp32).
    """
    kind = _ARITHMETIC.get(precision, "fp32")
    return max(_PRODUCTS[runtime](kind, size) for size in SIZES)


def can(runtime: str, device: str) -> bool:
    """Whether the peak of what runs a subject can be measured: CPUs only."""
    return runtime in _PRODUCTS and device.upper() == "CPU"


def operations(
    compute: Mapping[str, Any], config: Mapping[str, Any], tokens: Sequence[int] = ()
) -> float | None:
    """Floating-point operations of an item, on average.

    Args:
        compute: a manifest's. config: the bundle's config.json.
        tokens: of each text, special ones included; empty for images and videos, which are all of
            one size.

    Returns:
        None where that is not known: recordings, and texts of models whose config does not tell
        how many layers there are.
    """
    (counted, *_) = compute["at"].values()
    if not tokens:
        return float(compute["flops"]) if len(counted) > 2 else None
    layers, width = (
        next((config[name] for name in names if name in config), None)
        for names in (_LAYERS, _WIDTH)
    )
    if layers is None or width is None:
        return None
    squared = 4 * layers * width  # attention, a token pair
    linear = compute["flops"] / counted[1] - squared * counted[1]
    lengths = np.asarray(tokens, np.float64)
    return float((linear * lengths + squared * lengths**2).mean())


def _openvino(kind: str, size: int) -> float:
    openvino: Any = openvino_core.library(_PURPOSE)
    from openvino import opset13 as op

    rng = np.random.default_rng(0)
    x = op.parameter([size, size], np.float32)
    weights = op.constant(rng.normal(size=(size, size)).astype(np.float32))
    left, right = x, weights
    if kind == "int8":
        low, high = (op.constant(np.float32(bound)) for bound in (-4.0, 4.0))
        left = op.fake_quantize(x, low, high, low, high, 256)
        low, high = (op.constant(np.float32(bound)) for bound in (-4.0, 4.0))
        right = op.fake_quantize(weights, low, high, low, high, 255)
    model = openvino.Model([op.matmul(left, right, False, False)], [x])
    count = cores.plan("throughput").streams
    settings = {
        "NUM_STREAMS": count,
        "INFERENCE_NUM_THREADS": count,
        "INFERENCE_PRECISION_HINT": "bf16" if kind == "bf16" else "f32",
    }
    compiled = openvino_core.core(_PURPOSE).compile_model(model, "CPU", settings)
    given = rng.normal(size=(size, size)).astype(np.float32)
    requests = [compiled.create_infer_request() for _ in range(count)]
    jobs = [functools.partial(each.infer, {0: given}, share_inputs=True) for each in requests]
    return _rate(jobs, size)


def _onnxruntime(kind: str, size: int) -> float:
    ort: Any = require("onnxruntime", "onnx", "measuring this machine's peak")
    rng = np.random.default_rng(0)
    count = cores.plan("throughput").streams
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = 1  # each call works on the thread that makes it
    if kind == "int8":
        given = rng.integers(0, 256, (size, size), np.uint8)
        weights = rng.integers(-127, 128, (size, size), np.int8)
    else:
        given, weights = rng.normal(size=(2, size, size)).astype(np.float32)
    session = ort.InferenceSession(
        product_graph(weights), settings, providers=["CPUExecutionProvider"]
    )
    return _rate([lambda: session.run(None, {"x": given})] * count, size)


_PRODUCTS: dict[str, Callable[[str, int], float]] = {
    "openvino": _openvino,
    "onnxruntime": _onnxruntime,
}


def _rate(jobs: Sequence[Callable[[], Any]], size: int) -> float:
    """Operations a second with every job on a thread of its own: the best of some windows."""
    began = time.perf_counter()
    jobs[0]()
    jobs[0]()
    calls = max(1, round(2 * _WINDOW_S / (time.perf_counter() - began)))

    def window(job: Callable[[], Any]) -> None:
        for _ in range(calls):
            job()

    seconds = []
    with ThreadPoolExecutor(len(jobs)) as pool:
        for _ in range(_WINDOWS + 1):  # the first warms up
            began = time.perf_counter()
            list(pool.map(window, jobs))
            seconds.append(time.perf_counter() - began)
    return 2.0 * size**3 * len(jobs) * calls / min(seconds[1:])


def product_graph(weights: np.ndarray[Any, np.dtype[Any]]) -> bytes:
    """An ONNX model ``y = x @ weights``, written without the onnx package: MatMul for float32
    *weights*, MatMulInteger of uint8 *x* for int8 ones. Square; tests read it with onnx."""
    integers = weights.dtype == np.int8
    size = len(weights)
    node = _text(1, "x") + _text(1, "w") + _text(2, "y")
    node += _text(4, "MatMulInteger" if integers else "MatMul")
    tensor = _number(1, size) * 2 + _number(2, _INT8 if integers else _FLOAT)
    tensor += _text(8, "w") + _message(9, weights.tobytes())
    graph = _message(1, node) + _text(2, "product") + _message(5, tensor)
    graph += _message(11, _value("x", _UINT8 if integers else _FLOAT, size))
    graph += _message(12, _value("y", _INT32 if integers else _FLOAT, size))
    opset = _text(1, "") + _number(2, 13)
    return _number(1, 8) + _message(7, graph) + _message(8, opset)


def _value(name: str, kind: int, size: int) -> bytes:
    shape = _message(1, _number(1, size)) * 2
    tensor = _number(1, kind) + _message(2, shape)
    return _text(1, name) + _message(2, _message(1, tensor))


# Protocol buffers' wire format: a field is its number and type, then a varint, or a length and
# so many bytes.
def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _message(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _text(field: int, text: str) -> bytes:
    return _message(field, text.encode())


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])
