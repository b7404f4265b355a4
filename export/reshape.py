"""Reshapes whose sizes are known, or copied from what they reshape, said as constants.

torch's exporter makes every size that is not fixed from Shape and Concat nodes. Runtimes compute
those for each inference, and cannot tell a shape before they have.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

Sizes = list["int | str"]


def plain(model: onnx.ModelProto) -> int:
    """Give Reshape nodes constant shapes where the graph's noted shapes allow it, and drop what
    nothing reads then; in place. Returns how many.

    A 0 copies the size at the same place, and one -1 is what is left.
    """
    from onnx import TensorProto, helper

    graph = model.graph
    constants = {tensor.name for tensor in graph.initializer}
    noted = {
        value.name: [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in (*graph.value_info, *graph.input, *graph.output)
        if value.type.tensor_type.HasField("shape")
    }
    made: dict[tuple[int, ...], str] = {}
    changed = 0
    for node in graph.node:
        if node.op_type != "Reshape" or node.input[1] in constants:
            continue
        shape = _constant(noted.get(node.input[0]), noted.get(node.output[0]))
        if shape is None:
            continue
        if shape not in made:
            made[shape] = f"shape_{'_'.join(map(str, shape))}"
            tensor = helper.make_tensor(made[shape], TensorProto.INT64, [len(shape)], shape)
            graph.initializer.append(tensor)
        node.input[1] = made[shape]
        del node.attribute[:]  # allowzero, with which a 0 would be an empty axis
        changed += 1
    if made:
        _drop_unread(graph)
    return changed


def _constant(before: Sizes | None, after: Sizes | None) -> tuple[int, ...] | None:
    """The shape to ask for, to get from sizes *before* to sizes *after*; None: it is computed."""
    if not before or not after or 0 in before or 0 in after:  # 0: unknown, or empty
        return None
    found = []
    for place, size in enumerate(after):
        if isinstance(size, int):
            found.append(size)
        elif place < len(before) and before[place] == size and not size.startswith("unk"):
            found.append(0)
        else:
            found.append(-1)
    return tuple(found) if found.count(-1) <= 1 else None


def _drop_unread(graph: onnx.GraphProto) -> None:
    while True:
        read = {name for node in graph.node for name in node.input}
        read |= {value.name for value in graph.output}
        kept = [node for node in graph.node if any(name in read for name in node.output)]
        if len(kept) == len(graph.node):
            return
        del graph.node[:]
        graph.node.extend(kept)
