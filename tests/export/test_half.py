"""fp32 ONNX -> fp16 and bf16: which types are in the graph, and what it then computes.

onnxruntime's CPU kernels compute much of fp16 in fp32, so where rounding or overflow is what is
tested, onnx's reference evaluator (numpy) runs the graph: every type there is the graph's own.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from edgessl import openvino_core
from edgessl.backend import Arrays, BuildPlan
from edgessl.errors import RecipeError, Unsupported
from edgessl.export import half
from edgessl.export.tensorrt_engine import build_engine

Write = Callable[..., Path]
Array = npt.NDArray[Any]
Shapes = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
HALVES = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
FLOAT = TensorProto.FLOAT
RNG = np.random.default_rng(5)


def graph(
    nodes: list[Any],
    constants: dict[str, Any],
    inputs: dict[str, list[Any]] | None = None,
    opset: int = 17,
) -> Any:
    """A model of *nodes* from ``x`` (batch, 8) fp32 to ``y``."""
    shapes: dict[str, list[Any]] = inputs or {"x": ["batch", 8]}
    built = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, FLOAT, shape) for name, shape in shapes.items()],
        [helper.make_tensor_value_info("y", FLOAT, ["rows", "columns"])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_model(built, opset_imports=opsets, ir_version=10)


def node(kind: str, inputs: str, output: str, **attributes: Any) -> Any:
    return helper.make_node(kind, inputs.split(), [output], name=f"node_{output}", **attributes)


def f32(values: Any) -> npt.NDArray[np.float32]:
    return np.asarray(values, np.float32)


def weight(*shape: int, scale: float = 0.3) -> npt.NDArray[np.float32]:
    return (scale * RNG.normal(size=shape)).astype(np.float32)


def converted(model: Any, dtype: str = "fp16", keep: tuple[str, ...] = ()) -> Any:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    half.convert(copy, dtype, keep)
    if dtype == "fp16":  # before opset 22 ONNX defines no Conv in bf16, which every runtime has
        onnx.checker.check_model(copy, full_check=True)
    return copy


def types(model: Any) -> dict[str, int]:
    known = onnx.shape_inference.infer_shapes(model).graph
    found = {v.name: v.type.tensor_type.elem_type for v in (*known.value_info, *known.output)}
    return found | {tensor.name: tensor.data_type for tensor in model.graph.initializer}


def evaluate(model: Any, **inputs: Array) -> Array:
    """Run by numpy, in exactly the types that the graph has."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # overflow is one of the things looked for
        run: Any = ReferenceEvaluator(model).run
        result: Array = run(None, inputs)[0]
    return result


def run_ort(model: Any, inputs: Arrays) -> Array:
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    result: Array = session.run(None, inputs)[0]
    return result


def run_openvino(model: Any, inputs: Arrays) -> Array:
    core = openvino_core.core("a test")
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = core.compile_model(core.read_model(model.SerializeToString()), "CPU", settings)
    result: Array = compiled(inputs)[0]
    return result


def cosines(left: Array, right: Array) -> Array:
    a, b = (np.asarray(array, np.float64) for array in (left, right))
    result: Array = (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)
    return result


def tiny_inputs(family: str) -> Arrays:
    rng = np.random.default_rng(3)
    if family == "vit_mae":
        pixels = rng.normal(size=(4, 3, 16, 16)).astype(np.float32)
        return {"pixel_values": pixels, "patch_indices": np.tile(np.arange(16), (4, 1))}
    mask = (np.arange(20) < np.array([[20], [1], [7], [13]])).astype(np.int64)
    return {"input_ids": rng.integers(2, 60, (4, 20)) * mask, "attention_mask": mask}


FAMILIES = ["bert", "vit_mae"]


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("family", FAMILIES)
def test_an_encoder_says_the_same(write_tiny: Write, family: str, dtype: str) -> None:
    model, inputs = onnx.load(str(write_tiny(family, "fp32"))), tiny_inputs(family)
    expected = run_ort(model, inputs)
    run = run_ort if dtype == "fp16" else run_openvino
    actual = run(converted(model, dtype), inputs)
    assert actual.dtype == np.float32
    assert cosines(expected, actual).min() > {"fp16": 0.99999, "bf16": 0.9995}[dtype]
    assert np.abs(expected - actual).max() > 1e-6  # it really is another precision


def test_numpy_in_fp16_says_the_same(write_tiny: Write) -> None:
    model, inputs = onnx.load(str(write_tiny("bert", "fp32"))), tiny_inputs("bert")
    actual = evaluate(converted(model), **inputs)
    assert cosines(run_ort(model, inputs), actual).min() > 0.9999


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_in_which_type(write_tiny: Write, family: str, dtype: str) -> None:
    path = write_tiny(family, "fp32")
    before = onnx.load(str(path))
    after = converted(before, dtype)
    assert after.graph.input == before.graph.input
    assert after.graph.output == before.graph.output
    kind, found = HALVES[dtype], types(after)
    computes: dict[str, set[int]] = {}
    for each in after.graph.node:
        computes.setdefault(each.op_type, set()).add(found[each.output[0]])
    assert computes["MatMul"] == {kind}
    assert computes.get("Conv", {kind}) == {kind}
    for name in ("LayerNormalization", "ReduceMean", "ReduceSum", "Sqrt"):
        assert computes.get(name, {FLOAT}) == {FLOAT}, name
    weights = {t.data_type for t in after.graph.initializer if np.prod(t.dims) > 300}
    assert weights - {TensorProto.INT64} == {kind}
    assert len(after.SerializeToString()) < 0.75 * len(before.SerializeToString())


@pytest.mark.parametrize("family", FAMILIES)
def test_no_cast_too_many(write_tiny: Write, family: str) -> None:
    model = onnx.load(str(write_tiny(family, "fp32")))
    old = {each.output[0] for each in model.graph.node if each.op_type == "Cast"}
    after = converted(model)
    found = types(after) | {value.name: FLOAT for value in after.graph.input}
    casts = [n for n in after.graph.node if n.op_type == "Cast" and n.output[0] not in old]
    made = {cast.output[0] for cast in casts}
    assert casts and all(cast.input[0] not in made for cast in casts)  # never there and back
    assert len({cast.input[0] for cast in casts}) == len(casts)  # never the same twice
    assert all(found[cast.input[0]] != found[cast.output[0]] for cast in casts)
    # One into each normalisation and one out of it; the input of an image encoder.
    counts = Counter(each.op_type for each in after.graph.node)
    assert len(casts) <= 2 * counts["LayerNormalization"] + 1


@pytest.mark.parametrize("dtype", HALVES)
def test_tensorrt_builds_it(write_tiny: Write, tmp_path: Path, dtype: str) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(converted(onnx.load(str(write_tiny("bert", "fp32"))), dtype), str(path))
    shapes: Shapes = ((1, 1), (2, 8), (4, 24))
    profiles = {"input_ids": shapes, "attention_mask": shapes}
    assert build_engine(path, BuildPlan("tensorrt-rtx", dtype, profiles))


def test_what_is_kept_is_not_rounded_before_it_is_read() -> None:
    # Values of about 1e6 between two products, made small again by the second.
    first, second = weight(8, 16, scale=1e6), weight(16, 4, scale=1e-6)
    nodes = [
        node("MatMul", "x w1", "up"),
        node("Relu", "up", "relu"),
        node("Reshape", "relu shape", "moved"),
        node("MatMul", "moved w2", "down"),
        node("MatMul", "down w3", "out"),
        node("Softmax", "out", "y"),
    ]
    shape = np.array([-1, 16])
    model = graph(nodes, {"w1": first, "w2": second, "w3": weight(4, 4), "shape": shape})
    x = RNG.normal(size=(5, 8)).astype(np.float32)
    expected = evaluate(model, x=x)
    assert not np.isfinite(evaluate(converted(model), x=x)).all()
    kept = converted(model, keep=("node_up", "node_relu"))
    found = types(kept)
    assert [found[n] for n in ("up", "relu", "moved", "down")] == [FLOAT] * 4
    assert found["out"] == TensorProto.FLOAT16
    stored = {t.name: t.data_type for t in kept.graph.initializer}
    assert (stored["w1"], stored["w2"], stored["w3"]) == (FLOAT, FLOAT, TensorProto.FLOAT16)
    np.testing.assert_allclose(evaluate(kept, x=x), expected, atol=2e-3)


@pytest.mark.parametrize("dtype", HALVES)
def test_a_mask_stays_finite(dtype: str) -> None:
    """Rows that are masked altogether: a fill that rounds to -inf would make NaN of them."""
    lowest = np.finfo(np.float32).min
    nodes = [
        node("MatMul", "x w", "scores"),
        node("Where", "seen zero lowest", "mask"),
        node("Add", "scores mask", "masked"),
        node("Softmax", "masked", "share", axis=-1),
        node("MatMul", "share w", "y"),
    ]
    seen = np.zeros((4, 8), bool)
    seen[1:, :3] = True
    constants = {
        "w": weight(8, 8, scale=30.0),
        "seen": seen,
        "zero": np.float32(0),
        "lowest": np.float32(lowest),
    }
    model = graph(nodes, constants, {"x": [4, 8]})
    x = RNG.normal(size=(4, 8)).astype(np.float32)
    expected, actual = evaluate(model, x=x), run_openvino(converted(model, dtype), {"x": x})
    assert np.isfinite(actual).all()
    assert cosines(expected, actual)[1:].min() > 0.999
    if dtype == "fp16":
        assert np.isfinite(evaluate(converted(model), x=x)).all()
    tensor = {t.name: t for t in converted(model, dtype).graph.initializer}["lowest"]
    fill = float(np.asarray(numpy_helper.to_array(tensor), np.float64))
    assert fill == {"fp16": -32768.0, "bf16": -(2.0**127)}[dtype]


def test_a_constant_that_both_sides_read_is_stored_twice() -> None:
    nodes = [
        node("MatMul", "x w", "a"),
        node("Add", "a b", "c"),
        node("MatMul", "c w", "d"),
        node("Add", "d b", "e"),  # after the last product: fp32
        node("ReduceMean", "e", "y", axes=[-1]),
    ]
    constants = {"w": weight(8, 8), "b": f32([1 / 3] * 8)}
    model = graph(nodes, constants)
    after = converted(model)
    stored = {t.name: numpy_helper.to_array(t) for t in after.graph.initializer}
    assert set(stored) == {"w", "b", "b_fp16"}
    assert {stored["w"].dtype, stored["b_fp16"].dtype} == {np.dtype(np.float16)}
    np.testing.assert_array_equal(stored["b"], constants["b"])  # to the last bit
    x = RNG.normal(size=(3, 8)).astype(np.float32)
    np.testing.assert_allclose(evaluate(after, x=x), evaluate(model, x=x), atol=2e-3)


def test_an_output_in_the_middle_stays_fp32() -> None:
    model = graph([node("MatMul", "x w", "y"), node("MatMul", "y w", "z")], {"w": weight(8, 8)})
    model.graph.output.append(helper.make_tensor_value_info("z", FLOAT, ["rows", "columns"]))
    after = converted(model)
    assert [v.type.tensor_type.elem_type for v in after.graph.output] == [FLOAT, FLOAT]
    x = RNG.normal(size=(3, 8)).astype(np.float32)
    assert types(after)["y_fp16"] == TensorProto.FLOAT16
    np.testing.assert_allclose(run_ort(after, {"x": x}), evaluate(model, x=x), atol=1e-2)


def test_bf16_counts_positions_in_fp32() -> None:
    """Position 4001 x frequency 1: bf16 would give the angle 4000."""
    nodes = [
        node("MatMul", "positions frequencies", "angles"),
        node("Cos", "angles", "cos"),
        node("MatMul", "x w", "q"),
        node("Mul", "q cos", "turned"),
        node("MatMul", "turned w", "y"),
    ]
    constants = {
        "positions": np.arange(4000, 4004, dtype=np.float32)[:, None],
        "frequencies": np.geomspace(1, 0.01, 8, dtype=np.float32)[None],
        "w": weight(8, 8),
    }
    model = graph(nodes, constants, {"x": [4, 8]})
    x = RNG.normal(size=(4, 8)).astype(np.float32)
    after = converted(model, "bf16")
    assert types(after)["angles"] == FLOAT
    assert types(after)["turned"] == TensorProto.BFLOAT16
    assert cosines(evaluate(model, x=x), run_openvino(after, {"x": x})).min() > 0.999


def test_a_root_mean_square_is_fp32_and_so_is_its_epsilon() -> None:
    nodes = [
        node("MatMul", "x w", "h"),
        node("Mul", "h h", "square"),
        node("ReduceMean", "square", "mean", axes=[-1]),
        node("Add", "mean epsilon", "safe"),
        node("Sqrt", "safe", "root"),
        node("Div", "h root", "normed"),
        node("MatMul", "normed w", "y"),
    ]
    model = graph(nodes, {"w": weight(8, 8, scale=1e3), "epsilon": np.float32(1e-6)})
    found = types(converted(model))
    assert {found[n] for n in ("square", "mean", "safe", "root", "normed")} == {FLOAT}
    x = f32([[1] * 8, [0] * 8])  # squares beyond 65504; and a row where epsilon decides
    actual = evaluate(converted(model), x=x)
    np.testing.assert_allclose(actual, evaluate(model, x=x), rtol=5e-3, atol=2)


def test_a_small_constant_keeps_its_operator_in_fp32() -> None:
    nodes = [
        node("MatMul", "x w", "h"),
        node("Clip", "h least", "clipped"),
        node("Reciprocal", "clipped", "inverse"),
        node("MatMul", "inverse w", "y"),
    ]
    model = graph(nodes, {"w": weight(8, 8), "least": np.float32(1e-7)})
    assert types(converted(model))["clipped"] == FLOAT


def quantized(opset: int, smallest: float = 0.01) -> Any:
    """x @ W8 twice, as TensorRT takes it: symmetric, zero points 0, weights per column."""
    integers = RNG.integers(-127, 128, (8, 8)).astype(np.int8)
    constants = {
        "act": np.float32(0.0312345),
        "zero": np.int8(0),
        "w8": integers,
        "ws": f32(np.linspace(smallest, 0.012, 8)),
        "wz": np.zeros(8, np.int8),
        "bias": weight(8),
    }
    nodes = []
    for source, product, out in (("x", "p", "h"), ("h", "p2", "y")):
        nodes += [
            node("QuantizeLinear", f"{source} act zero", f"{source}_q"),
            node("DequantizeLinear", f"{source}_q act zero", f"{source}_dq"),
            node("DequantizeLinear", "w8 ws wz", f"{product}_w", axis=1),
            node("MatMul", f"{source}_dq {product}_w", product),
            node("Add", f"{product} bias", out),
        ]
    return graph(nodes, constants, opset=opset)


@pytest.mark.parametrize("opset", [17, 21])
def test_int8_with_fp16_between(tmp_path: Path, opset: int) -> None:
    model = quantized(opset)
    after = converted(model)
    found = types(after)
    assert found["w8"] == TensorProto.INT8
    assert (found["p"], found["p2"]) == (TensorProto.FLOAT16, TensorProto.FLOAT16)
    # ONNX has 16-bit Q/DQ from opset 19 on; before it the casts stand outside the pair.
    dequantized = TensorProto.FLOAT16 if opset >= 19 else FLOAT
    assert (found["h_dq"], found["p_w"]) == (dequantized, dequantized)
    x = RNG.normal(size=(6, 8)).astype(np.float32)
    expected, actual = run_ort(model, {"x": x}), run_ort(after, {"x": x})
    assert cosines(expected, actual).min() > 0.999  # a value on the edge may round elsewhere
    path = tmp_path / "q.onnx"
    onnx.save(after, str(path))
    assert build_engine(path, BuildPlan("tensorrt-rtx", "int8", {"x": ((1, 8), (2, 8), (4, 8))}))


def test_a_scale_is_the_same_number_to_both_of_a_pair() -> None:
    stored = {t.name: numpy_helper.to_array(t) for t in converted(quantized(21)).graph.initializer}
    assert stored["act"].dtype == np.float32  # x comes in fp32
    assert stored["act"] == stored["act_fp16"].astype(np.float32)


def test_a_scale_too_small_for_fp16_stays_fp32() -> None:
    found = types(converted(quantized(21, smallest=1e-6)))
    assert (found["p_w"], found["h_dq"]) == (FLOAT, TensorProto.FLOAT16)


def test_tables_and_fills_that_nodes_make() -> None:
    nodes = [
        helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(f32([0.1] * 8))),
        helper.make_node(
            "ConstantOfShape",
            ["shape"],
            ["ones"],
            value=numpy_helper.from_array(f32([1.0])),
        ),
        helper.make_node("ConstantOfShape", ["shape"], ["zeros"]),
        node("MatMul", "x w", "a"),
        node("Sum", "a c ones zeros", "b"),
        node("MatMul", "b w", "y"),
    ]
    model = graph(nodes, {"w": weight(8, 8), "shape": np.array([8])})
    after = converted(model)
    found = types(after)
    assert {found[n] for n in ("c", "ones", "zeros", "b")} == {TensorProto.FLOAT16}
    x = RNG.normal(size=(3, 8)).astype(np.float32)
    np.testing.assert_allclose(evaluate(after, x=x), evaluate(model, x=x), atol=1e-2)


def test_never_rounded() -> None:
    nodes = [
        node("MatMul", "x w", "h"),
        node("Mul", "h h", "square"),
        node("ReduceMean", "square", "mean", axes=[-1]),
        node("Sqrt", "mean", "root"),
        node("Div", "h root", "normed"),  # in fp32, and rounded for the product
        node("MatMul", "normed w", "product"),
        node("Relu", "product", "y"),
    ]
    model = graph(nodes, {"w": weight(8, 8)})
    never = half.never_rounded(model, "fp16")
    assert never == {"node_square", "node_mean", "node_root", "node_y"}


@pytest.mark.parametrize("dtype", HALVES)
def test_rounding_is_that_of_torch(dtype: str) -> None:
    bits = np.concatenate([RNG.integers(0, 2**32, 5000, dtype=np.uint32), np.arange(2**14) << 15])
    values = bits.astype(np.uint32).view(np.float32)
    largest = torch.finfo(torch.float16 if dtype == "fp16" else torch.bfloat16).max
    values = np.concatenate([values[np.abs(values) <= largest], f32([np.inf, -np.inf])])
    tensor = numpy_helper.from_array(values, "t")
    half.store(tensor, dtype)
    kind = {"fp16": torch.float16, "bf16": torch.bfloat16}[dtype]
    expected = torch.from_numpy(values).to(kind).view(torch.int16).numpy()
    np.testing.assert_array_equal(np.frombuffer(tensor.raw_data, np.int16), expected)


def test_what_cannot_be_converted() -> None:
    model = graph([node("MatMul", "x w", "y")], {"w": weight(8, 8)})
    with pytest.raises(RecipeError, match="'fp61'. Did you mean 'fp16'"):
        half.convert(model, "fp61")
    with pytest.raises(RecipeError, match="'node_z' to keep in fp32. Did you mean 'node_y'"):
        half.convert(model, "fp16", ["node_z"])
    with pytest.raises(Unsupported, match="16-bit types already"):
        half.convert(converted(model), "bf16")
    strange = graph([helper.make_node("Frob", ["x"], ["z"], domain="my.own")], {})
    with pytest.raises(Unsupported, match="No opset import for domain my.own"):
        half.convert(strange, "fp16")
    strange.opset_import.append(helper.make_opsetid("my.own", 1))
    with pytest.raises(Unsupported, match="type of 'z' .Frob. cannot be found out"):
        half.convert(strange, "fp16")
    branch = helper.make_graph([], "b", [], [])
    fork = helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch, name="if")
    with pytest.raises(Unsupported, match="If 'if': control flow"):
        half.convert(graph([fork], {"c": np.array(True)}), "fp16")
