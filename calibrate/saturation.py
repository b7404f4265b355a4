"""What x86 processors without VNNI make of an int8 model, computed on any machine.

There ``vpmaddubsw`` multiplies uint8 activations by int8 weights and adds the products in pairs
into a *saturating* int16: 2 * 255 * 127 = 64,770 becomes 32,767. ``vpmaddwd`` then adds those
sums exactly, in int32. With weights in [-64, 64] no pair can saturate (255 * 128 = 32,640).

Which products make a pair was read in the kernels and checked against them bit for bit (see
docs/calibration.md): neighbours along the reduction axis, (0, 1), (2, 3), ...; of a convolution,
neighbouring input channels at the same place of the kernel. With an odd number of channels per
group ONNX Runtime's rows run on into the next place, OpenVINO's do not. Depthwise kernels (one
channel in and out a group) are exact. int8 activations are shifted to uint8 by 128 first.

Sources: ONNX Runtime's MLAS (x86_64/QgemmU8X8KernelAvx2.S, ConvSymKernelAvx2.S, both for AVX2,
and the Avx512Core counterparts; platform.cpp chooses); oneDNN, "Nuances of int8 computations"
(doc/advanced/int8_computations.md) and cpu/x64/brgemm, which OpenVINO uses.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgessl.backend import Arrays
from edgessl.calibrate.int8_operators import Operator, Product
from edgessl.calibrate.int8_plan import Floats, plan
from edgessl.errors import RecipeError, require

LOW, HIGH = -(1 << 15), (1 << 15) - 1
_BLOCK = 1 << 22  # pair sums looked at together: 16 MB

Int8 = npt.NDArray[np.int8]
UInt8 = npt.NDArray[np.uint8]
Int32 = npt.NDArray[np.int32]


def emulate(model: Any | Path, feeds: Sequence[Arrays], target: str = "onnx") -> list[Arrays]:
    """Run a Q/DQ model as a processor without VNNI would; one dict of outputs for each feed.

    MatMul, Gemm and Conv whose activations are dequantized from uint8 or int8 with one scale and
    whose weights are constant int8 (zero point 0; one scale, or one for each output channel) are
    computed from their integers, and for ``"openvino"`` MatMul of two int8 activations (zero
    points 0). All else runs in ONNX Runtime: for ``"onnx"`` also the operators that it leaves in
    float (``int8_operators.stays_float``) and every product of activations, exact there.

    Args:
        model: an ``onnx.ModelProto``, or the path of one.
        feeds: the graph's inputs.
        target: whose kernels, ``"onnx"`` or ``"openvino"``.

    Raises:
        MissingDependency: onnx or onnxruntime is not installed.
        RecipeError: no such target, or inputs that do not fit.
    """
    emulator = Emulator(model, target)
    return [emulator.run(feed) for feed in feeds]


def saturations(
    model: Any | Path, feeds: Sequence[Arrays], target: str = "onnx"
) -> dict[str, float]:
    """Share of the pair sums that saturate on *feeds*, by operator; else as ``emulate``."""
    emulator = Emulator(model, target)
    for feed in feeds:
        emulator.run(feed)
    return emulator.shares()


def exposed(model: Any | Path, target: str = "onnx") -> dict[str, float]:
    """Share of the weight pairs that *some* activations would saturate, by operator.

    All 0.0: the model is right on every processor. Operators that ONNX Runtime would leave in
    float count, too; a product of two activations on OpenVINO is 1.0, whatever the weights are.
    Arguments and errors as ``emulate``.
    """
    return {
        step.name: 1.0 if isinstance(step, Product) else _exposed(step, target)
        for step in plan(_proto(model, target), target, every=True)
        if not isinstance(step, Floats)
    }


class Emulator:
    """A model taken apart once, to run many feeds; see ``emulate``."""

    def __init__(self, model: Any | Path, target: str = "onnx") -> None:
        require("onnxruntime", "onnx", "emulating int8 kernels")
        proto = _proto(model, target)
        self._target = target
        self._inputs = {value.name for value in proto.graph.input} - {
            value.name for value in proto.graph.initializer
        }
        self._outputs = [value.name for value in proto.graph.output]
        self._steps = plan(proto, target)
        names = [step.name for step in self._steps if not isinstance(step, Floats)]
        self._clipped = dict.fromkeys(names, 0)
        self._pairs = dict.fromkeys(names, 0)

    def run(self, feed: Arrays) -> Arrays:
        if feed.keys() != self._inputs:
            raise RecipeError(f"the model takes {sorted(self._inputs)}, not {sorted(feed)}.")
        values = dict(feed)
        for step in self._steps:
            if isinstance(step, Floats):
                step.run(values)
                continue
            if isinstance(step, Product):
                values[step.output], clipped, pairs = multiply(step, values)
            else:
                values[step.output], clipped, pairs = compute(step, values, self._target)
            self._clipped[step.name] += clipped
            self._pairs[step.name] += pairs
        return {name: values[name] for name in self._outputs}

    def shares(self) -> dict[str, float]:
        """Of all feeds so far, the share of pair sums that saturated, by operator."""
        return {
            name: clipped / max(1, self._pairs[name]) for name, clipped in self._clipped.items()
        }


def pair_sums(left: UInt8, right: Int8) -> tuple[Int32, int]:
    """``left @ right`` as vpmaddubsw and vpmaddwd add it up, and how many pairs saturated.

    Args:
        left: activations (M, K).
        right: weights (K, N). An odd last product is a pair of its own.
    """
    if left.shape[1] % 2:
        left, right = np.pad(left, ((0, 0), (0, 1))), np.pad(right, ((0, 1), (0, 0)))
    sums = _product(left, right)
    if not left.size:
        return sums, 0
    # Most pairs cannot saturate whatever their activations are; the rest are added up anew.
    columns, pairs = np.nonzero(_can_saturate(right, left.max(axis=0).astype(np.int32)).T)
    rows = np.ascontiguousarray(left.T)
    clipped = 0
    step = max(1, _BLOCK // len(left))
    for begin in range(0, len(columns), step):
        column, pair = columns[begin : begin + step], pairs[begin : begin + step]
        total = np.zeros((len(column), len(left)), np.int32)
        for place in (2 * pair, 2 * pair + 1):
            total += rows[place].astype(np.int32) * right[place, column].astype(np.int32)[:, None]
        excess = np.clip(total, LOW, HIGH) - total
        clipped += int(np.count_nonzero(excess))
        found, first = np.unique(column, return_index=True)
        sums[:, found] += np.add.reduceat(excess, first, axis=0).T
    return sums, clipped


def multiply(product: Product, values: Arrays) -> tuple[npt.NDArray[np.float32], int, int]:
    """As ``compute``, of two activations: (..., M, K) and (..., K, N)."""
    left, right = (
        np.rint(values[name] / scale).astype(np.int16)
        for name, scale in zip((product.left, product.right), product.scales, strict=True)
    )
    batch = np.broadcast_shapes(left.shape[:-2], right.shape[:-2])
    left = np.broadcast_to(left, (*batch, *left.shape[-2:])).reshape(-1, *left.shape[-2:])
    right = np.broadcast_to(right, (*batch, *right.shape[-2:])).reshape(-1, *right.shape[-2:])
    parts, clipped = [], 0
    for one, other in zip((left + 128).astype(np.uint8), right.astype(np.int8), strict=True):
        sums, some = pair_sums(one, other)
        parts.append(sums - 128 * other.sum(axis=0, dtype=np.int32))
        clipped += some
    sums = np.reshape(parts, (*batch, left.shape[-2], right.shape[-1]))
    pairs = sums.size * ((left.shape[-1] + 1) // 2)
    return sums.astype(np.float32) * (product.scales[0] * product.scales[1]), clipped, pairs


def compute(
    operator: Operator, values: Arrays, target: str
) -> tuple[npt.NDArray[np.float32], int, int]:
    """The operator's float output, how many of its pair sums saturated, and how many it has."""
    stored = values[operator.activations]
    zero = operator.zero_point
    if operator.signed:  # the libraries' shift: the same bits, upper one flipped
        stored = (stored.astype(np.int16) + 128).astype(np.uint8)
        zero += 128
    spatial = operator.weights.ndim - 2 if operator.kind == "Conv" else 0
    parts, clipped, pairs = [], 0, 0
    for part, weights in zip(_left(operator, stored, zero), _right(operator), strict=True):
        left, right = _rows(part, weights, spatial, target)
        if operator.depthwise:
            sums = _product(left, right)
        else:
            sums, some = pair_sums(left, right)
            clipped += some
            pairs += len(left) * right.shape[1] * ((len(right) + 1) // 2)
        sums -= zero * right.sum(axis=0, dtype=np.int32)
        parts.append(sums.reshape(*part.shape[: part.ndim - 1 - spatial], right.shape[1]))
    sums = np.concatenate(parts, axis=-1)
    output = sums.astype(np.float32) * (operator.scale * operator.weight_scale)
    if operator.bias is not None:
        bias = operator.bias
        output = output + (values[bias] if isinstance(bias, str) else bias)
    return np.ascontiguousarray(np.moveaxis(output, -1, 1) if spatial else output), clipped, pairs


def _left(operator: Operator, stored: UInt8, zero: int) -> list[UInt8]:
    """Each group's activations: (..., K), or of a convolution (n, out..., kernel..., C)."""
    if operator.kind != "Conv":
        return [stored]
    size = operator.weights.ndim - 2
    pads = [(0, 0), (0, 0), *zip(operator.pads[:size], operator.pads[size:], strict=True)]
    padded = np.pad(stored, pads, constant_values=zero)
    kernel = operator.weights.shape[2:]
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, operator.dilations, strict=True)]
    axes = tuple(range(2, 2 + size))
    windows = np.lib.stride_tricks.sliding_window_view(padded, reach, axis=axes)
    steps = (*operator.strides, *operator.dilations)
    windows = windows[(slice(None), slice(None), *(slice(None, None, step) for step in steps))]
    return np.split(np.moveaxis(windows, 1, -1), operator.groups, axis=-1)


def _right(operator: Operator) -> list[Int8]:
    """Each group's weights: (K, N), or of a convolution (kernel..., C, N)."""
    if operator.kind != "Conv":
        return [operator.weights]
    return np.split(np.moveaxis(operator.weights, (0, 1), (-1, -2)), operator.groups, axis=-1)


def _rows(left: UInt8, right: Int8, spatial: int, target: str) -> tuple[UInt8, Int8]:
    """Both as matrices, the reduction axis in the order in which the kernels walk it."""
    channels = left.shape[-1]
    if spatial and target == "openvino" and channels % 2 and channels > 1:
        left = np.pad(left, [(0, 0)] * (left.ndim - 1) + [(0, 1)])
        right = np.pad(right, [(0, 0)] * (right.ndim - 2) + [(0, 1), (0, 0)])
    right = right.reshape(-1, right.shape[-1])
    return left.reshape(-1, len(right)), right


def _product(left: UInt8, right: Int8) -> Int32:
    """The exact product, by ONNX Runtime's uint8 kernels: no machine's saturate."""
    shifted = (right.astype(np.int16) + 128).astype(np.uint8)
    product: Int32 = _integer_matmul().run(None, {"a": left, "b": shifted})[0]
    return product


@functools.cache
def _integer_matmul() -> Any:
    onnx = require("onnx", "compress", "emulating int8 kernels")
    ort = require("onnxruntime", "onnx", "emulating int8 kernels")
    helper, types = onnx.helper, onnx.TensorProto
    zero = onnx.numpy_helper.from_array(np.array(128, np.uint8), "zero")
    none = onnx.numpy_helper.from_array(np.array(0, np.uint8), "none")
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["a", "b", "none", "zero"], ["y"])],
        "product",
        [helper.make_tensor_value_info(name, types.UINT8, [None, None]) for name in "ab"],
        [helper.make_tensor_value_info("y", types.INT32, [None, None])],
        [none, zero],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def _can_saturate(right: Int8, top: Int32) -> npt.NDArray[np.bool_]:
    """Which pairs of weights (K / 2, N) saturate for activations up to *top* (K,).

    Only two products of one sign can: 255 * 128 alone fits.
    """
    products = right.astype(np.int32) * top[:, None]
    up, down = np.maximum(products, 0), np.minimum(products, 0)
    exceeded: npt.NDArray[np.bool_] = (up[0::2] + up[1::2] > HIGH) | (down[0::2] + down[1::2] < LOW)
    return exceeded


def _exposed(operator: Operator, target: str) -> float:
    if operator.depthwise:
        return 0.0
    spatial = operator.weights.ndim - 2 if operator.kind == "Conv" else 0
    shares = []
    for weights in _right(operator):
        nothing = np.zeros((0, *weights.shape[:-1]), np.uint8)
        _, right = _rows(nothing, weights, spatial, target)
        right = np.pad(right, ((0, len(right) % 2), (0, 0)))
        highest = np.full(len(right), 255, np.int32)
        shares.append(float(_can_saturate(right, highest).mean()))
    return sum(shares) / len(shares)


def _proto(model: Any | Path, target: str) -> Any:
    if target not in ("onnx", "openvino"):
        raise RecipeError(f"target {target!r}: int8 kernels are known of onnx and openvino.")
    onnx = require("onnx", "compress", "emulating int8 kernels")
    return onnx.load(str(model)) if isinstance(model, Path) else model
