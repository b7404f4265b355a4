"""Which nodes of an fp32 ONNX compute in 16 bits and which stay fp32; ``export/half.py`` acts on it.

- Matrix products and convolutions, and what lies between them: 16 bits.
- Normalisations, reductions, and what feeds those alone (the sums before them): fp32. TensorRT 11 and TensorRT for RTX
  normalise in the type of their input, so the type is the only way to say so.
- Sines and cosines, and the angles that go into them: fp32. bf16 counts positions up to 256.
- What comes after the last matrix product (last normalisation, pooling, unit length): fp32.
- Operators with a constant as small as 1e-5, an epsilon: fp32.
- Softmax: 16 bits, like the products around it. TensorRT's fused attention kernels accumulate it
  in fp32 and are found only where no cast stands between the products.
- Nodes in ``keep`` and the nodes that read their outputs: fp32.
- Q/DQ: 16 bits from opset 19 on, where ONNX has that; fp32 before.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from edgessl.errors import Unsupported, first_line

if TYPE_CHECKING:
    import onnx

PRODUCTS = frozenset("MatMul Gemm Conv ConvTranspose Einsum".split())
# Statistics: what follows from them stays fp32 until it scales something.
REDUCTIONS = frozenset(
    "ReduceMean ReduceSum ReduceL1 ReduceL2 ReduceSumSquare ReduceLogSum ReduceLogSumExp "
    "ReduceProd GlobalAveragePool CumSum".split()
)
# fp32 inside; what they put out is small and may be rounded.
NORMALIZATIONS = frozenset(
    "LayerNormalization RMSNormalization InstanceNormalization GroupNormalization "
    "BatchNormalization MeanVarianceNormalization LpNormalization LogSoftmax Sin Cos".split()
)
MOVES = frozenset(
    "Reshape Transpose Slice Gather GatherElements GatherND Concat Split Squeeze Unsqueeze "
    "Identity Expand Flatten Tile DepthToSpace SpaceToDepth".split()
)
_ANCHORS = PRODUCTS | {"QuantizeLinear", "DequantizeLinear"}
QUANTIZERS = ("QuantizeLinear", "DequantizeLinear")
SMALLEST_NORMAL = {"fp16": 2.0**-14, "bf16": 2.0**-126}
_ALWAYS_FP32 = {"Resize": (2,)}  # inputs that ONNX defines as float
_FP32_ONLY = frozenset(["Range"])  # operators that ONNX does not define for 16 bits

# How a value is held while the nodes are decided, in graph order:
_FREE = "free"  # made of constants and integers alone (masks, positions): as its readers are
_STATISTIC = "statistic"  # fp32, and so are those that read it
_BOUNDED = "bounded"  # fp32, and may be rounded for a reader in 16 bits
_HOT = "hot"  # fp32, and must not be rounded
_HALF = "half"  # 16 bits


class Graph:
    """A graph with the facts that the decisions need."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.nodes = list(model.graph.node)
        self.inputs = [value.name for value in model.graph.input]
        self.constants = {tensor.name: tensor for tensor in model.graph.initializer}
        self.opset = max(e.version for e in model.opset_import if e.domain in ("", "ai.onnx"))
        self.floats = _float_values(model)
        self._readers: dict[str, list[int]] = {}
        for position, node in enumerate(self.nodes):
            for name in dict.fromkeys(node.input):
                self._readers.setdefault(name, []).append(position)

    def float_inputs(self, node: onnx.NodeProto) -> list[str]:
        """The inputs whose type follows from what the node computes in."""
        fixed = _ALWAYS_FP32.get(node.op_type, ())
        return [n for i, n in enumerate(node.input) if n in self.floats and i not in fixed]

    def readers(self, node: onnx.NodeProto) -> list[int]:
        """Positions of the nodes that read an output of *node*."""
        return [r for name in node.output for r in self._readers.get(name, ())]

    def scalar(self, name: str) -> float | None:
        """The constant *name* if it is one number."""
        from onnx import numpy_helper

        tensor = self.constants.get(name)
        if tensor is None or any(size != 1 for size in tensor.dims):
            return None
        return float(numpy_helper.to_array(tensor).reshape(-1)[0])


def decide(graph: Graph, dtype: str, keep: Collection[str]) -> list[bool]:
    """For each node of *graph*, in order: does it compute in 16 bits?"""
    held = dict.fromkeys(graph.inputs, _BOUNDED)
    found: list[str] = []
    for node in graph.nodes:
        found.append(_decide(graph, node, held, dtype, node.name in keep))
        held.update(dict.fromkeys(node.output, found[-1]))
    _widen(graph, found)
    return [state == _HALF for state in found]


def _decide(
    graph: Graph, node: onnx.NodeProto, held: dict[str, str], dtype: str, kept: bool
) -> str:
    kind = node.op_type
    inputs = graph.float_inputs(node)
    variable = [name for name in inputs if name not in graph.constants]
    states = {held[name] for name in variable} - {_FREE}
    if kept:
        return _HOT
    if _HOT in states:
        return _HOT if kind in MOVES else _STATISTIC if kind in REDUCTIONS else _BOUNDED
    if kind in QUANTIZERS:
        return _decide_quantizer(graph, node, states, dtype)
    if kind in REDUCTIONS:
        return _STATISTIC
    if kind in NORMALIZATIONS:
        return _BOUNDED
    if not states:
        table = kind == "Gather" and node.input[0] in graph.constants and bool(inputs)
        return _HALF if table else _FREE
    if kind in PRODUCTS:
        return _HALF
    if _STATISTIC in states:  # a scaling by a statistic ends it
        return _BOUNDED if kind in ("Mul", "Div", "Softmax") else _STATISTIC
    scalars = (graph.scalar(name) for name in inputs)
    if any(x is not None and 0 < abs(x) < SMALLEST_NORMAL[dtype] for x in scalars):
        return _BOUNDED
    return _HALF if _HALF in states else _BOUNDED


def _decide_quantizer(graph: Graph, node: onnx.NodeProto, states: set[str], dtype: str) -> str:
    from onnx import numpy_helper

    scale = graph.constants.get(node.input[1])
    holds = scale is not None and bool(numpy_helper.to_array(scale).min() >= SMALLEST_NORMAL[dtype])
    if graph.opset < 19 or not holds:
        return _BOUNDED
    return _HALF if node.op_type == "DequantizeLinear" or _HALF in states else _BOUNDED


def _widen(graph: Graph, found: list[str]) -> None:
    """Settle what depends on readers, from the end of the graph to its start."""
    producers = {name: i for i, node in enumerate(graph.nodes) for name in node.output}
    feeds_product = [False] * len(found)  # some matrix product in 16 bits comes later
    statistics = {i for i, node in enumerate(graph.nodes) if node.op_type in REDUCTIONS}
    for position in reversed(range(len(found))):
        node, readers = graph.nodes[position], graph.readers(graph.nodes[position])
        feeds_product[position] = any(
            feeds_product[r] or (graph.nodes[r].op_type in PRODUCTS and found[r] == _HALF)
            for r in readers
        )
        half = [found[r] == _HALF for r in readers if graph.nodes[r].op_type != "Cast"]
        table = node.op_type == "Gather" and node.input[0] in graph.constants
        if found[position] == _FREE:
            found[position] = _HALF if any(half) and node.op_type not in _FP32_ONLY else _BOUNDED
        elif found[position] == _BOUNDED and node.op_type in MOVES and half and all(half):
            found[position] = _HALF  # round before it is moved: once for all that read it
        elif node.op_type == "DequantizeLinear" and not any(half):
            found[position] = _BOUNDED
        elif found[position] == _HALF and not table and node.op_type not in _ANCHORS:
            sources = [producers.get(name) for name in graph.float_inputs(node)]
            casts = sum(source is not None and found[source] == _HALF for source in sources)
            to_statistics = bool(readers) and statistics.issuperset(readers)
            if to_statistics:
                statistics.add(position)
            # Nothing but fp32 reads it, and fp32 here takes no more casts than there.
            free = bool(half) and not any(half) and casts <= 1 and node.op_type not in MOVES
            if to_statistics or free or not feeds_product[position]:
                found[position] = _BOUNDED


def _float_values(model: onnx.ModelProto) -> frozenset[str]:
    """Names of the fp32 values of a graph.

    Raises:
        Unsupported: control flow, an operator that onnx does not know, or 16-bit types.
    """
    import onnx
    from onnx import TensorProto, helper, shape_inference

    for node in model.graph.node:
        if any(a.type in (a.GRAPH, a.GRAPHS) for a in node.attribute):
            raise Unsupported(f"{node.op_type} {node.name!r}: control flow has no half precision.")
    # Types need no weights: large constants are declared as inputs.
    graph = onnx.GraphProto(name="types", node=model.graph.node, input=model.graph.input)
    known = {v.name: v.type.tensor_type.elem_type for v in model.graph.input}
    for tensor in model.graph.initializer:
        known[tensor.name] = tensor.data_type
        if len(tensor.dims) < 2 and sum(tensor.dims) <= 64:
            graph.initializer.append(tensor)
        else:
            value = helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            graph.input.append(value)
    bare = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    bare.graph.CopyFrom(graph)
    try:
        inferred = shape_inference.infer_shapes(bare)
    except shape_inference.InferenceError as err:
        raise Unsupported(f"the graph's types cannot be found out: {first_line(err)}") from err
    for value in inferred.graph.value_info:
        known[value.name] = value.type.tensor_type.elem_type
    for output in model.graph.output:
        known[output.name] = output.type.tensor_type.elem_type
    for node in model.graph.node:
        for name in node.output:
            if name and not known.get(name):
                raise Unsupported(f"the type of {name!r} ({node.op_type}) cannot be found out.")
    if {TensorProto.FLOAT16, TensorProto.BFLOAT16} & set(known.values()):
        raise Unsupported("the graph has 16-bit types already; half precision starts from fp32.")
    return frozenset(name for name, kind in known.items() if kind == TensorProto.FLOAT)
