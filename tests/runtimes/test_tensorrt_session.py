"""Opening a TensorRT bundle: TensorRT and CUDA are stand-ins, files and cache are real."""

from __future__ import annotations

import itertools
import sys
import types
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgessl import cache, gpu
from edgessl.backend import BuildPlan, RuntimeOptions
from edgessl.bundle import Manifest
from edgessl.errors import DeviceMismatch, MissingDependency, RecipeError, Unsupported
from edgessl.runtimes import tensorrt_backend, tensorrt_session
from edgessl.runtimes.tensorrt_session import open_backend
from edgessl.spec import EncoderSpec, Provenance, TensorSpec, TextSpec

GPU = gpu.GpuProbe(True, "", "12.6", (gpu.GpuDevice("Orin", "8.7", 7620),))
NO_GPU = gpu.GpuProbe(False, "cuInit fails: no CUDA-capable device is detected (CUDA error 100)")
INPUTS = ("input_ids", "attention_mask")
LOW, HIGH = (1, 1), (8, 16)


def spec() -> EncoderSpec:
    inputs = tuple(TensorSpec(name, "int64", ("batch", "sequence")) for name in INPUTS)
    outputs = (TensorSpec("sentence_embedding", "float32", ("batch", 2)),)
    return EncoderSpec("text", "bert", "mean", True, inputs, outputs, TextSpec(16))


def bundle(directory: Path, **compatibility: Any) -> Manifest:
    (directory / "model.onnx").write_bytes(b"onnx")
    (directory / "model.engine").write_bytes(b"bundled engine")
    facts = {
        "engine": "model.engine",
        "package": "tensorrt",
        "version": "10.3.0",
        "compute_capabilities": ["8.7"],
        "profiles": {name: [LOW, LOW, HIGH] for name in INPUTS},
        "workspace_mb": 32,
    }
    return Manifest(
        target="tensorrt",
        precision="fp32",
        encoder=spec(),
        provenance=Provenance("here"),
        variant="0" * 16,
        recipe={},
        compatibility=facts | compatibility,
        parity={},
        compute={},
    )


class Opened:
    def __init__(
        self, _trt: Any, _cudart: Any, engine: Any, dtypes: Any, facts: Any, streams: int
    ) -> None:
        assert engine is not None and dtypes == {"sentence_embedding": "float32"}
        self.facts, self.streams = facts, streams

    def describe(self) -> dict[str, Any]:
        return dict(self.facts)


class Device:
    """What the opener asked of TensorRT: the engines that it loaded, the plans that it built."""

    def __init__(self) -> None:
        self.loaded: list[bytes] = []
        self.plans: list[BuildPlan] = []
        self.broken: set[bytes] = set()
        self.numbers = itertools.count(1)

    def deserialize(self, data: bytes) -> object | None:
        self.loaded.append(data)
        return None if data in self.broken else object()

    def build(self, _onnx: Path, plan: BuildPlan) -> bytes:
        self.plans.append(plan)
        return b"built engine %d" % next(self.numbers)


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Device:
    made = Device()
    trt = types.ModuleType("tensorrt")
    trt.__dict__.update(
        __version__="10.3.0",
        ILogger=type("ILogger", (), {"ERROR": 1}),
        Runtime=lambda _logger: types.SimpleNamespace(deserialize_cuda_engine=made.deserialize),
    )
    for name, module in {
        "tensorrt": trt,
        "cuda": types.ModuleType("cuda"),
        "cuda.bindings": types.ModuleType("cuda.bindings"),
        "cuda.bindings.runtime": types.ModuleType("cuda.bindings.runtime"),
    }.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(gpu, "probe", lambda: GPU)
    monkeypatch.setattr(tensorrt_session, "resolve", lambda _name: made.build)
    monkeypatch.setattr(tensorrt_session, "TensorRTBackend", Opened)
    monkeypatch.setenv("EDGESSL_CACHE_DIR", str(tmp_path / "cache"))
    tensorrt_backend.logger.cache_clear()
    return made


def cached(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache" / "engines").glob("*.engine"))


def test_the_bundles_engine_is_opened(device: Device, tmp_path: Path) -> None:
    opened = open_backend(tmp_path, bundle(tmp_path), RuntimeOptions(device="gpu"))
    assert device.loaded == [b"bundled engine"] and device.plans == []
    facts = opened.describe()
    assert facts["runtime"] == "tensorrt" and facts["version"] == "10.3.0"
    assert facts["device"] == "Orin" and facts["compute_capability"] == "8.7"
    assert facts["engine"] == "bundle"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"version": "10.4.0"}, "version 10.4.0"),
        ({"compute_capabilities": ["8.6"]}, "compute capability 8.6"),
        ({"engine": "built on the device"}, "carries none"),
    ],
)
def test_another_engine_is_built_once(
    device: Device,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: dict[str, Any],
    why: str,
) -> None:
    manifest = bundle(tmp_path, **change)
    opened = open_backend(tmp_path, manifest, RuntimeOptions())
    said = capsys.readouterr().err
    assert "building the engine for this GPU, once" in said and why in said
    open_backend(tmp_path, manifest, RuntimeOptions())
    assert capsys.readouterr().err == ""
    assert device.loaded == [b"built engine 1"] * 2
    (plan,) = device.plans
    assert plan.target == "tensorrt" and plan.compute_capabilities == ("8.7",)
    assert plan.profiles["input_ids"] == (LOW, LOW, HIGH) and plan.workspace_mb == 32
    assert [str(path) for path in cached(tmp_path)] == [opened.describe()["engine"]]
    assert plan.timing is not None and plan.timing.parent == tmp_path / "cache" / "timing"


def test_a_bundled_engine_that_does_not_load_is_built_anew(
    device: Device, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    device.broken = {b"bundled engine"}
    open_backend(tmp_path, bundle(tmp_path), RuntimeOptions())
    assert device.loaded == [b"bundled engine", b"built engine 1"]
    assert "it does not load" in capsys.readouterr().err


def test_a_spoilt_cache_is_built_anew_once(device: Device, tmp_path: Path) -> None:
    manifest = bundle(tmp_path, engine="built on the device")
    open_backend(tmp_path, manifest, RuntimeOptions())
    device.broken = {b"built engine 1"}
    open_backend(tmp_path, manifest, RuntimeOptions())
    assert cache.get(cached(tmp_path)[0]) == b"built engine 2"
    device.broken |= {b"built engine 2", b"built engine 3"}
    with pytest.raises(DeviceMismatch, match="does not load .*--target onnx"):
        open_backend(tmp_path, manifest, RuntimeOptions())
    assert len(device.plans) == 3


@pytest.mark.parametrize("reason", ["cache=False", "nowhere to write"])
def test_an_engine_that_is_not_kept(
    device: Device, tmp_path: Path, capsys: pytest.CaptureFixture[str], reason: str
) -> None:
    manifest = bundle(tmp_path, engine="built on the device")
    options = RuntimeOptions(cache=reason != "cache=False")
    if options.cache:
        (tmp_path / "cache").write_text("in the way")
    for built in (1, 2):
        facts = open_backend(tmp_path, manifest, options).describe()
        assert facts["engine"] == "built for this session"
        assert device.loaded[-1] == b"built engine %d" % built
        said = capsys.readouterr().err
        assert ("cannot be kept" in said and "set EDGESSL_CACHE_DIR" in said) is options.cache
        assert ("for this session alone" in said) is not options.cache
    assert [plan.timing is not None for plan in device.plans] == [options.cache] * 2


def test_streams_by_mode(device: Device, tmp_path: Path) -> None:
    for options, streams in [
        (RuntimeOptions(), 1),
        (RuntimeOptions(mode="throughput"), 2),
        (RuntimeOptions(mode="throughput", streams=5), 5),
    ]:
        opened = open_backend(tmp_path, bundle(tmp_path), options)
        assert opened.streams == opened.describe()["streams"] == streams


def test_a_gpu_that_tensorrt_does_not_build_for(
    device: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> bytes:
        raise Unsupported("no engines for 9.0.")

    monkeypatch.setattr(device, "build", refuse)
    manifest = bundle(tmp_path, engine="built on the device")
    with pytest.raises(DeviceMismatch, match="no engines for 9.0. .*--target onnx"):
        open_backend(tmp_path, manifest, RuntimeOptions())
    assert cached(tmp_path) == []


def test_without_a_gpu_tensorrt_is_never_touched(
    device: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "probe", lambda: NO_GPU)
    with pytest.raises(DeviceMismatch) as caught:
        open_backend(tmp_path, bundle(tmp_path), RuntimeOptions())
    assert "no CUDA-capable device" in str(caught.value)
    assert "export BUNDLE --target onnx --precision fp32 -o NEW_BUNDLE" in str(caught.value)
    assert device.loaded == []
    bf16 = replace(bundle(tmp_path), precision="bf16")  # ONNX Runtime has no bf16
    with pytest.raises(DeviceMismatch, match="--target openvino --precision bf16"):
        open_backend(tmp_path, bf16, RuntimeOptions())


def test_the_cpu_is_refused(device: Device, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="'cpu': tensorrt bundles run on an NVIDIA GPU only"):
        open_backend(tmp_path, bundle(tmp_path), RuntimeOptions(device="cpu"))


def test_missing_libraries_name_the_extra(
    device: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", None)
    with pytest.raises(MissingDependency, match=r"needs cuda.*edgessl\[tensorrt\]"):
        open_backend(tmp_path, bundle(tmp_path), RuntimeOptions())
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    rtx = replace(bundle(tmp_path), target="tensorrt-rtx")
    with pytest.raises(MissingDependency, match=r"edgessl\[tensorrt-rtx\]"):
        open_backend(tmp_path, rtx, RuntimeOptions())


@pytest.mark.gpu
@pytest.mark.parametrize("target", ["tensorrt", "tensorrt-rtx"])
def test_a_real_gpu_agrees_with_numpy(
    target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not gpu.probe().usable:
        pytest.skip(gpu.probe().reason)
    trt = pytest.importorskip(target.replace("-", "_"))
    pytest.importorskip("cuda.bindings.runtime")
    onnx = pytest.importorskip("onnx")
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(100, 2)).astype(np.float32)
    kinds, make = onnx.TensorProto, onnx.helper
    nodes = [
        make.make_node("Mul", ["input_ids", "attention_mask"], ["kept"]),
        make.make_node("Gather", ["weights", "kept"], ["rows"]),
        make.make_node("ReduceMean", ["rows"], ["sentence_embedding"], axes=[1], keepdims=0),
    ]
    graph = make.make_graph(
        nodes,
        "graph",
        [make.make_tensor_value_info(n, kinds.INT64, ["b", "s"]) for n in INPUTS],
        [make.make_tensor_value_info("sentence_embedding", kinds.FLOAT, ["b", 2])],
        [onnx.numpy_helper.from_array(weights, "weights")],
    )
    manifest = replace(bundle(tmp_path, engine="built on the device"), target=target)
    onnx.save(
        make.make_model(graph, opset_imports=[make.make_opsetid("", 17)], ir_version=8),
        str(tmp_path / "model.onnx"),
    )
    monkeypatch.setenv("EDGESSL_CACHE_DIR", str(tmp_path / "cache"))
    opened = open_backend(tmp_path, manifest, RuntimeOptions())
    for rows, length in [(2, 3), (8, 16), (1, 1)]:
        inputs = {name: rng.integers(0, 100, (rows, length)) for name in INPUTS}
        inputs["attention_mask"] %= 2
        want = weights[inputs["input_ids"] * inputs["attention_mask"]].mean(1)
        got = opened.run(inputs)["sentence_embedding"]
        np.testing.assert_allclose(got, want, atol=1e-5)
    assert opened.describe()["version"] == trt.__version__
    opened.close()
