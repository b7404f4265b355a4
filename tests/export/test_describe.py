"""What ``describe`` says of graphs whose layers are known."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgessl.backend import BuildPlan
from edgessl.calibrate import quantize
from edgessl.errors import BundleError
from edgessl.export import describe, openvino_ir

Write = Callable[..., Path]
# Two layers of query, key, value, output, two of the MLP; and two products of attention each.
WEIGHTED, PRODUCTS = 2 * 6, 2 * 2


def samples() -> list[dict[str, np.ndarray[tuple[int, ...], np.dtype[np.int64]]]]:
    rng = np.random.default_rng(0)
    ids = [rng.integers(2, 60, (1, length)) for length in range(3, 20)]
    return [{"input_ids": row, "attention_mask": np.ones_like(row)} for row in ids]


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


def test_quantized_onnx(write_tiny: Write, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(write_tiny("bert", "fp32").read_bytes())
    quantize.quantize_onnx(path, samples())
    found = describe.describe_onnx(path)
    weighted = [layer for layer in found["layers"] if layer["shape"]]
    assert len(weighted) == WEIGHTED
    assert {layer["precision"] for layer in weighted} == {"int8"}
    assert found["operators"]["DequantizeLinear"] > WEIGHTED


def test_openvino_layers(write_tiny: Write, tmp_path: Path) -> None:
    openvino_ir.build(write_tiny("bert", "fp32"), tmp_path, BuildPlan("openvino", "fp32", {}))
    path = tmp_path / "openvino_model.xml"
    found = describe.describe_openvino(path, "f32")
    assert {layer["precision"] for layer in found["layers"]} == {"fp32"}
    weighted = [layer for layer in found["layers"] if layer["type"] == "FullyConnected"]
    assert 8 <= len(weighted) <= WEIGHTED  # query, key and value may run as one
    assert found["operators"]["MatMul"] >= WEIGHTED

    quantize.quantize_openvino(path, samples())
    found = describe.describe_openvino(path, "f32")
    weighted = [layer for layer in found["layers"] if layer["type"] == "FullyConnected"]
    assert {layer["precision"] for layer in weighted} == {"int8"}
    assert found["operators"]["FakeQuantize"] > 0


def test_damaged_files(tmp_path: Path) -> None:
    for name in ("model.onnx", "openvino_model.xml"):
        (tmp_path / name).write_bytes(b"<not a graph")
    with pytest.raises(BundleError, match=r"model\.onnx: not a readable ONNX file"):
        describe.describe_onnx(tmp_path / "model.onnx")
    with pytest.raises(BundleError, match=r"openvino_model\.xml"):
        describe.describe_openvino(tmp_path / "openvino_model.xml", "f32")
