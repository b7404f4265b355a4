"""Q/DQ to the operators that ONNX Runtime's CPU kernels run, said outright.

ONNX Runtime fuses ``DequantizeLinear, DequantizeLinear, MatMul`` into its MatMulIntegerToFloat by
itself, but leaves the bias outside: an operator more for each product, which is what a short text
spends its time on. Written as MatMulIntegerToFloat (com.microsoft) the bias is inside, and the
file runs the same whatever the optimization level.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from edgessl.calibrate.onnx_edit import make_node

if TYPE_CHECKING:
    import onnx

_DOMAIN = "com.microsoft"


def fuse(model: onnx.ModelProto) -> int:
    """Rewrite the int8 MatMuls of *model* in place; returns how many."""
    from onnx import helper

    graph = model.graph
    maker = {name: node for node in graph.node for name in node.output}
    constants = {tensor.name: tensor for tensor in graph.initializer}
    readers = Counter(name for node in graph.node for name in node.input)
    readers.update(value.name for value in graph.output)
    adders = {name: node for node in graph.node if node.op_type == "Add" for name in node.input}
    moving = {value.name for value in graph.input}
    for node in graph.node:
        if any(name in moving for name in node.input):
            moving.update(node.output)
    nodes, fused, gone = [], 0, set()
    for node in graph.node:
        sides = [maker.get(name) for name in node.input]
        quantized = all(side is not None and side.op_type == "DequantizeLinear" for side in sides)
        if node.op_type != "MatMul" or not quantized:
            nodes.append(node)
            continue
        left, right = sides
        assert left is not None and right is not None  # both are DequantizeLinear
        inputs = [left.input[0], right.input[0], left.input[1], right.input[1]]
        inputs += [left.input[2], right.input[2]]
        output = node.output[0]
        add = adders.get(output) if readers[output] == 1 else None
        if add is not None:
            bias = next((name for name in add.input if name != output), "")
            if bias in constants and len(constants[bias].dims) == 1:
                inputs.append(bias)
                output = add.output[0]
                gone.add(add.name)
        if left.input[0] in moving:
            kind = "MatMulIntegerToFloat"
            nodes.append(helper.make_node(kind, inputs, [output], node.name, domain=_DOMAIN))
        else:
            nodes += _of_constants(node.name, inputs, output)
        fused += 1
    nodes = [node for node in nodes if node.name not in gone]
    read = {name for node in nodes for name in node.input}
    nodes = [n for n in nodes if n.op_type != "DequantizeLinear" or n.output[0] in read]
    del graph.node[:]
    graph.node.extend(nodes)
    if fused and not any(entry.domain == _DOMAIN for entry in model.opset_import):
        model.opset_import.append(helper.make_opsetid(_DOMAIN, 1))
    return fused


def _of_constants(name: str, inputs: list[str], output: str) -> list[onnx.NodeProto]:
    """The same in operators that ONNX Runtime computes once, as it loads: relative positions do
    not depend on the text."""
    left, right, left_scale, right_scale, left_zero, _, *bias = inputs
    steps = [
        ("MatMulInteger", [left, right, left_zero]),
        ("Cast", []),
        ("Mul", [left_scale]),
        ("Mul", [right_scale]),
        *([("Add", bias)] if bias else []),
    ]
    nodes: list[onnx.NodeProto] = []
    for number, (kind, others) in enumerate(steps, 1):
        made = [nodes[-1].output[0], *others] if nodes else others
        result = output if number == len(steps) else f"{output}_{number}"
        options = {"to": 1} if kind == "Cast" else {}  # float
        nodes.append(make_node(kind, made, result, f"{name}_{number}", **options))
    return nodes
