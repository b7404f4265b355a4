"""fp32 ONNX -> the same graph computing in fp16 or bf16, every type written out as a Cast. No torch.

``onnxruntime.transformers.float16`` was tried first: it knows no bf16, writes nodes in an order
that onnx's checker refuses, casts back and forth between neighbours that both stay fp32, gives
fp32 readers rounded weights, and breaks Q/DQ below opset 19.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgessl.errors import RecipeError, nearest
from edgessl.export.half_plan import QUANTIZERS, Graph, decide

if TYPE_CHECKING:
    import onnx

# The largest finite value, and what stands for constants beyond it.
_RANGE = {"fp16": (65504.0, 2.0**15), "bf16": (3.3895313892515355e38, 2.0**127)}


def convert(model: onnx.ModelProto, dtype: str, keep: Collection[str] = ()) -> None:
    """Make *model* compute in *dtype*, in place; what stays fp32 is in ``half_plan``.

    Graph inputs and outputs keep their types. A value needed in both types is cast once, a
    constant needed in both is stored in both. Constants beyond the range of *dtype* are the
    fills of attention masks: they become half of its range, so that a score added to one stays
    finite; infinities stay.

    Args:
        model: an fp32 graph of opset 13 or later; Q/DQ nodes may be in it.
        dtype: ``fp16`` or ``bf16``.
        keep: names of nodes that compute in fp32. What they put out is not rounded before its
            readers have used it, so the overflowing nodes that
            ``edgessl.calibrate.overflow.find`` names do not overflow.

    Raises:
        RecipeError: *dtype* is unknown, or *keep* names a node that is not there.
        Unsupported: control flow, operators unknown to onnx, or 16-bit types in the graph.
    """
    from onnx import TensorProto

    kinds = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
    if dtype not in kinds:
        raise RecipeError(f"no half precision {dtype!r}.{nearest(dtype, kinds)} Known: fp16, bf16.")
    names = {node.name for node in model.graph.node}
    for name in keep:
        if name not in names:
            raise RecipeError(f"no node {name!r} to keep in fp32.{nearest(name, names)}")
    _name_constants(model.graph)
    graph = Graph(model)
    half = decide(graph, dtype, keep)
    _round_scales(graph, half, dtype)
    _Rewrite(model.graph, graph, half, dtype, kinds[dtype]).apply()


def never_rounded(model: onnx.ModelProto, dtype: str) -> frozenset[str]:
    """Names of the nodes whose outputs ``convert`` leaves in fp32 for each of their readers."""
    graph = Graph(model)
    half = decide(graph, dtype, ())
    return frozenset(
        node.name
        for node, narrow in zip(graph.nodes, half, strict=True)
        if not narrow and not any(half[reader] for reader in graph.readers(node))
    )


class _Rewrite:
    """The graph being written: nodes with their casts, constants in the types that are read."""

    def __init__(
        self, target: onnx.GraphProto, graph: Graph, half: list[bool], dtype: str, kind: int
    ) -> None:
        self.target, self.graph, self.half, self.dtype, self.kind = (
            target, graph, half, dtype, kind,
        )  # fmt: skip
        self.taken = {n for node in graph.nodes for n in (*node.input, *node.output)}
        self.in_half: set[str] = set()  # values that their node puts out in 16 bits
        self.other: dict[str, str] = {}  # value or constant -> its name in the other type
        self.nodes: list[onnx.NodeProto] = []

    def apply(self) -> None:
        from onnx import TensorProto

        constants = self._constants()
        outputs = {value.name for value in self.target.output}
        for node, half in zip(self.graph.nodes, self.half, strict=True):
            wanted = set(self.graph.float_inputs(node))
            for position, name in enumerate(node.input):
                if name not in self.graph.floats:
                    continue
                in_half = half and name in wanted
                if name in self.graph.constants:
                    node.input[position] = constants[name, in_half]
                elif in_half != (name in self.in_half):
                    node.input[position] = self._cast(name, in_half)
            self.nodes.append(node)
            if half:
                self._retype(node)
                for position, name in enumerate(node.output):
                    if name in self.graph.floats:
                        self.in_half.add(name)
                        if name in outputs:
                            node.output[position] = self._fresh(name)
                            self._add_cast(node.output[position], name, TensorProto.FLOAT)
                            self.in_half.discard(name)
                            self.other[name] = node.output[position]
        del self.target.node[:]
        self.target.node.extend(self.nodes)
        stored = {tensor.name: tensor.data_type for tensor in self.target.initializer}
        for value in self.target.value_info:  # the exporter declares constants here, too
            if value.name in self.in_half or stored.get(value.name) == self.kind:
                value.type.tensor_type.elem_type = self.kind

    def _constants(self) -> dict[tuple[str, bool], str]:
        """Store every constant in the types that are read; (name, in 16 bits) -> name."""
        read: dict[str, set[bool]] = {}
        for node, half in zip(self.graph.nodes, self.half, strict=True):
            wanted = set(self.graph.float_inputs(node)) if half else set()
            for name in node.input:
                if name in self.graph.constants and name in self.graph.floats:
                    read.setdefault(name, set()).add(name in wanted)
        names = {(name, False): name for name in read}
        for name, types in read.items():
            if True not in types:
                continue
            tensor = self.graph.constants[name]
            names[name, True] = name
            if False in types:  # fp32 keeps the name
                names[name, True] = self._fresh(name)
                tensor = self.target.initializer.add()
                tensor.CopyFrom(self.graph.constants[name])
                tensor.name = names[name, True]
            store(tensor, self.dtype)
        return names

    def _cast(self, name: str, in_half: bool) -> str:
        """The value *name* in the other type."""
        from onnx import TensorProto

        if name not in self.other:
            self.other[name] = self._fresh(name, "" if in_half else "fp32")
            self._add_cast(name, self.other[name], self.kind if in_half else TensorProto.FLOAT)
        return self.other[name]

    def _add_cast(self, source: str, name: str, kind: int) -> None:
        from onnx import helper

        self.nodes.append(helper.make_node("Cast", [source], [name], name=f"{name}_cast", to=kind))

    def _fresh(self, name: str, suffix: str = "") -> str:
        fresh = f"{name}_{suffix or self.dtype}"
        while fresh in self.taken:
            fresh += "_"
        self.taken.add(fresh)
        return fresh

    def _retype(self, node: onnx.NodeProto) -> None:
        """Attributes that name a type."""
        from onnx import TensorProto, helper

        attributes = {attribute.name: attribute for attribute in node.attribute}
        if node.op_type == "Cast" and attributes["to"].i == TensorProto.FLOAT:
            attributes["to"].i = self.kind
        if node.op_type == "ConstantOfShape" and node.output[0] in self.graph.floats:
            if "value" in attributes:
                store(attributes["value"].t, self.dtype)
            else:
                value = helper.make_tensor("value", self.kind, [1], [0.0])
                node.attribute.append(helper.make_attribute("value", value))


def store(tensor: onnx.TensorProto, dtype: str) -> None:
    """Make an fp32 tensor one of *dtype*, in place, rounding to nearest even."""
    from onnx import TensorProto, numpy_helper

    values: npt.NDArray[Any] = numpy_helper.to_array(tensor).astype(np.float32)
    largest, fill = _RANGE[dtype]
    beyond = np.isfinite(values) & (np.abs(values) > largest)
    values = np.where(beyond, np.copysign(np.float32(fill), values), values)
    tensor.ClearField("float_data")
    tensor.raw_data = _bits(values, dtype).tobytes()
    tensor.data_type = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}[dtype]


def _bits(values: npt.NDArray[np.float32], dtype: str) -> npt.NDArray[np.uint16]:
    if dtype == "fp16":
        return values.astype(np.float16).view(np.uint16)
    bits = np.ascontiguousarray(values).view(np.uint32)
    rounded = (bits + (0x7FFF + ((bits >> 16) & 1)).astype(np.uint32)) >> 16
    return np.where(np.isnan(values), 0x7FC0, rounded).astype(np.uint16)


def _round_scales(graph: Graph, half: list[bool], dtype: str) -> None:
    """A scale that Q reads in fp32 and DQ in 16 bits must be the same number to both."""
    from onnx import numpy_helper

    scales = {
        node.input[1]
        for node, narrow in zip(graph.nodes, half, strict=True)
        if narrow and node.op_type in QUANTIZERS
    }
    for name in scales:
        tensor = graph.constants[name]
        values = numpy_helper.to_array(tensor).astype(np.float32)
        bits = _bits(values, dtype)
        same = (
            bits.view(np.float16).astype(np.float32)
            if dtype == "fp16"
            else (bits.astype(np.uint32) << 16).view(np.float32)
        )
        tensor.CopyFrom(numpy_helper.from_array(same.reshape(values.shape), name))


def _name_constants(target: onnx.GraphProto) -> None:
    """Constant nodes of fp32 become initializers, so that there is one kind of constant."""
    from onnx import TensorProto

    nodes = []
    for node in target.node:
        values = [a.t for a in node.attribute if a.name == "value"]
        if node.op_type == "Constant" and values and values[0].data_type == TensorProto.FLOAT:
            tensor = target.initializer.add()
            tensor.CopyFrom(values[0])
            tensor.name = node.output[0]
        else:
            nodes.append(node)
    if len(nodes) < len(target.node):
        del target.node[:]
        target.node.extend(nodes)
