"""Dynamic int8: fused by ONNX Runtime, per column, and near the fp32 vectors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgessl import encoders
from edgessl.calibrate import dynamic, weight_only
from edgessl.errors import Unsupported
from edgessl.export import onnx_writer
from edgessl.parity import cosine
from edgessl.spec import Provenance
from tests.builders import POSITIONS, save_text_model


@pytest.fixture(scope="module")
def fp32(tmp_path_factory: pytest.TempPathFactory) -> onnx.ModelProto:
    folder = tmp_path_factory.mktemp("fp32")
    source = save_text_model(folder / "bert")
    encoder = encoders.load(source, encoders.LoadOptions(normalize=True), Provenance("tiny"))
    onnx_writer.write(encoder, folder / "model.onnx")
    return onnx.load(str(folder / "model.onnx"))


def copy(model: onnx.ModelProto) -> onnx.ModelProto:
    fresh = onnx.ModelProto()
    fresh.CopyFrom(model)
    return fresh


def optimized(model: onnx.ModelProto, folder: Path) -> list[str]:
    """The operators that ONNX Runtime really runs."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return [n.op_type for n in onnx.load(str(folder / "optimized.onnx")).graph.node]


def vectors(model: onnx.ModelProto, ids: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    result: npt.NDArray[np.float32] = session.run(["sentence_embedding"], inputs)[0]
    return result


def test_a_real_graph(
    fp32: onnx.ModelProto,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(weight_only, "SMALLEST_TABLE", 1)
    model = copy(fp32)
    helper.set_model_props(model, {"key": "value"})
    facts = dynamic.quantize(model)
    assert facts["operators"] == 12 and len(facts["int8_tables"]) == 3 and not facts["reduced"]
    assert not caplog.records  # onnxruntime warns through the root logger
    assert [(note.key, note.value) for note in model.metadata_props] == [("key", "value")]
    onnx.checker.check_model(model, full_check=True)
    ids = np.random.default_rng(0).integers(5, 70, (8, POSITIONS))
    assert cosine(vectors(model, ids), vectors(fp32, ids)).min() > 0.995

    ran = optimized(model, tmp_path)
    fused = ran.count("DynamicQuantizeMatMul") + ran.count("MatMulIntegerToFloat")
    assert fused == 12 and "MatMulInteger" not in ran
    assert ran.count("Gelu") + ran.count("BiasGelu") == 2 and "Erf" not in ran


def linear(weight: npt.NDArray[np.float32], kind: str = "MatMul") -> onnx.ModelProto:
    graph = helper.make_graph(
        [helper.make_node(kind, ["x", "w"], ["y"], "product")],
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", weight.shape[0]])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", weight.shape[1]])],
        [numpy_helper.from_array(weight, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


def run(model: onnx.ModelProto, x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    result: npt.NDArray[np.float32] = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    ).run(["y"], {"x": x})[0]
    return result


@pytest.mark.parametrize(("kind", "reduced"), [("MatMul", False), ("MatMul", True), ("Gemm", True)])
def test_each_column_has_its_own_scale(kind: str, reduced: bool) -> None:
    weight = np.random.default_rng(0).standard_normal((32, 16)).astype(np.float32)
    weight *= np.geomspace(0.001, 1000, 16, dtype=np.float32)
    model = linear(weight, kind)
    assert dynamic.quantize(model, reduced)["operators"] == 1
    codes: Any = [
        numpy_helper.to_array(t) for t in model.graph.initializer if t.data_type == TensorProto.INT8
    ]
    largest = max(int(np.abs(code.astype(int)).max()) for code in codes)
    assert largest <= 64 if reduced else 120 < largest <= 128
    x = np.random.default_rng(1).standard_normal((6, 32)).astype(np.float32)
    exact = x @ weight
    error = np.linalg.norm(run(model, x) - exact, axis=0) / np.linalg.norm(exact, axis=0)
    assert error.max() < 0.04  # one scale for all would lose the small columns whole


def test_a_row_depends_on_the_others() -> None:
    """What the module's documentation warns of."""
    weight = np.random.default_rng(0).standard_normal((32, 16)).astype(np.float32)
    model = linear(weight)
    dynamic.quantize(model)
    x = np.random.default_rng(1).standard_normal((2, 32)).astype(np.float32)
    x[1] *= 100
    alone, exact = run(model, x[:1])[0], x[0] @ weight
    beside = run(model, x)[0]
    assert np.linalg.norm(beside - exact) > 10 * np.linalg.norm(alone - exact)


def test_nothing_to_quantize_leaves_the_model_alone() -> None:
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    before = model.SerializeToString()
    with pytest.raises(Unsupported, match="no MatMul or Gemm"):
        dynamic.quantize(model)
    assert model.SerializeToString() == before
