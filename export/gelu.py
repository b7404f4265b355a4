"""GELU as ONNX Runtime knows it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx


def plain(model: onnx.ModelProto) -> int:
    """Turn ``x * (0.5 * (1 + erf(x / sqrt 2)))``, as torch writes GELU, into ``(x * (1 + erf(x /
    sqrt 2))) * 0.5``, which ONNX Runtime knows for Gelu; in place. Returns how many."""
    graph = model.graph
    constants = {tensor.name for tensor in graph.initializer}
    made_by = {name: node for node in graph.node for name in node.output}
    readers = Counter(name for node in graph.node for name in node.input)
    readers.update(output.name for output in graph.output)
    found = 0
    for node in graph.node:
        if node.op_type != "Mul":
            continue
        for x, halved in (list(node.input), list(node.input)[::-1]):
            half_node = made_by.get(halved)
            if half_node is None or half_node.op_type != "Mul" or readers[halved] != 1:
                continue
            half = [name for name in half_node.input if name in constants]
            rest = [name for name in half_node.input if name not in constants]
            if len(half) != 1 or not _is_one_plus_erf(made_by, rest[0], x):
                continue
            half_node.input[:] = [x, rest[0]]
            node.input[:] = [halved, half[0]]
            found += 1
            break
    return found


def _is_one_plus_erf(made_by: Mapping[str, onnx.NodeProto], name: str, x: str) -> bool:
    add = made_by.get(name)
    if add is None or add.op_type != "Add":
        return False
    erf = next(
        (made_by[i] for i in add.input if i in made_by and made_by[i].op_type == "Erf"), None
    )
    scaled = None if erf is None else made_by.get(erf.input[0])
    return scaled is not None and x in scaled.input
