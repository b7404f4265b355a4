"""What ``describe`` says of graphs whose layers are known."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from edgessl.backend import BuildPlan
from edgessl.calibrate import dynamic, weight_only
from edgessl.errors import BundleError
from edgessl.export import describe, half, openvino_ir
from tests.qdq import Graph, full_range

Write = Callable[..., Path]
# Two layers of query, key, value, output, two of the MLP; and two products of attention each.
WEIGHTED, PRODUCTS = 2 * 6, 2 * 2


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_onnx_layers(write_tiny: Write, precision: str) -> None:
    found = describe.describe_onnx(write_tiny("bert", precision))
    layers = found["layers"]
    assert Counter(layer["precision"] for layer in layers) == {precision: WEIGHTED + PRODUCTS}
    shapes = Counter(tuple(layer["shape"]) for layer in layers if layer["shape"])
    assert shapes == {(32, 32): 8, (32, 48): 2, (48, 32): 2}
    assert sum(found["operators"][kind] for kind in {layer["type"] for layer in layers}) == len(
        layers
    )
    assert found["operators"]["Softmax"] == 2
    assert found["operators"]["LayerNormalization"] == 5


def test_onnx_image_layers(write_tiny: Write) -> None:
    layers = describe.describe_onnx(write_tiny("vit_mae", "fp32"))["layers"]
    assert Counter(layer["type"] for layer in layers)["Conv"] == 1
    assert [layer["shape"] for layer in layers if layer["type"] == "Conv"] == [[32, 3, 4, 4]]


def quantized() -> Any:
    """A product of uint8 and int8, as Q/DQ."""
    graph = Graph(x=["n", 8])
    weights = graph.weights(full_range(8, 4), axis=1, scale=0.01)
    product = graph.add("MatMul", graph.quantize("x", 0.02, np.uint8(117)), weights)
    return graph.model(graph.add("Add", product, graph.constant(np.zeros(4, np.float32))))


@pytest.mark.parametrize("half_floats", [False, True])
def test_quantized_onnx(tmp_path: Path, half_floats: bool) -> None:
    model = quantized()
    if half_floats:
        half.convert(model, "fp16")
    onnx.save(model, str(tmp_path / "model.onnx"))
    found = describe.describe_onnx(tmp_path / "model.onnx")
    (layer,) = found["layers"]
    assert (layer["type"], layer["precision"], layer["shape"]) == ("MatMul", "int8", [8, 4])
    assert found["operators"]["DequantizeLinear"] == 2
    assert ("Cast" in found["operators"]) == half_floats  # opset 17 has no 16-bit Q/DQ


WEIGHTS = {
    "onnx": ("MatMulNBits", {"int4 weights": WEIGHTED, "fp32": PRODUCTS}),
    "openvino": ("MatMul", {"int4 weights": WEIGHTED, "fp32": PRODUCTS}),
    "tensorrt": ("MatMul", {"int4 weights": WEIGHTED, "fp32": PRODUCTS}),
}


@pytest.mark.parametrize("runtime", WEIGHTS)
def test_narrow_weights(write_tiny: Write, tmp_path: Path, runtime: str) -> None:
    model = onnx.load(str(write_tiny("bert", "fp32")))
    weight_only.quantize(model, bits=4, block=16, runtime=runtime)
    onnx.save(model, str(tmp_path / "model.onnx"))
    layers = describe.describe_onnx(tmp_path / "model.onnx")["layers"]
    kind, precisions = WEIGHTS[runtime]
    assert Counter(layer["precision"] for layer in layers) == precisions
    narrow = [layer for layer in layers if layer["precision"] == "int4 weights"]
    assert {layer["type"] for layer in narrow} == {kind}
    shapes = Counter(tuple(layer["shape"]) for layer in narrow)
    assert shapes == {(32, 32): 8, (32, 48): 2, (48, 32): 2}


@pytest.mark.parametrize("fused", [False, True])
def test_dynamic_int8(write_tiny: Write, tmp_path: Path, fused: bool) -> None:
    """As it is written, and as ONNX Runtime rewrites it to its own operators."""
    model = onnx.load(str(write_tiny("bert", "fp32")))
    dynamic.quantize(model)
    path = tmp_path / "model.onnx"
    onnx.save(model, str(path))
    kinds = {"MatMulInteger"}
    if fused:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.optimized_model_filepath = str(tmp_path / "fused.onnx")
        onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        path, kinds = tmp_path / "fused.onnx", {"MatMulIntegerToFloat", "DynamicQuantizeMatMul"}
    layers = [n for n in describe.describe_onnx(path)["layers"] if n["precision"] == "int8"]
    assert len(layers) == WEIGHTED and {layer["type"] for layer in layers} == kinds
    assert all(layer["shape"] for layer in layers)


def test_openvino_layers(write_tiny: Write, tmp_path: Path) -> None:
    openvino_ir.build(write_tiny("bert", "fp32"), tmp_path, BuildPlan("openvino", "fp32", {}))
    path = tmp_path / "openvino_model.xml"
    found = describe.describe_openvino(path, "f32")
    assert {layer["precision"] for layer in found["layers"]} == {"fp32"}
    weighted = [layer for layer in found["layers"] if layer["type"] == "FullyConnected"]
    assert 8 <= len(weighted) <= WEIGHTED  # query, key and value may run as one
    assert found["operators"]["MatMul"] >= WEIGHTED


def test_quantized_openvino(tmp_path: Path) -> None:
    onnx.save(quantized(), str(tmp_path / "model.onnx"))
    openvino_ir.build(tmp_path / "model.onnx", tmp_path, BuildPlan("openvino", "int8", {}))
    (layer,) = describe.describe_openvino(tmp_path / "openvino_model.xml", "f32")["layers"]
    assert (layer["type"], layer["precision"]) == ("FullyConnected", "int8")


def test_damaged_files(tmp_path: Path) -> None:
    for name in ("model.onnx", "openvino_model.xml"):
        (tmp_path / name).write_bytes(b"<not a graph")
    with pytest.raises(BundleError, match=r"model\.onnx: not a readable ONNX file"):
        describe.describe_onnx(tmp_path / "model.onnx")
    with pytest.raises(BundleError, match=r"openvino_model\.xml"):
        describe.describe_openvino(tmp_path / "openvino_model.xml", "f32")
