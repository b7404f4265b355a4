"""int8 and int4 weights: what is stored is the weight, whatever the runtime's form of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import openvino
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgessl import openvino_core
from edgessl.calibrate import rounding, weight_only
from edgessl.errors import RecipeError, Unsupported

Floats = npt.NDArray[np.float32]
INPUTS = 64
FORMS = [(runtime, bits) for runtime in weight_only.RUNTIMES for bits in (8, 4)]


def normal(seed: int, *shape: int) -> Floats:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def model_of(
    nodes: list[Any], constants: dict[str, Any], ids: bool = False, width: int = INPUTS
) -> onnx.ModelProto:
    """Opset 17; from ``x`` float (rows, *width*), or int64 ids (rows,), to ``y``."""
    kind = TensorProto.INT64 if ids else TensorProto.FLOAT
    shape: list[str | int | None] = ["n"] if ids else ["n", width]
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", "m"])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


def run(model: onnx.ModelProto, x: npt.NDArray[Any]) -> Floats:
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    result: Floats = session.run(["y"], {"x": x})[0]
    return result


def kinds(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def linear(weight: Floats) -> onnx.ModelProto:
    return model_of(
        [helper.make_node("MatMul", ["x", "w"], ["y"], "first")], {"w": weight}, width=len(weight)
    )


def steps(weight: Floats, bits: int, block: int, symmetric: bool) -> Floats:
    """By definition: how far apart neighbouring codes are, for each weight."""
    blocks = weight.reshape(-1, block, weight.shape[1])
    if symmetric or bits == 8:
        step = np.abs(blocks).max(axis=1) / (2 ** (bits - 1) - 1)
    else:
        step = (np.maximum(blocks.max(axis=1), 0) - np.minimum(blocks.min(axis=1), 0)) / 15
    return np.repeat(step, block, axis=0)


@pytest.mark.parametrize(("runtime", "bits"), FORMS)
def test_the_weights_come_back(runtime: str, bits: int) -> None:
    weight = normal(0, INPUTS, 24) * np.geomspace(0.1, 10, 24, dtype=np.float32)
    model = linear(weight)
    facts = weight_only.quantize(model, bits, 32, runtime)
    assert facts["operators"] == 1 and facts["int8_tables"] == []
    # A row of an identity matrix survives rounding whole, so the product is the weight itself.
    back = run(model, np.eye(INPUTS, dtype=np.float32))
    per_column = (runtime, bits) == ("tensorrt", 8)
    step = steps(weight, bits, INPUTS if per_column else 32, runtime == "tensorrt")
    error = np.abs(back - weight)
    if bits == 8:
        assert (error <= 0.501 * step).all()
    else:  # a fitted scale gives up the largest weights for the many
        assert np.sqrt(np.mean(np.square(error / step))) < 0.3  # to nearest: 1/sqrt(12) = 0.289
        assert (error <= 2 * step).all()
    stored = sum(len(tensor.raw_data) for tensor in model.graph.initializer)
    assert stored < weight.nbytes * (0.4 if bits == 8 else 0.3)


def test_forms_by_runtime() -> None:
    found = {}
    for runtime, bits in FORMS:
        model = linear(normal(0, INPUTS, 24))
        weight_only.quantize(model, bits, 32, runtime)
        names = {tensor.name: tensor for tensor in model.graph.initializer}
        kind = TensorProto.DataType.Name(names["w.codes"].data_type)
        found[runtime, bits] = (*kinds(model), kind, model.opset_import[0].version)
        assert (numpy_helper.to_array(names["w.scales"]) > 0).all()
        assert model.graph.node[-1].name == "first"
    assert found == {
        ("onnx", 8): ("MatMulNBits", "UINT8", 17),
        ("onnx", 4): ("MatMulNBits", "UINT8", 17),
        ("openvino", 8): ("DequantizeLinear", "MatMul", "INT8", 21),
        ("openvino", 4): ("DequantizeLinear", "MatMul", "UINT4", 21),
        ("tensorrt", 8): ("DequantizeLinear", "MatMul", "INT8", 17),
        ("tensorrt", 4): ("DequantizeLinear", "MatMul", "INT4", 21),
    }


@pytest.mark.parametrize(("runtime", "bits"), FORMS)
def test_gemm_transpose_and_a_shared_weight(runtime: str, bits: int) -> None:
    weight, bias = normal(0, INPUTS, INPUTS), normal(1, INPUTS)
    nodes = [
        helper.make_node("Gemm", ["x", "w", "b"], ["a"], "gemm", transB=1),
        helper.make_node("Transpose", ["w"], ["w.t"], "turn", perm=[1, 0]),
        helper.make_node("MatMul", ["a", "w.t"], ["c"], "behind"),
        helper.make_node("MatMul", ["c", "w"], ["y"], "plain"),
    ]
    model = model_of(nodes, {"w": weight / 8, "b": bias})
    x = normal(2, 5, INPUTS)
    expected = ((x @ weight.T / 8 + bias) @ weight.T / 8) @ weight / 8
    assert np.allclose(run(model, x), expected, atol=1e-4)
    assert weight_only.quantize(model, bits, 32, runtime)["operators"] == 3
    assert "Transpose" not in kinds(model) and "Gemm" not in kinds(model)
    assert "w" not in {tensor.name for tensor in model.graph.initializer}
    assert kinds(model).count("DequantizeLinear") == (0 if runtime == "onnx" else 2)
    error = np.linalg.norm(run(model, x) - expected) / np.linalg.norm(expected)
    assert error < (0.02 if bits == 8 else 0.25)


@pytest.mark.parametrize("runtime", weight_only.RUNTIMES)
@pytest.mark.parametrize("inputs", [48, 20])
def test_inputs_that_no_block_divides(runtime: str, inputs: int) -> None:
    weight = normal(0, inputs, 12)
    model = linear(weight)
    weight_only.quantize(model, 4, 32, runtime)
    error = np.abs(run(model, np.eye(inputs, dtype=np.float32)) - weight)
    few_bits = runtime == "onnx" or inputs == 48  # else int8, a scale a column
    assert error.max() < (0.6 if few_bits else 0.02)


def test_openvino_keeps_the_weights_narrow(tmp_path: Path) -> None:
    weight, x = normal(0, 256, 256), normal(1, 3, 256)
    for bits, most in ((8, 0.32), (4, 0.19)):
        model = linear(weight)
        weight_only.quantize(model, bits, 32, "openvino")
        onnx.save(model, str(tmp_path / "model.onnx"))
        openvino.save_model(
            openvino_core.core("a test").read_model(str(tmp_path / "model.onnx")),
            str(tmp_path / "model.xml"),
            compress_to_fp16=False,
        )
        assert (tmp_path / "model.bin").stat().st_size < most * weight.nbytes
        compiled = openvino_core.core("a test").compile_model(str(tmp_path / "model.xml"), "CPU")
        error = compiled(x)[0] - x @ weight
        assert np.linalg.norm(error) < (0.02 if bits == 8 else 0.15) * np.linalg.norm(x @ weight)


def test_a_row_does_not_depend_on_the_others() -> None:
    model = linear(normal(0, INPUTS, 24))
    weight_only.quantize(model)
    x = normal(1, 4, INPUTS)
    together = np.concatenate([x, 1000 * normal(2, 1, INPUTS)])
    assert np.array_equal(run(model, together)[:4], run(model, x))


def test_weights_that_cannot_be_stored_stay() -> None:
    weight = normal(0, INPUTS, INPUTS)
    nodes = [
        helper.make_node("Gemm", ["x", "w"], ["a"], "scaled", alpha=0.5),
        helper.make_node("MatMul", ["a", "x.t"], ["b"], "computed"),
        helper.make_node("Transpose", ["x"], ["x.t"], "turn"),
        helper.make_node("MatMul", ["x", "v"], ["c"], "plain"),
        helper.make_node("MatMul", ["b", "c"], ["y"], "last"),
    ]
    nodes[1], nodes[2] = nodes[2], nodes[1]
    model = model_of(nodes, {"w": weight, "v": weight})
    assert weight_only.quantize(model)["operators"] == 1
    assert {"w"} == {t.name for t in model.graph.initializer if t.data_type == 1} - {"v.scales"}


def test_refusals() -> None:
    model = linear(normal(0, INPUTS, 8))
    before = model.SerializeToString()
    with pytest.raises(RecipeError, match="3 bits"):
        weight_only.quantize(model, 3)
    with pytest.raises(RecipeError, match="24 weights: a power of two"):
        weight_only.quantize(model, 8, 24)
    with pytest.raises(RecipeError, match="Did you mean 'openvino'"):
        weight_only.quantize(model, 8, 32, "openvin")
    assert model.SerializeToString() == before
    relu = model_of([helper.make_node("Relu", ["x"], ["y"])], {})
    with pytest.raises(Unsupported, match="no MatMul or Gemm"):
        weight_only.quantize(relu)


def table_model(table: Floats, **nodes: Any) -> onnx.ModelProto:
    gather = helper.make_node("Gather", ["t", "x"], ["y"], "look")
    return model_of([gather, *nodes.values()], {"t": table}, ids=True)


@pytest.mark.parametrize("runtime", weight_only.RUNTIMES)
def test_embedding_tables(runtime: str) -> None:
    table = normal(0, 1024, 64)
    table[7] *= 1000  # a rare token
    table[:, 5] *= 30  # an outlier dimension
    model = table_model(table)
    assert weight_only.quantize_embeddings(model, runtime) == {"int8_tables": ["t"]}
    assert model.ByteSize() < 0.3 * table.nbytes
    ids = np.array([0, 7, 1023, 5, 5])
    got, want = run(model, ids), table[ids]
    error = np.linalg.norm(got - want, axis=1) / np.linalg.norm(want, axis=1)
    assert error.max() < 0.012
    first = "DequantizeLinear" if runtime == "tensorrt" else "Gather"
    assert kinds(model)[0] == first  # only TensorRT may widen the whole table


def test_tables_that_stay() -> None:
    small = table_model(normal(0, 64, 64))
    other_axis = table_model(normal(0, 1024, 64))
    other_axis.graph.node[0].attribute.append(helper.make_attribute("axis", 1))
    shared = table_model(
        normal(0, 1024, 64), use=helper.make_node("ReduceMax", ["t"], ["z"], axes=[0])
    )
    for model in (small, other_axis, shared):
        before = model.SerializeToString()
        assert weight_only.quantize_embeddings(model) == {"int8_tables": []}
        assert model.SerializeToString() == before


def test_four_bits_are_fitted_better_than_rounded_to_nearest() -> None:
    weight = np.random.default_rng(0).laplace(size=(128, 40)).astype(np.float32)
    for symmetric in (True, False):
        codes, scales, zeros = rounding.round_blocks(weight, 4, 32, symmetric)
        assert codes.max() <= 15 and (scales > 0).all()
        assert not symmetric or (zeros == 8).all()
        step = steps(weight, 4, 32, symmetric)
        plain = np.rint(weight / step) * step  # a zero point would only shift it
        wide, level = np.repeat(scales, 32, axis=0), np.repeat(zeros, 32, axis=0)
        fitted = (codes.astype(np.float32) - level) * wide
        assert np.square(fitted - weight).sum() < 0.97 * np.square(plain - weight).sum()


def test_blocks_of_zeros_and_of_one_sign() -> None:
    weight = np.zeros((32, 3), dtype=np.float32)
    weight[:, 1], weight[:, 2] = 2.5, -1e-30
    for bits, symmetric in ((8, True), (4, True), (4, False)):
        codes, scales, zeros = rounding.round_blocks(weight, bits, 32, symmetric)
        back = (codes.astype(np.float32) - zeros) * scales
        assert np.isfinite(scales).all() and np.allclose(back, weight, rtol=1e-5, atol=1e-29)


def test_pack_is_onnx_own() -> None:
    codes = np.random.default_rng(0).integers(0, 16, (3, 7)).astype(np.uint8)
    data = rounding.pack(codes.reshape(-1)).tobytes()
    tensor = helper.make_tensor("t", TensorProto.UINT4, codes.shape, data, raw=True)
    assert np.array_equal(numpy_helper.to_array(tensor).astype(np.uint8), codes)
