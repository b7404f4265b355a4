"""What a built graph computes, layer by layer: for ``edgessl inspect``. No torch."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from edgessl import openvino_core
from edgessl.errors import BundleError, require

# The operators that hold nearly all weights and arithmetic of an encoder.
_ONNX_LAYERS = ("MatMul", "Gemm", "Conv", "Attention")
# ... and those of quantized graphs; com.microsoft's but for the first.
_INTEGER_LAYERS = ("MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul")
_NARROW_WEIGHTS = "MatMulNBits"


def describe_onnx(path: Path) -> dict[str, Any]:
    """Operators and matrix layers of an ONNX file.

    Returns:
        ``operators``: count by type; ``layers``: ``name``, ``type``, ``precision`` in which its
        inputs arrive (``int8`` where they come from DequantizeLinear, ``int8 weights`` where only
        the weights do) and ``shape`` of its weight.
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

    def dequantized(name: str) -> Any:
        """The DequantizeLinear that *name* comes from, maybe through a Cast."""
        node = producer.get(name)
        if node is not None and node.op_type == "Cast":
            node = producer.get(node.input[0])
        return node if node is not None and node.op_type == "DequantizeLinear" else None

    layers = []
    for node in model.graph.node:
        weight = weights.get(node.input[1]) if len(node.input) > 1 else None
        shape = list(weight.dims) if weight is not None else None
        if node.op_type == _NARROW_WEIGHTS:
            options = {a.name: a.i for a in node.attribute}
            precision, shape = f"int{options['bits']} weights", [options["K"], options["N"]]
        elif node.op_type in _INTEGER_LAYERS:
            precision = "int8"
        elif node.op_type in _ONNX_LAYERS:
            left, right = (dequantized(name) for name in node.input[:2])
            stored = weights.get(right.input[0]) if right is not None else None
            kind = onnx.TensorProto.DataType.Name(types.get(node.input[0], 1)).lower()
            precision = _SHORT.get(kind, kind)
            if left is not None and right is not None:
                precision = "int8"
            elif stored is not None:
                kind = onnx.TensorProto.DataType.Name(stored.data_type).lower()
                precision = f"{kind.removeprefix('u')} weights"
            shape = list(stored.dims) if stored is not None else shape
        else:
            continue
        layers.append(
            {"name": node.name, "type": node.op_type, "precision": precision, "shape": shape}
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
    core = openvino_core.core("reading an OpenVINO IR")
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
