"""int8 by NNCF: the form that TensorRT takes, and vectors close to fp32 on inputs it never saw."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
from onnx import TensorProto, numpy_helper

from edgessl import encoders
from edgessl.backend import Arrays, BuildPlan
from edgessl.calibrate import quantize
from edgessl.errors import Unsupported
from edgessl.export import onnx_writer, openvino_ir
from edgessl.parity import cosine
from edgessl.spec import Provenance
from tests.builders import POSITIONS, save_text_model

Run = Callable[[Arrays], Arrays]


def texts(count: int, seed: int) -> list[Arrays]:
    """Unpadded inputs of random lengths."""
    rng = np.random.default_rng(seed)
    rows = [rng.integers(5, 70, (1, rng.integers(3, POSITIONS + 1))) for _ in range(count)]
    return [{"input_ids": row, "attention_mask": np.ones_like(row)} for row in rows]


def vectors(run: Run, inputs: list[Arrays]) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.concatenate([run(one)["sentence_embedding"] for one in inputs])


def open_onnx(path: Path) -> Run:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda inputs: {"sentence_embedding": session.run(["sentence_embedding"], inputs)[0]}


def open_openvino(path: Path) -> Run:
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(str(path), "CPU", settings)
    return lambda inputs: {"sentence_embedding": compiled(inputs)["sentence_embedding"]}


@pytest.fixture(scope="module")
def fp32(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fp32")
    model = save_text_model(folder / "bert")
    encoder = encoders.load(model, encoders.LoadOptions(normalize=True), Provenance("tiny"))
    onnx_writer.write(encoder, folder / "model.onnx", "int8")
    return folder / "model.onnx"


@pytest.fixture(scope="module")
def int8(fp32: Path) -> Path:
    path = fp32.with_name("int8.onnx")
    path.write_bytes(fp32.read_bytes())
    assert quantize.quantize_onnx(path, texts(60, seed=1)) == {"scheme": "int8 symmetric, Q/DQ"}
    return path


def test_onnx_is_symmetric_int8_with_weights_per_channel(int8: Path) -> None:
    model = onnx.load(str(int8))
    onnx.checker.check_model(model, full_check=True)
    constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    pairs = [n for n in model.graph.node if n.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert {constants[node.input[2]].dtype for node in pairs} == {np.dtype(np.int8)}
    assert not any(constants[node.input[2]].any() for node in pairs)
    weights = {
        node.output[0]: node
        for node in pairs
        if node.op_type == "DequantizeLinear" and node.input[0] in constants
    }
    products = [n for n in model.graph.node if n.op_type == "MatMul" and n.input[1] in weights]
    assert len(products) == 2 * 6  # query, key, value, output and two of the MLP, twice
    for product in products:
        node = weights[product.input[1]]
        values, scales = constants[node.input[0]], constants[node.input[1]]
        assert values.dtype == np.int8 and np.abs(values.astype(int)).max() > 100
        assert scales.shape == (values.shape[1],)  # one for each output channel
        (axis,) = [a.i for a in node.attribute if a.name == "axis"]
        assert axis % 2 == 1
        assert (scales > 0).all()
    assert [entry.version for entry in model.opset_import if not entry.domain] == [17]
    types = {value.type.tensor_type.elem_type for value in model.graph.output}
    assert types == {TensorProto.FLOAT}


def test_onnx_keeps_the_vectors(fp32: Path, int8: Path) -> None:
    unseen = texts(40, seed=2)
    values = cosine(vectors(open_onnx(fp32), unseen), vectors(open_onnx(int8), unseen))
    assert values.mean() > 0.995 and values.min() > 0.98
    assert values.max() < 1 - 1e-7  # it really is another precision
    padded = {"input_ids": np.zeros((2, 9), np.int64), "attention_mask": np.zeros((2, 9), np.int64)}
    for row, (name, length) in enumerate([("short", 4), ("long", 9)]):
        padded["input_ids"][row, :length] = 10 + row
        padded["attention_mask"][row, :length] = 1
        alone = {key: array[row : row + 1, :length] for key, array in padded.items()}
        together = vectors(open_onnx(int8), [padded])[row : row + 1]
        assert cosine(together, vectors(open_onnx(int8), [alone]))[0] > 0.999, name


def test_openvino_keeps_the_vectors(fp32: Path, tmp_path: Path) -> None:
    openvino_ir.build(fp32, tmp_path, BuildPlan("openvino", "int8", {}))
    path = tmp_path / "openvino_model.xml"
    size = path.with_suffix(".bin").stat().st_size
    assert quantize.quantize_openvino(path, texts(60, seed=1))["scheme"].startswith("int8")
    assert sorted(os.listdir(tmp_path)) == ["openvino_model.bin", "openvino_model.xml"]
    assert path.with_suffix(".bin").stat().st_size < 0.5 * size
    unseen = texts(40, seed=2)
    values = cosine(vectors(open_onnx(fp32), unseen), vectors(open_openvino(path), unseen))
    assert values.mean() > 0.995 and values.min() > 0.98
    assert values.max() < 1 - 1e-7


def test_quantizing_is_silent_and_repeatable(
    fp32: Path, int8: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(fp32.read_bytes())
    capfd.readouterr()
    quantize.quantize_onnx(path, texts(60, seed=1))
    assert capfd.readouterr() == ("", "")
    unseen = texts(5, seed=3)
    np.testing.assert_allclose(
        vectors(open_onnx(path), unseen), vectors(open_onnx(int8), unseen), atol=1e-6
    )


def test_what_nncf_cannot_quantize(fp32: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(fp32.read_bytes())
    wrong = [{"pixels": np.zeros((1, 2), np.int64)}]
    with pytest.raises(Unsupported, match="NNCF cannot quantize this encoder: .") as caught:
        quantize.quantize_onnx(path, wrong)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == fp32.read_bytes()
