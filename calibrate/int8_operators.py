"""Which nodes of a Q/DQ model a runtime library computes from 8-bit integers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

_KINDS = ("MatMul", "Gemm", "Conv")
_MOVES = ("Transpose", "Reshape", "Squeeze", "Unsqueeze", "Identity")


@dataclass(frozen=True)
class Operator:
    """A MatMul, Gemm or Conv of integers; the names are those of tensors in the graph.

    ``weights``: int8 (K, N), of a Conv (N, C, kernel...); ``scale`` is the activations',
    ``weight_scale`` float32, one number or one for each of N.
    """

    kind: str
    name: str
    activations: str  # uint8 or, if signed, int8
    signed: bool
    scale: np.float32
    zero_point: int
    weights: npt.NDArray[np.int8]
    weight_scale: npt.NDArray[np.float32]
    bias: str | npt.NDArray[np.float32] | None
    output: str
    pads: tuple[int, ...] = ()
    strides: tuple[int, ...] = ()
    dilations: tuple[int, ...] = ()
    groups: int = 1

    @property
    def reads(self) -> set[str]:
        return {self.activations, *([self.bias] if isinstance(self.bias, str) else [])}

    @property
    def depthwise(self) -> bool:
        """One channel in and one out a group; with several out, the kernels are others."""
        return self.weights.shape[:2] == (self.groups, 1) and self.groups > 1


@dataclass(frozen=True)
class Product:
    """A MatMul of two activations that were dequantized from int8 with zero point 0.

    ``left`` and ``right`` are float tensors in the graph; over their scales they are integers.
    """

    name: str
    left: str
    right: str
    scales: tuple[np.float32, np.float32]
    output: str

    @property
    def reads(self) -> set[str]:
        return {self.left, self.right}


def operator(node: Any, makers: dict[str, Any], constants: dict[str, Any]) -> Operator | None:
    """*node* as an operator of integers, or None where it is none."""
    if node.op_type not in _KINDS or len(node.input) < 2:
        return None
    left, right = (_dequantized(makers.get(name), constants) for name in node.input[:2])
    if left is None or right is None:
        return None
    (activations, scale, zero, _), (stored, weight_scale, weight_zero, axis) = left, right
    if stored not in constants or activations in constants:
        return None
    if scale.size != 1 or zero.size > 1 or zero.dtype not in (np.uint8, np.int8):
        return None
    weights = _array(constants, stored)
    if weights.dtype != np.int8 or weight_zero.any():
        return None
    options = {attribute.name: _value(attribute) for attribute in node.attribute}
    layout = _layout(node.op_type, weights.ndim, options)
    per_output = weight_scale.ndim == 1 and layout is not None and axis % weights.ndim == layout
    if layout is None or not (weight_scale.size == 1 or per_output):
        return None
    bias = node.input[2] if len(node.input) > 2 and node.input[2] else None
    spatial = weights.ndim - 2
    return Operator(
        kind=node.op_type,
        name=node.name or node.output[0],
        activations=activations,
        signed=zero.dtype == np.int8,
        scale=np.float32(scale.reshape(())),
        zero_point=int(zero.reshape(-1)[0]) if zero.size else 0,
        weights=weights.T if options.get("transB") else weights,
        weight_scale=weight_scale.astype(np.float32).reshape(-1),
        bias=_array(constants, bias) if bias in constants else bias,
        output=node.output[0],
        pads=tuple(options.get("pads", (0, 0) * spatial)),
        strides=tuple(options.get("strides", (1,) * spatial)),
        dilations=tuple(options.get("dilations", (1,) * spatial)),
        groups=options.get("group", 1),
    )


def product(node: Any, makers: dict[str, Any], constants: dict[str, Any]) -> Product | None:
    """*node* as a product of two int8 activations, or None where it is none."""
    if node.op_type != "MatMul":
        return None
    scales = []
    for name in node.input:
        made = makers.get(name)
        while made is not None and made.op_type in _MOVES:
            made = makers.get(made.input[0])
        found = _dequantized(made, constants)
        if found is None or found[0] in constants:
            return None
        _, scale, zero, _ = found
        if scale.size != 1 or zero.dtype != np.int8 or zero.any():
            return None
        scales.append(np.float32(scale.reshape(())))
    name = node.name or node.output[0]
    return Product(name, node.input[0], node.input[1], (scales[0], scales[1]), node.output[0])


def _dequantized(
    node: Any, constants: dict[str, Any]
) -> tuple[str, npt.NDArray[Any], npt.NDArray[Any], int] | None:
    """Of a DequantizeLinear with constant parameters: tensor, scale, zero point and axis."""
    if node is None or node.op_type != "DequantizeLinear":
        return None
    options = {attribute.name: _value(attribute) for attribute in node.attribute}
    if any(name and name not in constants for name in node.input[1:]) or options.get("block_size"):
        return None
    scale = _array(constants, node.input[1])
    zero = np.zeros(0, np.uint8)
    if len(node.input) > 2 and node.input[2]:
        zero = _array(constants, node.input[2])
    return node.input[0], scale, zero, options.get("axis", 1)


def _layout(kind: str, dimensions: int, options: dict[str, Any]) -> int | None:
    """The weights' axis of output channels; None for what has no integer kernel."""
    if kind == "Conv":
        return 0 if options.get("auto_pad", b"NOTSET") in (b"NOTSET", b"VALID") else None
    if dimensions != 2:
        return None
    if kind == "Gemm" and (
        options.get("transA") or options.get("alpha", 1) != 1 or options.get("beta", 1) != 1
    ):
        return None
    return 0 if options.get("transB") else 1


def _value(attribute: Any) -> Any:
    from onnx import helper

    return helper.get_attribute_value(attribute)


def _array(constants: dict[str, Any], name: str) -> npt.NDArray[Any]:
    from onnx import numpy_helper

    array: npt.NDArray[Any] = numpy_helper.to_array(constants[name])
    return array


def stays_float(
    node: Any, signed: bool, makers: dict[str, Any], readers: dict[str, list[Any]]
) -> bool:
    """Whether ONNX Runtime (1.31, x86) runs a MatMul, Gemm or Conv between DequantizeLinear nodes
    in float: a Conv whose output is not quantized at once; a Gemm so, with a float bias; and
    anything on int8 activations (*signed*) that several operators read.

    ``makers``: the node that makes a tensor; ``readers``: the nodes that take it.
    """
    quantized = [reader.op_type for reader in readers.get(node.output[0], [])] == ["QuantizeLinear"]
    if node.op_type == "Conv" and not quantized:
        return True
    bias = makers.get(node.input[2]) if len(node.input) > 2 else None
    if node.op_type == "Gemm" and not quantized and len(node.input) > 2:
        if bias is None or bias.op_type != "DequantizeLinear":
            return True
    stored = makers[node.input[0]].input[0]
    return signed and max(len(readers[stored]), len(readers[node.input[0]])) > 1
