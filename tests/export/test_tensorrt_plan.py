"""TensorRT proper without TensorRT: what the bundle gets instead of an engine, and 8.6's flags."""

from __future__ import annotations

import hashlib
import json
import sys
import types
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from onnx import TensorProto, helper, save

from edgessl import gpu
from edgessl.backend import BuildPlan
from edgessl.errors import MissingDependency, Unsupported
from edgessl.export import tensorrt_engine, tensorrt_worker
from edgessl.export.tensorrt_engine import build, build_engine

BATCH = ((1, 4, 8), (2, 4, 8), (8, 4, 8))


def plan(precision: str, target: str, **options: Any) -> BuildPlan:
    return BuildPlan(target, precision, {"x": BATCH}, **options)


def relu(path: Path) -> Path:
    x, y = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4, 8]) for name in "xy"
    )
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "graph", [x], [y])
    domains = [helper.make_opsetid("", 17)]
    save(helper.make_model(graph, opset_imports=domains, ir_version=8), str(path))
    return path


def test_tensorrt_without_a_gpu_leaves_the_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "probe", lambda: gpu.GpuProbe(False, "the driver is on holiday"))
    said: list[str] = []
    path = relu(tmp_path / "r.onnx")
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    facts = build(path, bundle, plan("fp32", "tensorrt", workspace_mb=77, report=said.append))
    assert sorted(p.name for p in bundle.iterdir()) == ["build_plan.json", "model.onnx"]
    assert facts["engine"] == "built on the device"
    assert facts["reason"] == "the driver is on holiday."
    assert facts["opset"] == 17
    document = json.loads((bundle / "build_plan.json").read_text())
    assert document["profiles"] == {"x": [list(s) for s in BATCH]}
    assert document["precision"] == "fp32"
    assert document["workspace_mb"] == 77
    assert document["onnx"]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (
        "edgessl export BUNDLE --target tensorrt --precision fp32 -o"
        in document["build_on_the_device"]
    )
    assert said == ["leaving the engine to the device: the driver is on holiday"]


def test_tensorrt_missing_beside_a_gpu_leaves_the_plan_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = gpu.GpuDevice("Orin", "8.7", 7620)
    monkeypatch.setattr(gpu, "probe", lambda: gpu.GpuProbe(True, "", "12.6", (device,)))

    def missing(*_: Any) -> dict[str, Any]:
        raise MissingDependency("needs tensorrt: pip install 'edgessl[tensorrt]'")

    monkeypatch.setattr(tensorrt_engine, "_run_worker", missing)
    path = relu(tmp_path / "r.onnx")
    facts = build(path, tmp_path, plan("fp32", "tensorrt"))
    assert facts["engine"] == "built on the device"
    assert "edgessl[tensorrt]" in facts["reason"]
    with pytest.raises(MissingDependency):
        build(path, tmp_path, plan("fp32", "tensorrt-rtx"))
    with pytest.raises(Unsupported, match=r"Orin \(8.7\), not for 8.6"):
        build(path, tmp_path, plan("fp32", "tensorrt", compute_capabilities=("8.6",)))


def test_an_engine_of_tensorrt_is_for_the_gpu_that_is_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = gpu.GpuDevice("Orin", "8.7", 7620)
    monkeypatch.setattr(gpu, "probe", lambda: gpu.GpuProbe(True, "", "12.6", (device,)))

    def worker(_onnx: Path, _plan: BuildPlan, engine: Path, _sparse: bool) -> dict[str, Any]:
        engine.write_bytes(b"engine")
        return {"package": "tensorrt", "version": "10.3.0", "compute_capabilities": []}

    monkeypatch.setattr(tensorrt_engine, "_run_worker", worker)
    facts = build(relu(tmp_path / "r.onnx"), tmp_path, plan("fp32", "tensorrt"))
    assert facts["compute_capabilities"] == ["8.7"]
    assert facts["platform"].startswith(sys.platform)
    assert (tmp_path / "model.engine").read_bytes() == b"engine"
    assert not (tmp_path / "model.engine.partial").exists()
    assert not (tmp_path / "build_plan.json").exists()


class Layer:
    """A layer of TensorRT 8.6 with one output."""

    num_outputs = 1

    def __init__(self, kind: str, dtype: str) -> None:
        self.type, self.dtype, self.precision = kind, dtype, ""
        self.output_types: list[tuple[int, str]] = []

    def get_output(self, _index: int) -> Layer:
        return self

    def set_output_type(self, index: int, dtype: str) -> None:
        self.output_types.append((index, dtype))


class OldTensorRT(types.ModuleType):
    """The few calls of TensorRT 8.6 that a build makes: weakly typed, precision by flags."""

    __version__ = "8.6.1"

    class ILogger:
        WARNING = 2

    class NetworkDefinitionCreationFlag:
        EXPLICIT_BATCH = 0

    class MemoryPoolType:
        WORKSPACE = "workspace"

    class BuilderFlag:
        TF32, FP16, INT8 = "TF32", "FP16", "INT8"
        PREFER_PRECISION_CONSTRAINTS = "PREFER"
        SPARSE_WEIGHTS = "SPARSE"

    class LayerType:
        QUANTIZE, DEQUANTIZE, CAST = "quantize", "dequantize", "cast"

    class DataType:
        FLOAT = "float"

    def __init__(self) -> None:
        super().__init__("tensorrt")
        self.calls: list[tuple[Any, ...]] = []
        kinds = [("norm", "float"), ("matmul", "half"), ("dequantize", "float"), ("cast", "float")]
        self.layers = [Layer(kind, dtype) for kind, dtype in kinds]
        self.num_layers = len(self.layers)

    def get_layer(self, index: int) -> Layer:
        return self.layers[index]

    def __getattr__(self, name: str) -> Any:  # Builder, OnnxParser and what they make
        if name.startswith("__"):
            raise AttributeError(name)

        def call(*args: Any) -> Any:
            self.calls.append((name, *args))
            return {
                "parse_from_file": True,
                "build_serialized_network": b"an engine",
                "get_input": types.SimpleNamespace(name="x", shape=(-1, 4, 8)),
                "add_optimization_profile": 0,
            }.get(name, self)

        return call

    num_inputs = num_outputs = 1


@pytest.mark.parametrize(
    ("precision", "flags"),
    [
        ("fp32", [("clear_flag", "TF32")]),
        ("fp16", [("set_flag", "FP16"), ("set_flag", "PREFER")]),
        # what is not int8 is fp16
        ("int8", [("set_flag", "INT8"), ("set_flag", "FP16"), ("set_flag", "PREFER")]),
    ],
)
def test_tensorrt_8_takes_the_precision_from_flags(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str, flags: list[Any]
) -> None:
    old = OldTensorRT()
    monkeypatch.setitem(sys.modules, "tensorrt", old)
    job: dict[str, Any] = {
        "target": "tensorrt",
        "precision": precision,
        "profiles": {"x": BATCH},
        "workspace_mb": 64,
        "compute_capabilities": [],
        "sparse": False,
        "onnx": str(tmp_path / "model.onnx"),
        "engine": str(tmp_path / "model.engine"),
    }
    facts = tensorrt_worker.build(job)
    assert ("create_network", 1) in old.calls  # explicit batch
    assert [call for call in old.calls if call[0].endswith("_flag")] == flags
    assert ("set_memory_pool_limit", "workspace", 64 << 20) in old.calls
    assert ("set_shape", "x", *BATCH) in old.calls
    assert facts["strongly_typed"] is False
    held = [layer.type for layer in old.layers if layer.precision == "float"]
    assert held == ([] if precision == "fp32" else ["norm"])
    assert [layer.type for layer in old.layers if layer.output_types] == held
    assert (tmp_path / "model.engine").read_bytes() == b"an engine"
    tensorrt_worker.build({**job, "sparse": True})
    assert old.calls.count(("set_flag", "SPARSE")) == 1
    with pytest.raises(Unsupported, match="tensorrt 8.6.1 has no bf16"):
        tensorrt_worker.build({**job, "precision": "bf16"})


def test_missing_library_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    with pytest.raises(MissingDependency, match=r"pip install 'edgessl\[tensorrt-rtx\]'"):
        tensorrt_worker.build({"target": "tensorrt-rtx"})


@pytest.mark.skipif(find_spec("tensorrt") is not None, reason="TensorRT proper is here")
def test_errors_cross_the_process_as_themselves(tmp_path: Path) -> None:
    with pytest.raises(MissingDependency, match=r"pip install 'edgessl\[tensorrt\]'"):
        build_engine(relu(tmp_path / "r.onnx"), plan("fp32", "tensorrt"))
