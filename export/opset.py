"""From the opset that torch writes, 18, down to 17: the newest that every TensorRT since 8.6 reads.

onnx's own converter has no way down for Split and Pad and leaves attributes behind in
reductions, so the few operators that opset 18 changed are rewritten here
(https://github.com/onnx/onnx/blob/main/docs/Changelog.md, version 18).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgessl.errors import Unsupported

if TYPE_CHECKING:
    import onnx

OPSET = 17
TORCH_OPSET = 18

_REDUCTIONS = frozenset(
    "ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd "
    "ReduceSumSquare".split()
)
_NEW = frozenset("BitwiseAnd BitwiseNot BitwiseOr BitwiseXor CenterCropPad Col2Im Mish".split())


def lower(model: onnx.ModelProto) -> None:
    """Rewrite *model*, of opset 18, in place.

    Raises:
        Unsupported: an operator that opset 17 cannot express.
    """
    for entry in model.opset_import:
        if not entry.domain:
            if entry.version != TORCH_OPSET:
                raise Unsupported(f"torch wrote opset {entry.version}, expected {TORCH_OPSET}.")
            entry.version = OPSET
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            constants[node.output[0]] = node.attribute[0].t
    for node in model.graph.node:
        if node.op_type in _NEW:
            raise Unsupported(f"the graph needs {node.op_type}, which opset {OPSET} does not have.")
        if node.op_type in _REDUCTIONS:
            _axes_to_attribute(node, constants)
        elif node.op_type == "Split":
            _drop(node, "num_outputs")  # without it and without sizes: equal parts, as before
        elif node.op_type == "Pad" and len(node.input) > 3 and node.input[3]:
            raise Unsupported(f"Pad along chosen axes, which opset {OPSET} does not have.")
        elif node.op_type == "Resize":
            if any(a.name == "antialias" and a.i for a in node.attribute):
                raise Unsupported(f"Resize with antialiasing, which opset {OPSET} does not have.")
            _drop(node, "antialias", "axes", "keep_aspect_ratio_policy")
    used = {name for node in model.graph.node for name in node.input}
    used |= {output.name for output in model.graph.output}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)


def _axes_to_attribute(node: onnx.NodeProto, constants: dict[str, onnx.TensorProto]) -> None:
    from onnx import helper, numpy_helper

    if len(node.input) > 1 and node.input[1]:
        if node.input[1] not in constants:
            raise Unsupported(f"{node.op_type} over computed axes, not possible in opset {OPSET}.")
        axes = numpy_helper.to_array(constants[node.input[1]]).reshape(-1).tolist()
        if axes:
            node.attribute.append(helper.make_attribute("axes", axes))
    _drop(node, "noop_with_empty_axes")
    del node.input[1:]


def _drop(node: onnx.NodeProto, *names: str) -> None:
    kept = [attribute for attribute in node.attribute if attribute.name not in names]
    del node.attribute[:]
    node.attribute.extend(kept)
