"""What a built graph computes, layer by layer: for ``edgessl inspect``. No torch."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from edgessl.errors import BundleError, require

# The operators that hold nearly all weights and arithmetic of an encoder.
_ONNX_LAYERS = ("MatMul", "Gemm", "Conv", "Attention")


def describe_onnx(path: Path) -> dict[str, Any]:
    """Operators and matrix layers of an ONNX file.

    Returns:
        ``operators``: count by type; ``layers``: ``name``, ``type``, ``precision`` in which its
        inputs arrive (``int8`` where they come from DequantizeLinear) and ``shape`` of its weight.
    """
    onnx = require("onnx", "compress", "reading an ONNX graph")
    try:
        model = onnx.shape_inference.infer_shapes(onnx.load(str(path)))
    except Exception as err:  # protobuf's DecodeError and onnx's own have no common base
        raise BundleError(f"{path}: not a readable ONNX file ({err}).") from err
    producer = {name: node for node in model.graph.node for name in node.output}
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    types = {value.name: value.type.tensor_type.elem_type for value in model.graph.value_info}
    types |= {name: tensor.data_type for name, tensor in weights.items()}
    types |= {value.name: value.type.tensor_type.elem_type for value in model.graph.input}

    layers = []
    for node in model.graph.node:
        if node.op_type not in _ONNX_LAYERS:
            continue
        sources = [producer.get(name) for name in node.input[:2]]
        quantized = all(s is not None and s.op_type == "DequantizeLinear" for s in sources)
        kind = onnx.TensorProto.DataType.Name(types.get(node.input[0], 1)).lower()
        weight = weights.get(node.input[1])
        if quantized and weight is None and sources[1] is not None:
            weight = weights.get(sources[1].input[0])
        layers.append(
            {
                "name": node.name,
                "type": node.op_type,
                "precision": "int8" if quantized else _SHORT.get(kind, kind),
                "shape": list(weight.dims) if weight is not None else None,
            }
        )
    return {"operators": dict(Counter(n.op_type for n in model.graph.node)), "layers": layers}


_SHORT = {
    "float": "fp32",
    "float16": "fp16",
    "bfloat16": "bf16",
    "f32": "fp32",
    "f16": "fp16",
    "i8": "int8",
    "u8": "int8",
    "undefined": "unknown",
}


def describe_openvino(path: Path, inference_precision: str) -> dict[str, Any]:
    """Operators and matrix layers of an OpenVINO IR as this machine's CPU really runs them.

    The layers are those of the compiled graph, after fusion, with the precision each was given.
    """
    openvino = require("openvino", "openvino", "reading an OpenVINO IR")
    core = openvino.Core()
    settings = {"INFERENCE_PRECISION_HINT": inference_precision}
    try:
        model = core.read_model(str(path))
        compiled = core.compile_model(model, "CPU", settings)
    except RuntimeError as err:
        raise BundleError(f"{path}: {str(err).strip().splitlines()[-1]}") from err
    layers = []
    for op in compiled.get_runtime_model().get_ordered_ops():
        facts = {
            key: str(value.astype(str))
            for key, value in op.get_rt_info().items()
            if key in ("layerType", "runtimePrecision")
        }
        if facts.get("layerType") in (
            "FullyConnected",
            "MatMul",
            "Convolution",
            "ScaledDotProductAttention",
        ):
            precision = facts.get("runtimePrecision", "unknown")
            layers.append(
                {
                    "name": op.get_friendly_name(),
                    "type": facts["layerType"],
                    "precision": _SHORT.get(precision, precision),
                    "shape": None,
                }
            )
    return {
        "operators": dict(Counter(op.get_type_name() for op in model.get_ordered_ops())),
        "layers": layers,
    }
