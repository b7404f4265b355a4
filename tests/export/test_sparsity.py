"""2:4 weights in ONNX graphs: found along the right axis, and made known to TensorRT's builder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgessl import two_four
from edgessl.backend import BuildPlan
from edgessl.export import sparsity, tensorrt_engine, tensorrt_graph

Array = npt.NDArray[Any]
PROFILES: dict[str, Any] = {"x": ((1, 4, 8), (2, 4, 8), (8, 4, 8))}


def sparse(inputs: int = 8, outputs: int = 8) -> Array:
    """``(inputs, outputs)`` with the first and the last of each 4 inputs."""
    weights = np.random.default_rng(0).normal(size=(inputs, outputs)).astype(np.float32)
    weights[1::4], weights[2::4] = 0, 0
    return weights


DENSE = np.ones((8, 8), np.float32)


def model(nodes: list[onnx.NodeProto], weights: dict[str, Array]) -> onnx.ModelProto:
    """From ``x`` ``(batch, 4, 8)`` to ``y``."""
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4, 8])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def product(weights: Array) -> onnx.ModelProto:
    return model([helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": weights})


def found(one: onnx.ModelProto) -> tuple[int, int]:
    facts = sparsity.pattern(one)
    return facts["sparse"], facts["matrices"]


def test_the_pattern() -> None:
    assert two_four.holds(sparse()) and two_four.holds(np.zeros((4, 3)))
    assert not two_four.holds(sparse().T)
    three = sparse()
    three[1, 5] = 1e-30
    assert not two_four.holds(three)
    assert not two_four.holds(sparse()[:6])  # no whole groups


def test_along_the_axis_that_is_summed_over() -> None:
    assert found(product(sparse())) == (1, 1)
    assert found(product(sparse().T)) == (0, 1)
    for turned, weights in ((0, sparse()), (1, sparse().T.copy())):
        node = helper.make_node("Gemm", ["x", "w"], ["y"], transB=turned)
        assert found(model([node], {"w": weights})) == (1, 1)
        node = helper.make_node("Gemm", ["x", "w"], ["y"], transB=1 - turned)
        assert found(model([node], {"w": weights})) == (0, 1)
    nodes = [
        helper.make_node("Transpose", ["w"], ["t"], perm=[1, 0]),
        helper.make_node("MatMul", ["x", "t"], ["y"]),
    ]
    assert found(model(nodes, {"w": sparse().T.copy()})) == (1, 1)
    assert found(model(nodes, {"w": sparse()})) == (0, 1)


def test_through_casts_and_codes() -> None:
    codes = np.rint(sparse() * 40).clip(-127, 127).astype(np.int8)
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "scale", "zero"], ["d"], axis=1),
        helper.make_node("MatMul", ["x", "d"], ["y"]),
    ]
    rest: dict[str, Array] = {"scale": np.full(8, 0.025, np.float32), "zero": np.zeros(8, np.int8)}
    assert found(model(nodes, {"w": codes, **rest})) == (1, 1)
    assert found(model(nodes, {"w": codes | 1, **rest})) == (0, 1)
    nodes = [
        helper.make_node("Cast", ["w"], ["c"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["x", "c"], ["y"]),
    ]
    assert found(model(nodes, {"w": sparse().astype(np.float16)})) == (1, 1)


def test_only_constant_matrices_count() -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("MatMul", ["a", "w"], ["b"]),  # shared
        helper.make_node("MatMul", ["b", "dense"], ["c"]),
        helper.make_node("Transpose", ["c"], ["t"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["c", "t"], ["s"]),  # activations
        helper.make_node("MatMul", ["s", "c"], ["y"]),
    ]
    assert found(model(nodes, {"w": sparse(), "dense": DENSE})) == (2, 3)


def test_facts_of_a_graph(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(product(sparse()), path)
    facts = tensorrt_graph.inspect(path, "fp32")
    assert facts["sparse_weights"] == {"sparse": 1, "matrices": 1}
    onnx.save(product(DENSE), path)
    assert "sparse_weights" not in tensorrt_graph.inspect(path, "fp32")


@pytest.mark.parametrize(
    ("weights", "knows", "told"),
    [(sparse(), True, True), (DENSE, True, False), (DENSE, False, True)],
)
def test_who_looks_for_the_pattern(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weights: Array, knows: bool, told: bool
) -> None:
    asked: list[bool] = []

    def worker(_onnx: Path, _plan: BuildPlan, engine: Path, flag: bool) -> dict[str, Any]:
        asked.append(flag)
        engine.write_bytes(b"engine")
        return {}

    monkeypatch.setattr(tensorrt_engine, "_run_worker", worker)
    if not knows:  # a device without the onnx package: TensorRT looks for itself
        monkeypatch.setattr(tensorrt_engine, "inspect", lambda *_: {})
    path = tmp_path / "graph.onnx"
    onnx.save(product(weights), path)
    plan = BuildPlan("tensorrt-rtx", "fp32", PROFILES)
    (tmp_path / "bundle").mkdir()
    tensorrt_engine.build(path, tmp_path / "bundle", plan)
    tensorrt_engine.build_engine(path, plan)
    assert asked == [told, told]


@pytest.mark.parametrize("kind", [np.float16, np.float32])
def test_a_real_engine(tmp_path: Path, kind: Any) -> None:
    pytest.importorskip("tensorrt_rtx")
    nodes = [
        helper.make_node("Cast", ["x"], ["h"], to=helper.np_dtype_to_tensor_dtype(np.dtype(kind))),
        helper.make_node("MatMul", ["h", "w"], ["p"]),
        helper.make_node("Cast", ["p"], ["y"], to=TensorProto.FLOAT),
    ]
    path = tmp_path / "graph.onnx"
    onnx.save(model(nodes, {"w": sparse().astype(kind)}), path)
    (tmp_path / "bundle").mkdir()
    facts = tensorrt_engine.build(
        path, tmp_path / "bundle", BuildPlan("tensorrt-rtx", "fp32", PROFILES)
    )
    assert facts["sparse_weights"] == {"sparse": 1, "matrices": 1}
    assert (tmp_path / "bundle" / "model.engine").stat().st_size > 1_000
