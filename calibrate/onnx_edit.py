"""Small changes to an ONNX graph."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgessl.errors import Unsupported, first_line

if TYPE_CHECKING:
    import onnx

BLOCKWISE_OPSET = 21  # the first with DequantizeLinear by blocks, and of 4 bits


def make_node(
    kind: str, inputs: list[str], output: str, name: str, **attributes: Any
) -> onnx.NodeProto:
    """A node with one output."""
    from onnx import helper

    return helper.make_node(kind, inputs, [output], name, **attributes)


def add_constants(
    graph: onnx.GraphProto, name: str, parts: Mapping[str, npt.NDArray[Any]]
) -> list[str]:
    """Initializers ``name.part``; returns their names."""
    from onnx import numpy_helper

    for part, values in parts.items():
        whole = np.asarray(values, order="C")
        graph.initializer.append(numpy_helper.from_array(whole, f"{name}.{part}"))
    return [f"{name}.{part}" for part in parts]


def select_by_booleans(graph: onnx.GraphProto) -> None:
    """Casts of booleans to float become ``Where(x, 1, 0)``, in place; *graph* notes its types.

    To OpenVINO ``(1 - Cast(x)) * lowest``, an attention mask, is a dequantization of the boolean
    once anything in the graph is int8: it divides the scores by ``lowest``, and they are gone.
    """
    from onnx import TensorProto

    kinds = {value.name: value.type.tensor_type.elem_type for value in graph.value_info}
    booleans = [
        node
        for node in graph.node
        if node.op_type == "Cast"
        and kinds.get(node.input[0]) == TensorProto.BOOL
        and [a.i for a in node.attribute if a.name == "to"] == [TensorProto.FLOAT]
    ]
    if not booleans:
        return
    ends = {"one": np.array(1, np.float32), "zero": np.array(0, np.float32)}
    names = add_constants(graph, "boolean", ends)
    for node in booleans:
        node.op_type = "Where"
        node.input.extend(names)
        del node.attribute[:]


def matrices(graph: onnx.GraphProto) -> dict[str, onnx.TensorProto]:
    """The float32 matrices among the initializers, by name."""
    return {t.name: t for t in graph.initializer if len(t.dims) == 2 and t.data_type == 1}


def replace_nodes(
    graph: onnx.GraphProto,
    replaced: Mapping[str, list[onnx.NodeProto]],
    first: Iterable[onnx.NodeProto] = (),
) -> None:
    """Put nodes in the place of the one that has the output of that name, and *first* before all."""
    nodes = list(first)
    for node in graph.node:
        nodes += replaced.get(node.output[0], [node])
    del graph.node[:]
    graph.node.extend(nodes)


def drop_unused(graph: onnx.GraphProto, names: set[str]) -> None:
    """Remove those initializers among *names* that nothing reads now but unread Transposes."""
    read = {name for node in graph.node for name in node.input}
    read |= {output.name for output in graph.output}
    for node in [node for node in graph.node if node.op_type == "Transpose"]:
        if node.input[0] in names and node.output[0] not in read:
            graph.node.remove(node)
    read = {name for node in graph.node for name in node.input}
    for tensor in [tensor for tensor in graph.initializer if tensor.name in names - read]:
        graph.initializer.remove(tensor)


def raise_opset(model: onnx.ModelProto) -> None:
    """Bring *model* to opset 21, in place.

    Raises:
        Unsupported: onnx cannot.
    """
    from onnx import version_converter

    if any(not entry.domain and entry.version >= BLOCKWISE_OPSET for entry in model.opset_import):
        return
    try:
        model.CopyFrom(version_converter.convert_version(model, BLOCKWISE_OPSET))
    except Exception as err:  # RuntimeError and ConvertError of its C++, protobuf's beyond 2 GB
        raise Unsupported(
            f"onnx cannot bring this graph to opset {BLOCKWISE_OPSET}, which weights by blocks "
            f"need ({first_line(err)})."
        ) from err
