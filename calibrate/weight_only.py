"""Quantization that needs no data: int8 embedding tables, and int8 or int4 weights of linear
operators.

What each runtime makes of it, and the figures behind the choices: docs/weights.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgessl.calibrate.onnx_edit import (
    add_constants,
    drop_unused,
    make_node,
    matrices,
    raise_opset,
    replace_nodes,
)
from edgessl.calibrate.rounding import Floats, pack, round_blocks, table_to_int8
from edgessl.errors import RecipeError, Unsupported, nearest

if TYPE_CHECKING:
    import onnx

RUNTIMES = ("onnx", "openvino", "tensorrt")
SMALLEST_TABLE = 1 << 16  # values: below, int8 saves less than 200 kB and an operator costs time
SMALLEST_BLOCK = 16  # that runtimes have kernels for
_MICROSOFT = "com.microsoft"
_INT8_PRODUCTS = 4  # MatMulNBits' accuracy_level; the others widen the weights at every run


def quantize(
    model: onnx.ModelProto, bits: int = 8, block: int = 32, runtime: str = "onnx"
) -> dict[str, Any]:
    """Store the weights of linear operators and the embedding tables in few bits, in place.

    Linear operators are MatMul and Gemm with a constant matrix, also one behind a Transpose. Their
    weights become *bits* wide, tables int8 in any case (see ``quantize_embeddings``):

    - ``onnx``: com.microsoft's MatMulNBits, in ONNX Runtime since 1.22. Of int8 DequantizeLinear
      before MatMul only recent versions make that; the others widen the weights at every run.
    - ``openvino``: DequantizeLinear by blocks; the weights stay narrow in the IR.
    - ``tensorrt``: DequantizeLinear with zero points 0; int8 per column, int4 by blocks.

    ONNX Runtime and OpenVINO round activations to int8 as they multiply, a row and block at a
    time, so no ranges are needed and no row's rounding depends on another row.

    Args:
        model: of opset 13 or later; DequantizeLinear by blocks raises it to 21.
        bits: 8 or 4. int4 has zero points, but for TensorRT.
        block: inputs that share a scale: a power of two, 16 or more. Except for ``onnx``, where
            it does not divide a weight's inputs it is halved; if 16 does not, int8 per column.
        runtime: ``"onnx"``, ``"openvino"`` or ``"tensorrt"``.

    Returns:
        ``weight_bits``, ``block`` (None: per column), ``operators`` (how many) and
        ``int8_tables`` (names).

    Raises:
        RecipeError: options that make no sense.
        Unsupported: a graph without linear operators, or that onnx cannot bring to opset 21.
    """
    _check(bits, block, runtime)
    if not _linears(model.graph):
        raise Unsupported("weights of this graph: there is no MatMul or Gemm with constant ones.")
    per_column = runtime == "tensorrt" and bits == 8
    if runtime != "onnx" and not per_column:
        raise_opset(model)
    graph = model.graph
    stored: dict[str, list[str]] = {}  # once where layers share a weight
    first: list[Any] = []
    replaced: dict[str, list[Any]] = {}
    linears = _linears(graph)
    for linear in linears:
        name = linear.name
        if name not in stored and runtime == "onnx":
            stored[name] = _store_nbits(graph, name, linear.matrix, bits, block)
        elif name not in stored:
            size = None if per_column else _divisor(block, len(linear.matrix))
            symmetric = runtime == "tensorrt"
            first.append(_store(graph, name, linear.matrix, bits if size else 8, size, symmetric))
            stored[name] = [first[-1].output[0]]
        inputs = [linear.node.input[0], *stored[name]]
        product = make_node("MatMul", inputs, linear.product, linear.node.name)
        if runtime == "onnx":
            _to_nbits(product, linear.matrix.shape, bits, block)
        replaced[linear.output] = [product]
        if linear.bias:
            inputs = [linear.product, linear.bias]
            added = make_node("Add", inputs, linear.output, f"{linear.node.name}.bias")
            replaced[linear.output].append(added)
    replace_nodes(graph, replaced, first)
    drop_unused(graph, {linear.weight for linear in linears})
    if runtime == "onnx" and all(entry.domain != _MICROSOFT for entry in model.opset_import):
        model.opset_import.add(domain=_MICROSOFT, version=1)
    facts = {"weight_bits": bits, "block": None if per_column else block, "operators": len(linears)}
    return facts | quantize_embeddings(model, runtime)


def quantize_embeddings(model: onnx.ModelProto, runtime: str = "onnx") -> dict[str, Any]:
    """Store the embedding tables of *model* as int8, in place; opset 13 or later.

    ``Gather(table, ids)`` becomes ``Mul(DequantizeLinear(Gather(codes, ids)), Gather(rows, ids))``:
    only the rows that an input uses are ever widened. A table counts when it is a float32 matrix
    of at least ``SMALLEST_TABLE`` values that nothing but Gathers along its rows read.

    Args:
        model: of opset 13 or later.
        runtime: ``"tensorrt"`` dequantizes before it looks up: TensorRT takes int8 constants
            nowhere else, and keeps them int8 in the engine.

    Returns:
        ``int8_tables``: their names.
    """
    from onnx import numpy_helper

    graph = model.graph
    names = _tables(graph)
    first: list[Any] = []
    for tensor in [tensor for tensor in graph.initializer if tensor.name in names]:
        codes, rows, columns = table_to_int8(numpy_helper.to_array(tensor))
        name = tensor.name
        graph.initializer.remove(tensor)
        add_constants(graph, name, {"codes": codes, "rows": rows, "columns": columns})
        if runtime == "tensorrt":
            inputs = [f"{name}.codes", f"{name}.columns"]
            wide = f"{name}.wide"
            first.append(make_node("DequantizeLinear", inputs, wide, f"node_{wide}", axis=1))
    replaced: dict[str, list[Any]] = {}
    for node in graph.node:
        if node.op_type != "Gather" or node.input[0] not in names:
            continue
        (name, ids), output = node.input, node.output[0]
        wide, rows_of = f"{output}.wide", f"{output}.rows"
        if runtime == "tensorrt":
            nodes = [make_node("Gather", [f"{name}.wide", ids], wide, node.name)]
        else:
            found = f"{output}.codes"
            inputs = [found, f"{name}.columns"]
            nodes = [
                make_node("Gather", [f"{name}.codes", ids], found, node.name),
                make_node("DequantizeLinear", inputs, wide, f"{node.name}.wide", axis=-1),
            ]
        nodes.append(make_node("Gather", [f"{name}.rows", ids], rows_of, f"{node.name}.rows"))
        nodes.append(make_node("Mul", [wide, rows_of], output, f"{node.name}.scaled"))
        replaced[output] = nodes
    replace_nodes(graph, replaced, first)
    return {"int8_tables": sorted(names)}


@dataclass(frozen=True)
class _Linear:
    node: Any
    weight: str  # an initializer
    turned: bool
    matrix: Floats  # (inputs, outputs): turned, if it was
    bias: str  # a Gemm's, or ""

    @property
    def name(self) -> str:
        return f"{self.weight}.turned" if self.turned else self.weight

    @property
    def output(self) -> str:
        return str(self.node.output[0])

    @property
    def product(self) -> str:
        return f"{self.output}.product" if self.bias else self.output


def _linears(graph: onnx.GraphProto) -> list[_Linear]:
    from onnx import helper, numpy_helper

    constants = matrices(graph)
    turned = {  # the one transposition that a matrix has
        node.output[0]: node.input[0]
        for node in graph.node
        if node.op_type == "Transpose" and node.input[0] in constants
    }
    found = []
    for node in graph.node:
        if node.op_type not in ("MatMul", "Gemm"):
            continue
        options = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        scaled = options.get("alpha", 1) != 1 or options.get("beta", 1) != 1
        weight = turned.get(node.input[1], node.input[1])
        if weight not in constants or options.get("transA") or scaled:
            continue
        turn = (node.input[1] in turned) != bool(options.get("transB"))
        matrix = numpy_helper.to_array(constants[weight])
        bias = node.input[2] if len(node.input) > 2 else ""
        found.append(_Linear(node, weight, turn, matrix.T if turn else matrix, bias))
    return found


def _tables(graph: onnx.GraphProto) -> set[str]:
    large = (t for t in matrices(graph).values() if t.dims[0] * t.dims[1] >= SMALLEST_TABLE)
    names = {tensor.name for tensor in large}
    looked_up: set[str] = set()
    otherwise = {output.name for output in graph.output}
    for node in graph.node:
        for place, name in enumerate(node.input):
            by_rows = node.op_type == "Gather" and place == 0
            by_rows = by_rows and not any(a.name == "axis" and a.i for a in node.attribute)
            (looked_up if by_rows else otherwise).add(name)
    return (names & looked_up) - otherwise


def _store_nbits(
    graph: onnx.GraphProto, name: str, matrix: Floats, bits: int, block: int
) -> list[str]:
    """MatMulNBits' inputs B, scales and (of 4 bits) zero_points, each by output and then block."""
    padded = np.pad(matrix, ((0, -len(matrix) % block), (0, 0)))
    codes, scales, zeros = round_blocks(padded, bits, block, symmetric=False)
    blocks = codes.T.reshape(matrix.shape[1], -1, block)
    codes_of = add_constants(graph, name, {"codes": blocks if bits == 8 else pack(blocks)})
    scales_of = add_constants(graph, name, {"scales": scales.T.reshape(-1)})
    if bits == 8:
        return codes_of + scales_of
    return codes_of + scales_of + add_constants(graph, name, {"zeros": pack(zeros.T).reshape(-1)})


def _to_nbits(node: onnx.NodeProto, shape: tuple[int, ...], bits: int, block: int) -> None:
    from onnx import helper

    node.op_type, node.domain = "MatMulNBits", _MICROSOFT
    options = {"K": shape[0], "N": shape[1], "bits": bits, "block_size": block}
    options["accuracy_level"] = _INT8_PRODUCTS
    node.attribute.extend(helper.make_attribute(key, value) for key, value in options.items())


def _store(
    graph: onnx.GraphProto, name: str, matrix: Floats, bits: int, block: int | None, symmetric: bool
) -> onnx.NodeProto:
    """The DequantizeLinear that gives *matrix* back; *block* None: one scale a column."""
    from onnx import TensorProto, helper

    codes, scales, zeros = round_blocks(matrix, bits, block or len(matrix), symmetric)
    names = [f"{name}.codes", f"{name}.scales"]
    if bits == 8:
        add_constants(graph, name, {"codes": (codes ^ np.uint8(128)).view(np.int8)})
    else:
        parts = {f"{name}.codes": codes ^ np.uint8(8) if symmetric else codes}
        if not symmetric:
            parts[f"{name}.zeros"] = zeros
            names.append(f"{name}.zeros")
        kind = TensorProto.INT4 if symmetric else TensorProto.UINT4
        for part, values in parts.items():
            data = pack(values.reshape(-1)).tobytes()
            graph.initializer.append(helper.make_tensor(part, kind, values.shape, data, raw=True))
    add_constants(graph, name, {"scales": scales if block else scales[0]})
    axes = {"axis": 0, "block_size": block} if block else {"axis": 1}
    return make_node("DequantizeLinear", names, f"{name}.wide", f"node_{name}.wide", **axes)


def _divisor(block: int, length: int) -> int | None:
    while block >= SMALLEST_BLOCK:
        if length % block == 0:
            return block
        block //= 2
    return None


def _check(bits: int, block: int, runtime: str) -> None:
    if bits not in (4, 8):
        raise RecipeError(f"weights of {bits} bits: there are 8 and 4.")
    if block < SMALLEST_BLOCK or block & (block - 1):
        raise RecipeError(f"blocks of {block} weights: a power of two from {SMALLEST_BLOCK} up.")
    if runtime not in RUNTIMES:
        raise RecipeError(
            f"unknown runtime {runtime!r}.{nearest(runtime, RUNTIMES)} "
            f"Runtimes: {', '.join(RUNTIMES)}."
        )
