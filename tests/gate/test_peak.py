"""The machine's peak, and what an item needs of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from edgessl.gate.measuring import peak


@pytest.mark.parametrize(("dtype", "given"), [(np.float32, np.float32), (np.int8, np.uint8)])
def test_the_graph_is_a_product(dtype: type, given: type) -> None:
    rng = np.random.default_rng(0)
    weights: Any = rng.integers(-127, 128, (300, 300)).astype(dtype)
    x: Any = rng.integers(0, 256, (300, 300)).astype(given)
    model = onnx.load_from_string(peak.product_graph(weights))
    onnx.checker.check_model(model, full_check=True)
    (y,) = ReferenceEvaluator(model).run(None, {"x": x})
    np.testing.assert_array_equal(y, x.astype(np.int64) @ weights.astype(np.int64))


@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_peaks_are_what_cpus_reach(
    runtime: str, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peak, "SIZES", (256,))
    monkeypatch.setattr(peak, "_WINDOW_S", 0.005)
    assert 1e8 < peak.measure(runtime, precision) < 1e15


def test_only_cpus() -> None:
    assert peak.can("openvino", "CPU") and peak.can("onnxruntime", "CPU")
    assert not peak.can("openvino", "GPU.0") and not peak.can("tensorrt", "CPU")


def transformer(tokens: int, layers: int = 6, width: int = 384, inner: int = 1536) -> int:
    """Operations of the layers, added up product by product."""
    linear = 4 * width * width + 2 * width * inner  # q, k, v, o; in and out
    attention = 2 * tokens * tokens * width  # q k', and by v
    return layers * (2 * tokens * linear + 2 * attention)


@pytest.mark.parametrize(
    "config",
    [{"num_hidden_layers": 6, "hidden_size": 384}, {"n_layers": 6, "dim": 384}],
)
def test_operations_of_texts(config: dict[str, int]) -> None:
    compute = {"flops": transformer(128), "at": {"input_ids": [1, 128], "attention_mask": [1, 128]}}
    expected = (transformer(7) + transformer(50)) / 2
    assert peak.operations(compute, config, [7, 50]) == pytest.approx(expected, rel=1e-12)
    assert peak.operations(compute, {}, [7, 50]) is None


def test_operations_of_images_and_recordings() -> None:
    image = {"flops": 222, "at": {"pixel_values": [1, 3, 32, 32]}}
    assert peak.operations(image, {}) == 222
    assert peak.operations({"flops": 5, "at": {"input_values": [1, 16000]}}, {}) is None
