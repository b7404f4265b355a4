"""int8 in the graph: exact where the numbers are, and in the operators that kernels are made for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto

from edgessl.calibrate import observe, onnxruntime_int8, placement, quantize
from edgessl.calibrate.operators import Graph
from edgessl.calibrate.placement import Plan
from edgessl.calibrate.quantizers import Quantizer
from edgessl.target import Int8
from tests.float_graphs import (
    VECTOR,
    Floats,
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

WIDTH, WIDE = 16, 24
STEP = np.float32(1 / 16)
Grid = Callable[[], Floats]  # weights (WIDTH, WIDE)
CODES = np.random.default_rng(5)


def on_the_grid(inputs: int, outputs: int) -> Floats:
    """Weights that int8 holds exactly: every column has its largest code, 127."""
    codes = CODES.integers(-127, 128, (inputs, outputs))
    codes[CODES.integers(0, inputs, outputs), np.arange(outputs)] = 127
    return (codes * 2.0 ** -CODES.integers(3, 7, outputs)).astype(np.float32)


def plain(net: Net, grid: Grid) -> list[str]:
    return [net.linear("x", grid(), np.arange(WIDE, dtype=np.float32), "a.dense")]


def without_bias(net: Net, grid: Grid) -> list[str]:
    return [net.linear("x", grid(), layer="a.dense")]


def one_input_for_three(net: Net, grid: Grid) -> list[str]:
    return [net.linear("x", grid(), layer=f"a.{name}") for name in "qkv"]


def one_weight_for_two(net: Net, grid: Grid) -> list[str]:
    shared = grid()
    doubled = net.add("Add", "x", "x")
    bias = np.arange(WIDE, dtype=np.float32)
    return [
        net.linear("x", shared, bias, layer="a.dense"),
        net.linear(doubled, shared, bias, layer="a.dense"),
    ]


def gemm(net: Net, grid: Grid, turned: bool = False, bias: bool = True) -> list[str]:
    flat = net.add("Reshape", "x", net.constant(np.array([-1, WIDTH])))
    weights = grid()
    inputs = [flat, net.constant(weights.T if turned else weights, "a.dense.weight")]
    inputs += [net.constant(np.arange(WIDE, dtype=np.float32), "a.dense.bias")] if bias else []
    return [net.add("Gemm", *inputs, transB=int(turned))]


def turned_gemm(net: Net, grid: Grid) -> list[str]:
    return gemm(net, grid, turned=True)


def bare_gemm(net: Net, grid: Grid) -> list[str]:
    return gemm(net, grid, turned=True, bias=False)


LINEARS = [
    plain,
    without_bias,
    one_input_for_three,
    one_weight_for_two,
    gemm,
    turned_gemm,
    bare_gemm,
]


def grid_tokens(low: int, high: int, smooth: Any = 1, shift: Any = 0) -> list[Floats]:
    """Activations that are codes, from *low* to *high*."""
    codes = CODES.integers(low, high + 1, (12, 10, WIDTH))
    return list(((codes * STEP + shift) * smooth).astype(np.float32))


def exact_plan(model: Any, given: observe.Data, quantizers: dict[str, Quantizer]) -> Plan:
    graph = Graph(model)
    tensors = {one.activations: "gram" for one in graph.operators}
    seen = observe.observe(model, given, tensors, layers={}).tensors
    return placement.plan(graph, graph.operators, quantizers, seen, saturating=False)


SMOOTH = (2.0 ** (np.arange(WIDTH) % 5 - 2)).astype(np.float32)
SHIFT = ((np.arange(WIDTH) - 8) * STEP).astype(np.float32)
FORMS: dict[str, dict[str, Any]] = {
    "uint8": {"signed": False},
    "int8": {"signed": True},
    "smooth": {"signed": False, "smooth": SMOOTH},
    "shift": {"signed": True, "smooth": SMOOTH, "shift": SHIFT},
}


# Tensors that share weights are not moved.
CASES = [(m, f) for m in LINEARS for f in FORMS if (m, f) != (one_weight_for_two, "shift")]


@pytest.mark.parametrize(("make", "form"), CASES)
def test_what_int8_holds_exactly_stays_exact(make: Any, form: str, tmp_path: Path) -> None:
    options = FORMS[form]
    net = Net(WIDTH)
    smooth = np.broadcast_to(options.get("smooth", np.float32(1)), WIDTH)
    outputs = make(net, lambda: on_the_grid(WIDTH, WIDE) / smooth[:, None])
    model = net.model(*outputs)
    signed = options["signed"]
    low, high = (-60, 63) if signed else (-50, 77)  # doubled they still are codes
    items = grid_tokens(low, high, smooth, options.get("shift", 0))
    given = data(items)
    names = {one.activations for one in Graph(model).operators}
    zero = 0 if signed else 100
    plan = exact_plan(
        model,
        given,
        {name: Quantizer(float(STEP), zero, method="", **options) for name in names},
    )
    if "shift" not in options:
        assert max(np.abs(values).max() for values in plan.corrections.values()) < 1e-3
    placed = copied(model)
    placement.place(placed, plan)
    check(placed)
    feed = given.prepare(items)
    exact = run(model, feed, *outputs)
    for name, expected, ours in zip(outputs, exact, run(placed, feed, *outputs), strict=True):
        np.testing.assert_allclose(ours, expected, atol=2e-3, err_msg=name)
        np.testing.assert_allclose(run_openvino(placed, feed, name), expected, atol=2e-3)
    kinds = {tensor.name: tensor.data_type for tensor in placed.graph.initializer}
    stored = [kinds[name] for name in kinds if name.endswith("weight.int8")]
    assert stored and set(stored) == {TensorProto.INT8}
    assert not any(one.weight in kinds for one in plan.operators)  # nothing reads them now
    assert openvino_operators(placed)["FullyConnected I8"] == len(outputs)
    if not signed:
        fused = copied(placed)
        assert onnxruntime_int8.fuse(fused) == len(outputs)
        for expected, ours in zip(exact, run(fused, feed, *outputs), strict=True):
            np.testing.assert_allclose(ours, expected, atol=2e-3)
        found = onnxruntime_operators(fused, tmp_path)
        assert found["MatMulIntegerToFloat"] == len(outputs)
        assert not found["Add"] + found["MatMul"] + found["Gemm"] - (make is one_weight_for_two)


def conv(net: Net) -> str:
    kernel = on_the_grid(WIDTH * 9, WIDE).T.reshape(WIDE, WIDTH, 3, 3)
    bias = np.arange(WIDE, dtype=np.float32)
    weights = net.constant(kernel, "stem.weight"), net.constant(bias, "stem.bias")
    return net.add("Conv", "x", *weights, pads=[1, 1, 1, 1], strides=[2, 2])


@pytest.mark.parametrize("signed", [False, True])
def test_convolutions_stay_exact(signed: bool) -> None:
    net = Net(WIDTH, image=True)
    output = conv(net)
    model = net.model(output)
    codes = CODES.integers(-50, 78, (6, WIDTH, 8, 8))
    items = list((codes * STEP).astype(np.float32))
    graph = Graph(model)
    given = data(items)
    seen = observe.observe(model, given, {"x": "planes"}, layers={}).tensors
    one = Quantizer(float(STEP), 0 if signed else 100, signed)
    plan = placement.plan(graph, graph.operators, {"x": one}, seen, saturating=False)
    placed = copied(model)
    placement.place(placed, plan)
    check(placed)
    feed = given.prepare(items)
    (exact,) = run(model, feed, output)
    np.testing.assert_allclose(run(placed, feed, output)[0], exact, atol=5e-3)
    np.testing.assert_allclose(run_openvino(placed, feed, output), exact, atol=5e-3)
    assert openvino_operators(placed)["Convolution I8"] == 1


def test_convolutions_have_seven_bits_where_sums_saturate() -> None:
    net = Net(WIDTH, image=True)
    model = net.model(conv(net))
    graph = Graph(model)
    given = data([np.ones((WIDTH, 8, 8), np.float32)])
    seen = observe.observe(model, given, {"x": "planes"}, layers={}).tensors
    one = {"x": Quantizer(float(STEP), 0, False)}
    for saturating, largest in ((True, 63), (False, 127)):
        plan = placement.plan(graph, graph.operators, one, seen, saturating)
        codes = plan.weights["stem.weight"].codes
        assert np.abs(codes.astype(int)).max() == largest


def encoder() -> tuple[Any, observe.Data]:
    return blocks(2, WIDTH).model(VECTOR), data(tokens(40, WIDTH))


FEEDS = data(tokens(12, WIDTH, seed=8))


def test_some_operators_alone() -> None:
    model, given = encoder()
    _, plan = quantize.make_plan(model, given, Int8(), quantize.Options())
    feed = FEEDS.prepare(list(FEEDS.items))
    (exact,) = run(model, feed, VECTOR)
    for nodes in [{plan.operators[0].node}, {one.node for one in plan.operators[1:]}]:
        placed = copied(model)
        placement.place(placed, plan, nodes)
        check(placed)
        dequantized = [
            n for n in placed.graph.node if n.op_type == "MatMul" and "_dq" in n.input[1]
        ]
        assert {node.name for node in dequantized} == nodes
        assert np.abs(run(placed, feed, VECTOR)[0] - exact).max() < 0.1 * exact.std()
    untouched = copied(model)
    placement.place(untouched, plan, set())
    np.testing.assert_array_equal(run(untouched, feed, VECTOR)[0], exact)


def test_means_are_corrected() -> None:
    """What rounding and clipping take from an output on average is given back in the bias."""
    net = Net(WIDTH)
    output = net.linear("x", weight(WIDTH, WIDE, 3), layer="a.dense")
    model = net.model(output)
    given = data(grid_tokens(-50, 77))
    plan = exact_plan(model, given, {"x": Quantizer(float(STEP / 4), 127, False)})  # half of it
    feed = given.prepare(list(given.items))
    (exact,) = run(model, feed, output)
    off = []
    for corrections in (plan.corrections, {}):
        placed = copied(model)
        placement.place(placed, replace(plan, corrections=corrections))
        (ours,) = run(placed, feed, output)
        off.append(float(np.abs((ours - exact).mean(axis=(0, 1))).max()))
    assert off[0] < 1e-4 and off[1] > 0.1
