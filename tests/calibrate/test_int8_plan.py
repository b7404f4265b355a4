"""Models taken apart at their int8 operators and put together again, against ONNX Runtime."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from edgessl.calibrate import saturation
from edgessl.calibrate.int8_operators import Operator
from edgessl.calibrate.int8_plan import plan
from edgessl.errors import RecipeError
from tests.qdq import ZERO_POINTS, Array, Graph, full_range, run


def encoder(limit: int, zero: Any, bias: bool = True) -> tuple[Any, dict[str, Array]]:
    """Two layers, a residual, a product of two activations, a Gemm and a convolution."""
    rng = np.random.default_rng(4)

    def drawn(*shape: int) -> Array:
        return rng.integers(-limit, limit + 1, shape).astype(np.int8)

    graph = Graph(x=["b", "t", 16])
    one, none = graph.constant(np.ones(16, np.float32)), graph.constant(np.zeros(16, np.float32))
    x = graph.add("LayerNormalization", "x", one, none)
    shared = graph.quantize(x, 0.02, zero)
    parts = [graph.add("MatMul", shared, graph.weights(drawn(16, 16), 1, 1e-3)) for _ in range(3)]
    parts = [graph.add("Add", part, graph.constant(np.float32(0.1))) for part in parts]
    scores = graph.add("MatMul", parts[0], graph.add("Transpose", parts[1], perm=[0, 2, 1]))
    mixed = graph.add("MatMul", graph.add("Softmax", scores), parts[2])
    own = graph.quantize(mixed, 0.02, zero)
    y = graph.add("Add", graph.add("MatMul", own, graph.weights(drawn(16, 16), 1, 1e-3)), x)
    rows = graph.add("Reshape", y, graph.constant(np.array([-1, 16])))
    options = [graph.constant(np.linspace(-1, 1, 8, dtype=np.float32))] if bias else []
    sides = graph.quantize(rows, 0.02, zero), graph.weights(drawn(8, 16), 0, 1e-3)
    head = graph.add("Gemm", *sides, *options, transB=1)
    turned = graph.add("Transpose", y, perm=[0, 2, 1])
    sides = graph.quantize(turned, 0.02, zero), graph.weights(drawn(4, 16, 3), 0, 1e-3)
    window = graph.quantize(graph.add("Conv", *sides, kernel_shape=[3]), 1e-4, zero)
    model = graph.model(graph.add("Tanh", head), window, y)
    return model, {"x": rng.normal(0, 2, (2, 5, 16)).astype(np.float32)}


@pytest.mark.parametrize("zero", ZERO_POINTS[1:], ids=str)
@pytest.mark.parametrize("target", ["onnx", "openvino"])
def test_what_does_not_saturate_is_as_onnxruntime_has_it(zero: Any, target: str) -> None:
    model, feed = encoder(64, zero)
    expected = run(model, feed)
    (found,) = saturation.emulate(model, [feed], target)
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, atol=1e-5)
    assert set(saturation.saturations(model, [feed], target).values()) == {0.0}
    assert set(saturation.exposed(model).values()) == {0.0}


def test_what_saturates_is_counted_where_it_does(tmp_path: Path) -> None:
    model, feed = encoder(127, ZERO_POINTS[1])
    onnx.save(model, tmp_path / "model.onnx")
    shares = saturation.saturations(tmp_path / "model.onnx", [feed], "openvino")
    kinds = {node.name: node.op_type for node in model.graph.node}
    assert [kinds[name] for name in shares] == ["MatMul"] * 4 + ["Gemm", "Conv"]
    exposed = saturation.exposed(model)
    assert exposed.keys() == shares.keys() and min(exposed.values()) > 0
    assert max(shares.values()) > 0
    emulated, expected = saturation.emulate(model, [feed], "openvino")[0], run(model, feed)
    assert max(abs(emulated[name] - expected[name]).max() for name in expected) > 1e-3


def test_what_is_no_integer_operator_is_left_to_onnxruntime() -> None:
    graph = Graph(x=["m", 6])
    matrix = full_range(6, 6)
    x = graph.quantize("x", 0.02, ZERO_POINTS[1])
    scales, shifts = np.full(6, 0.01, np.float32), np.full(6, 3, np.int8)
    sides = [graph.constant(array) for array in (matrix, scales, shifts)]
    left = graph.add("MatMul", x, graph.add("DequantizeLinear", *sides, axis=1))
    sides = [graph.constant(array) for array in (matrix.astype(np.uint8), scales)]
    right = graph.add("MatMul", x, graph.add("DequantizeLinear", *sides, axis=1))
    turned = graph.weights(matrix, axis=0, scale=0.01)  # a scale for each input channel
    wrong = graph.add("MatMul", x, turned)
    product = graph.add("MatMul", x, graph.quantize(left, 0.1, np.int8(0)))  # uint8 x int8
    model = graph.model(left, right, wrong, product)
    feed = {"x": np.random.default_rng(0).normal(0, 2, (6, 6)).astype(np.float32)}
    assert saturation.saturations(model, [feed], "openvino") == {}
    (found,) = saturation.emulate(model, [feed], "openvino")
    for name, array in run(model, feed).items():
        np.testing.assert_array_equal(found[name], array)


def test_a_branch_may_read_what_an_operator_made() -> None:
    graph = Graph(x=["m", 6])
    sides = graph.quantize("x", 0.02, ZERO_POINTS[1]), graph.weights(full_range(6, 4), 1, 0.01)
    y = graph.add("MatMul", *sides)
    branches = {}
    for name, kind in (("then_branch", "Neg"), ("else_branch", "Abs")):
        output = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None)]
        branches[name] = helper.make_graph([helper.make_node(kind, [y], [name])], name, [], output)
    model = graph.model(graph.add("If", graph.constant(True), **branches), y)
    feed = {"x": np.ones((2, 6), np.float32)}
    negative, positive = saturation.emulate(model, [feed])[0].values()
    np.testing.assert_array_equal(negative, -positive)


FUSED = {"MatMulIntegerToFloat", "QLinearMatMul", "QGemm", "QLinearConv"}


@pytest.mark.skipif(platform.machine() != "x86_64", reason="other fusions elsewhere")
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("zero", ZERO_POINTS[1:], ids=str)
def test_the_integer_operators_are_those_of_onnxruntime(
    zero: Any, bias: bool, tmp_path: Path
) -> None:
    model, _ = encoder(127, zero, bias)
    graph = Graph(x=["n", 4, "t"])  # nothing quantizes this convolution's output
    sides = graph.quantize("x", 0.02, zero), graph.weights(full_range(4, 4, 3), 0)
    for number, case in enumerate((model, graph.model(graph.add("Conv", *sides)))):
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.optimized_model_filepath = str(tmp_path / f"{number}.onnx")
        onnxruntime.InferenceSession(
            case.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        optimized = onnx.load(tmp_path / f"{number}.onnx").graph.node
        taken = [step for step in plan(case, "onnx") if isinstance(step, Operator)]
        assert len(taken) == sum(node.op_type in FUSED for node in optimized)


def test_refusals() -> None:
    model, feed = encoder(64, ZERO_POINTS[0])
    with pytest.raises(RecipeError, match="target 'tensorrt': int8 kernels are known of"):
        saturation.emulate(model, [feed], "tensorrt")
    with pytest.raises(RecipeError, match=r"takes \['x'\], not \['y'\]"):
        saturation.emulate(model, [{"y": feed["x"]}])
    broken = onnx.ModelProto()
    broken.CopyFrom(model)
    broken.graph.node[0].input[0] = "nowhere"
    with pytest.raises(RecipeError, match="nothing makes nowhere"):
        saturation.exposed(broken)
    with pytest.raises(RecipeError, match="cannot run this model on these inputs"):
        saturation.emulate(model, [{"x": feed["x"][..., :3]}])
