"""int8 in the operators that each runtime's kernels are made for, and nothing taken for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import numpy_helper

from edgessl.calibrate import observe, onnxruntime_int8, placement, quantize
from edgessl.target import Int8
from tests.float_graphs import (
    VECTOR,
    Net,
    blocks,
    check,
    copied,
    data,
    onnxruntime_operators,
    openvino_operators,
    run,
    run_openvino,
    tokens,
    weight,
)

WIDTH = 16


def encoder() -> tuple[Any, observe.Data]:
    return blocks(2, WIDTH).model(VECTOR), data(tokens(40, WIDTH))


FEEDS = data(tokens(12, WIDTH, seed=8))


@pytest.mark.parametrize("signed", [False, True])
def test_every_linear_layer_runs_in_int8(signed: bool, tmp_path: Path) -> None:
    model, given = encoder()
    _, plan = quantize.make_plan(model, given, Int8(signed=signed), quantize.Options())
    placed = copied(model)
    placement.place(placed, plan)
    check(placed)
    feed = FEEDS.prepare(list(FEEDS.items))
    (exact,), (ours,) = run(model, feed, VECTOR), run(placed, feed, VECTOR)
    assert 1e-6 < np.abs(ours - exact).max() < 0.1 * exact.std()
    np.testing.assert_allclose(run_openvino(placed, feed, VECTOR), ours, atol=0.02)
    found = openvino_operators(placed)
    assert found["FullyConnected I8"] == 4 and not found["FullyConnected F32"]
    if signed:
        return
    assert onnxruntime_operators(placed, tmp_path)["MatMulIntegerToFloat"] == 4
    fused = copied(placed)
    assert onnxruntime_int8.fuse(fused) == 4
    np.testing.assert_allclose(run(fused, feed, VECTOR)[0], ours, atol=1e-5)
    found = onnxruntime_operators(fused, tmp_path)
    assert found["MatMulIntegerToFloat"] == 4 and not found["DequantizeLinear"]


def test_symmetric_int8_for_tensorrt() -> None:
    model, given = encoder()
    _, plan = quantize.make_plan(model, given, Int8(signed=True), quantize.Options())
    placement.place(model, plan)
    constants: dict[str, npt.NDArray[Any]] = {
        tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer
    }
    pairs = [n for n in model.graph.node if n.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert len(pairs) == 4 * 3
    for node in pairs:
        scale, zero = constants[node.input[1]], constants[node.input[2]]
        assert zero.dtype == np.int8 and not zero.any() and (scale > 0).all()
        of_weights = node.input[0] in constants
        assert scale.ndim == zero.ndim == (1 if of_weights else 0)


def masked_attention(net: Net) -> str:
    """As the audio encoders' mask: from booleans."""
    real = net.add("Greater", "attention_mask", net.constant(np.array(0)))
    real = net.add("Cast", net.add("Unsqueeze", real, net.constant(np.array([1]))), to=1)
    one, lowest = net.constant(np.float32(1)), net.constant(np.finfo(np.float32).min)
    mask = net.add("Mul", net.add("Sub", one, real), lowest)
    query, key, value = (
        net.linear("x", weight(WIDTH, WIDTH, seed), layer=f"layer.0.{seed}") for seed in range(3)
    )
    scores = net.add("MatMul", query, net.add("Transpose", key, perm=[0, 2, 1]))
    scores = net.add("Mul", scores, net.constant(np.float32(WIDTH**-0.5)))
    shares = net.add("Softmax", net.add("Add", scores, mask), axis=-1)
    return net.pool(net.add("MatMul", shares, value))


def test_masks_are_not_taken_for_int8() -> None:
    """OpenVINO takes (1 - Cast(boolean)) * lowest for a dequantization, and loses the scores."""
    net = Net(WIDTH)
    model = net.model(masked_attention(net))
    given = data([item / np.float32(4) for item in tokens(40, WIDTH)])
    _, plan = quantize.make_plan(model, given, Int8(), quantize.Options())
    placed = copied(model)
    placement.place(placed, plan)
    check(placed)
    feed = given.prepare(list(given.items)[:8])
    (exact,), (ours,) = run(model, feed, VECTOR), run(placed, feed, VECTOR)
    np.testing.assert_allclose(ours, exact, atol=0.1 * exact.std())
    np.testing.assert_allclose(run_openvino(placed, feed, VECTOR), ours, atol=0.02 * exact.std())


def test_products_of_constants_are_computed_once(tmp_path: Path) -> None:
    """DeBERTa's relative positions: ONNX Runtime does not fold its own operators."""
    net = Net(WIDTH)
    shared, bias = weight(WIDTH, WIDTH, 1), np.ones(WIDTH, np.float32)
    table = net.norm(net.constant(weight(20, WIDTH, 2)[None], "positions"), WIDTH)
    keys = net.linear("x", shared, bias, "key")
    places = net.linear(table, shared, bias, "key")
    net.add("MatMul", keys, net.add("Transpose", places, perm=[0, 2, 1]), output="scores")
    model = net.model("scores")
    given = data([item / np.float32(4) for item in tokens(30, WIDTH)])
    _, plan = quantize.make_plan(model, given, Int8(fused=True), quantize.Options())
    placed = copied(model)
    placement.place(placed, plan)
    feed = given.prepare(list(given.items)[:8])
    (ours,) = run(placed, feed, "scores")
    assert onnxruntime_int8.fuse(placed) == 2
    onnx.checker.check_model(placed)
    np.testing.assert_allclose(run(placed, feed, "scores")[0], ours, atol=1e-4)
    found = onnxruntime_operators(placed, tmp_path)
    assert found["MatMulIntegerToFloat"] == 1
    assert not found["MatMulInteger"] and not found["LayerNormalization"]
