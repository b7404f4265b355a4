"""Which matrices of an ONNX graph have the 2:4 pattern that TensorRT multiplies faster. No torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from edgessl import two_four

_THROUGH = ("Cast", "Identity", "Transpose", "DequantizeLinear")  # a zero stays one


def pattern(model: Any) -> dict[str, int]:
    """Look at the constant matrices that MatMul and Gemm multiply by, along the axis they sum over.

    Of int8 and int4 codes the zeros count, as TensorRT has no other zero point than 0.

    Returns:
        ``sparse``: how many have the pattern, of ``matrices``.
    """
    makers = {name: node for node in model.graph.node for name in node.output}
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    known: dict[tuple[str, bool], bool] = {}  # layers may share a weight
    found = []
    for node in model.graph.node:
        if node.op_type not in ("MatMul", "Gemm"):
            continue
        name, turned = _source(node, makers)
        if name not in constants or len(constants[name].dims) != 2:
            continue
        if (name, turned) not in known:
            known[name, turned] = two_four.holds(_matrix(constants[name], turned))
        found.append(known[name, turned])
    return {"sparse": sum(found), "matrices": len(found)}


def _source(node: Any, makers: dict[str, Any]) -> tuple[str, bool]:
    """The name of *node*'s second matrix where it comes from, and whether it is ``(outputs,
    inputs)`` there."""
    turned = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
    name = node.input[1]
    while name in makers and makers[name].op_type in _THROUGH:
        turned ^= makers[name].op_type == "Transpose"  # of two axes
        name = makers[name].input[0]
    return name, turned


def _matrix(tensor: Any, turned: bool) -> npt.NDArray[Any]:
    from onnx import numpy_helper

    values: npt.NDArray[Any] = np.asarray(numpy_helper.to_array(tensor))
    return values.T if turned else values
