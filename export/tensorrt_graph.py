"""What an ONNX graph says that matters to TensorRT: opset, 2:4 weights, Q/DQ it would refuse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgessl.errors import Unsupported
from edgessl.export import onnx_graph, sparsity

_MATMULS = ("MatMul", "Gemm", "Conv")


def inspect(path: Path, precision: str) -> dict[str, Any]:
    """Facts of the graph: ``opset``, where there are 2:4 weights ``sparse_weights`` (see
    ``sparsity.pattern``), and for int8 ``int8_placement``.

    Empty where the ``onnx`` package is not installed: a device that rebuilds its engine does
    not have it, and the graph was inspected when the bundle was made.

    Raises:
        Unsupported: not an ONNX file; or, for int8, a graph without Q/DQ or with Q/DQ that
            TensorRT would refuse (zero points that are not 0) or read wrongly (uint8).
    """
    model = onnx_graph.load(path)
    if model is None:
        return {}
    facts: dict[str, Any] = {"opset": onnx_graph.opset(model)}
    weights = sparsity.pattern(model)
    if weights["sparse"]:
        facts["sparse_weights"] = weights
    if precision == "int8":
        facts["int8_placement"] = _int8_placement(model, path.name)
    return facts


def _int8_placement(model: Any, file: str) -> dict[str, int]:
    """Raise unless every Q/DQ is symmetric int8; count what runs on int8 inputs."""
    from onnx import TensorProto, numpy_helper

    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant":
            for attribute in node.attribute:
                if attribute.name == "value":
                    constants[node.output[0]] = attribute.t
    pairs = [n for n in model.graph.node if n.op_type in ("QuantizeLinear", "DequantizeLinear")]
    if not pairs:
        raise Unsupported(
            f"{file}: int8 was asked for, but the graph has no QuantizeLinear or DequantizeLinear, "
            "and TensorRT takes int8 from nothing else. Export it again with --precision int8."
        )
    for node in pairs:
        where = f"{file}: {node.op_type} {node.name or node.output[0]!r}"
        zero = constants.get(node.input[2]) if len(node.input) > 2 and node.input[2] else None
        if zero is not None:
            kind = zero.data_type
        elif len(node.input) > 2 and node.input[2]:
            raise Unsupported(f"{where}: its zero point is computed; TensorRT wants a constant 0.")
        elif node.op_type == "QuantizeLinear":
            declared = [a.i for a in node.attribute if a.name == "output_dtype"]
            kind = declared[0] if declared else TensorProto.UINT8  # ONNX's default
        else:  # DequantizeLinear takes its type from what it reads
            weights = constants.get(node.input[0])
            kind = weights.data_type if weights is not None else TensorProto.INT8
        if kind != TensorProto.INT8:
            raise Unsupported(
                f"{where} is {TensorProto.DataType.Name(kind).lower()}; TensorRT takes int8 only. "
                "Quantize to signed, symmetric int8."
            )
        if zero is not None and numpy_helper.to_array(zero).any():
            raise Unsupported(
                f"{where}: zero point is not 0; TensorRT takes symmetric quantization only. "
                "Quantize to symmetric int8."
            )
    dequantized = {n.output[0] for n in pairs if n.op_type == "DequantizeLinear"}
    dequantized |= {
        n.output[0] for n in model.graph.node if n.op_type == "Cast" and n.input[0] in dequantized
    }
    able = [node for node in model.graph.node if node.op_type in _MATMULS]
    return {
        "matmul_and_conv": len(able),
        "on_int8_inputs": sum(all(i in dequantized for i in node.input[:2]) for node in able),
    }
