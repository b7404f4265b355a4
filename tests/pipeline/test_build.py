"""From a checkpoint to every bundle that this machine can build, and back to the vectors."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from safetensors.numpy import load_file, save_file

import edgessl
from edgessl import bundle, gpu, isa, parity, pipeline, target
from edgessl.calibrate import quantize
from edgessl.errors import OutputError, ParityError, RecipeError, Unsupported
from edgessl.export import describe, onnx_graph
from edgessl.recipe import Recipe
from tests.bundles import Bundles, files_of

CPU = [
    ("bert", "onnx", "fp32"),
    ("mae", "onnx", "fp32"),
    ("mae", "onnx", "fp16"),
    ("bert", "onnx", "int8"),
    ("bert", "openvino", "fp32"),
    ("bert", "openvino", "fp16"),
    ("mae", "openvino", "bf16"),
    ("bert", "openvino", "int8"),
    ("mae", "openvino", "int8"),
    ("mae", "onnx", "int8-dynamic"),
    ("bert", "onnx", "int8-weight-only"),
    ("mae", "onnx", "int4-weight-only"),
    ("bert", "openvino", "int8-weight-only"),
    ("mae", "openvino", "int4-weight-only"),
]
GPU = [
    ("bert", "tensorrt", "bf16"),
    ("bert", "tensorrt-rtx", "int8"),
    ("bert", "tensorrt-rtx", "int4-weight-only"),
    ("mae", "tensorrt", "fp16"),
]


def test_every_precision_of_the_cpu_targets_is_built() -> None:
    pairs = {(key, p) for key in ("onnx", "openvino") for p in target.TARGETS[key].precisions}
    assert {(key, precision) for _, key, precision in CPU} == pairs


def check_facts(bundles: Bundles, model: str, key: str, precision: str) -> bundle.Manifest:
    built = bundles.get(model, key, precision)
    manifest = bundle.read(built.path)
    assert manifest == built.manifest
    assert bundle.check_files(built.path, manifest) == []
    assert set(manifest.files) == files_of(model, key)
    assert (manifest.target, manifest.precision) == (key, precision)
    assert manifest.provenance.source == bundles.models[model].name
    weights = bundle.file_entry(bundles.models[model] / "model.safetensors")
    assert manifest.provenance.weights_sha256 == weights.sha256
    assert {"edgessl", "torch", "onnx", "numpy"} <= set(manifest.provenance.versions)
    assert manifest.parity["within"] and built.parity.within
    bound = manifest.parity["bound"]
    assert (bound["cosine_mean"], bound["cosine_min"]) == parity.BOUNDS[precision]
    assert manifest.parity["cosine_mean"] >= bound["cosine_mean"]
    assert manifest.parity["rows"] == (8 if model == "mae" else 15)
    assert manifest.compute["parameters"] > 1000 and manifest.compute["flops"] > 1000
    if precision == "int8":
        assert manifest.calibration is not None and manifest.calibration["samples"] == 50
        assert manifest.recipe["calibration"] == bundles.calibration[model].name
    else:
        assert manifest.calibration is None
    assert set(manifest.recipe) == set(Recipe().to_json())
    text = (built.path / bundle.MANIFEST).read_text(encoding="utf-8")
    assert str(bundles.folder) not in text and os.getcwd() not in text
    return manifest


@pytest.mark.parametrize(("model", "key", "precision"), CPU)
def test_cpu_bundles(bundles: Bundles, model: str, key: str, precision: str) -> None:
    manifest = check_facts(bundles, model, key, precision)
    if key == "onnx":
        assert 17 <= manifest.compatibility["opset"] <= 21
    else:
        hint = {"fp16": "f16", "bf16": "bf16"}.get(precision, "f32")
        assert manifest.compatibility["inference_precision"] == hint
    assert ("graph" in manifest.compatibility) == precision.startswith("int")
    assert ("int8" in manifest.compatibility) == (precision in ("int8", "int8-dynamic"))
    assert "stand_in" not in manifest.parity["ran"]

    path = bundles.get(model, key, precision).path
    reference = parity.read(path / bundle.REFERENCE)
    with edgessl.load(path) as session:
        for golden in reference:
            inputs = session.prepare(golden.items)
            for name, array in golden.inputs.items():
                np.testing.assert_array_equal(inputs[name], array)
            vectors = session.embed(golden.items)
            (expected,) = golden.outputs.values()
            if precision == "fp32":
                np.testing.assert_allclose(vectors, expected, atol=1e-4)
            assert (parity.cosine(vectors, expected) >= parity.BOUNDS[precision][1]).all()


@pytest.mark.parametrize(("model", "key", "precision"), GPU)
def test_gpu_bundles_without_a_gpu(
    bundles: Bundles, model: str, key: str, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if key == "tensorrt-rtx":
        pytest.importorskip("tensorrt_rtx")
    monkeypatch.setattr(gpu, "probe", lambda: gpu.GpuProbe(False, "no GPU in this test"))
    manifest = check_facts(bundles, model, key, precision)
    stand_in = "openvino" if precision == "bf16" else "onnx"
    assert f"run by {stand_in}" in manifest.parity["ran"]["stand_in"]
    assert manifest.compatibility["profiles"].keys() == {s.name for s in manifest.encoder.inputs}
    if key == "tensorrt":
        path = bundles.get(model, key, precision).path
        plan = json.loads((path / "build_plan.json").read_text())
        assert plan["onnx"]["sha256"] == manifest.files["model.onnx"].sha256
        assert plan["profiles"] == manifest.compatibility["profiles"]
    assert "int8" not in manifest.compatibility  # a GPU's sums are exact
    if precision == "int8":
        assert manifest.compatibility["opset"] == 17  # TensorRT 8.6 reads it too
        placement = manifest.compatibility["int8_placement"]
        assert placement["on_int8_inputs"] >= 12
        layers = describe.describe_onnx(bundles.get(model, key, precision).path / "model.onnx")
        assert {layer["precision"] for layer in layers["layers"]} == {"int8", "fp16"}


def test_variant_names_the_vector_space(bundles: Bundles, tmp_path: Path) -> None:
    def variant(model: str, key: str, precision: str) -> str:
        return bundles.get(model, key, precision).manifest.variant

    assert variant("bert", "onnx", "fp32") == variant("bert", "openvino", "fp32")
    names = {
        variant("bert", "onnx", "fp32"),
        variant("bert", "openvino", "fp16"),
        variant("bert", "onnx", "int8"),
        variant("bert", "openvino", "int8"),
        variant("bert", "onnx", "int8-weight-only"),
        variant("bert", "openvino", "int8-weight-only"),
        variant("mae", "onnx", "fp32"),
    }
    assert len(names) == 7
    changed = edgessl.build(bundles.models["bert"], "onnx", tmp_path / "bundle", pooling="cls")
    assert changed.manifest.variant not in names
    assert changed.manifest.recipe["pooling"] == changed.manifest.encoder.pooling == "cls"


def test_report_and_quiet(
    bundles: Bundles, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    said: list[str] = []
    options = bundles.quantize("bert", "int8")
    recipe = Recipe(model=str(bundles.models["bert"]), target="onnx", precision="int8", **options)
    capfd.readouterr()
    pipeline.build(recipe, tmp_path / "bundle", report=said.append)
    assert capfd.readouterr() == ("", "")
    steps = ["loading", "exporting", "quantizing", "building", "checking"]
    words = dict.fromkeys(line.split()[0] for line in said)
    assert [word for word in words if word in steps] == steps


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"target": "onx"}, RecipeError, r"unknown target 'onx'\. Did you mean 'onnx'\?"),
        ({"precision": "int9"}, RecipeError, r"unknown precision 'int9'\. Did you mean 'int8'\?"),
        ({"precision": "bf16"}, Unsupported, "target onnx has no bf16.*--target openvino"),
        ({"precision": "int8", "method": "mse2"}, RecipeError, "unknown method 'mse2'"),
        ({"precision": "int8", "max_drop": "much"}, RecipeError, "unknown metric 'much'"),
        ({"precision": "int8", "calibration": "gone.txt"}, RecipeError, "gone.txt.*no such file"),
        ({"pooling": "maen"}, RecipeError, "unknown pooling"),
        ({"max_length": 999}, RecipeError, "--max-length 999"),
    ],
)
def test_refused_and_nothing_left(
    bundles: Bundles,
    tmp_path: Path,
    options: dict[str, Any],
    error: type[Exception],
    message: str,
) -> None:
    with pytest.raises(error, match=message):
        edgessl.build(
            bundles.models["bert"], options.pop("target", "onnx"), tmp_path / "bundle", **options
        )
    assert list(tmp_path.iterdir()) == []


def test_int8_for_the_processors_asked_for(
    bundles: Bundles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = bundles.get("bert", "onnx", "fp32").path

    def weights(name: str, chosen: str) -> str:
        options: dict[str, Any] = {"precision": "int8-dynamic", "isa": chosen}
        built = edgessl.build(source, "onnx", tmp_path / name, **options)
        facts = built.manifest.compatibility
        assert facts["graph"]["reduced"] == (facts["int8"]["isa"] == "any")
        variants.add(built.manifest.variant)
        return str(facts["int8"]["weights"])

    variants: set[str] = set()
    assert weights("vnni", "vnni") == isa.FULL
    assert weights("any", "any") == isa.REDUCED
    old = isa.Processor("an old one", "x86_64", {"avx2": True, "avx512_vnni": False})
    monkeypatch.setattr(isa, "this_processor", lambda: old)
    assert weights("auto-old", "auto") == isa.REDUCED
    new = isa.Processor("a new one", "x86_64", {"avx2": True, "avx512_vnni": True})
    monkeypatch.setattr(isa, "this_processor", lambda: new)
    assert weights("auto-new", "auto") == isa.FULL
    assert len(variants) == 2


@pytest.mark.parametrize("calibrated", [False, True])
def test_what_overflows_stays_fp32_for_gpus(
    bundles: Bundles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calibrated: bool
) -> None:
    monkeypatch.setattr(gpu, "probe", lambda: gpu.GpuProbe(False, "no GPU in this test"))
    model = shutil.copytree(bundles.models["bert"], tmp_path / "bert")
    tensors = load_file(model / "model.safetensors")
    for part, factor in (("self.value", 2.0**17), ("output.dense", 2.0**-17)):
        (name,) = [n for n in tensors if f"layer.0.attention.{part}.weight" in n]
        tensors[name] = tensors[name] * np.float32(factor)
    save_file(tensors, model / "model.safetensors", {"format": "pt"})
    options = bundles.quantize("bert", "int8") if calibrated else {}

    built = edgessl.build(model, "tensorrt", tmp_path / "bundle", precision="fp16", **options)

    kept = built.manifest.compatibility["graph"]["kept_in_fp32"]
    assert any("layer.0.attention.self.value" in line for line in kept)
    assert not any("layer.1" in line for line in kept)
    (note,) = built.manifest.compatibility["notes"]
    assert kept[0] in note
    assert (built.manifest.calibration is not None) == calibrated
    layers = describe.describe_onnx(built.path / "model.onnx")["layers"]
    assert {layer["precision"] for layer in layers} == {"fp32", "fp16"}


def test_statistics_outlive_ctrl_c_and_nothing_else(
    bundles: Bundles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, options = bundles.get("bert", "onnx", "fp32").path, bundles.quantize("bert", "int8")
    end: list[type[BaseException]] = []
    seen: list[bool] = []

    def stopped(*_: Any, resume: Path, **__: Any) -> dict[str, Any]:
        seen.append(resume.exists())
        resume.write_bytes(b"statistics")
        raise end.pop()("stopped")

    monkeypatch.setattr(quantize, "static", stopped)
    for error in (KeyboardInterrupt, Unsupported, Unsupported):
        end.append(error)
        with pytest.raises(error):
            edgessl.build(source, "onnx", tmp_path / "new" / "b", precision="int8", **options)
        left = [path.name for path in tmp_path.rglob("*") if path.is_file()]
        assert left == ([".b.calibration.npz"] if error is KeyboardInterrupt else [])
    assert seen == [False, True, False]


def perturbed(onnx_path: Path, directory: Path, plan: Any) -> dict[str, Any]:
    """A builder that loses one bias."""
    model = onnx.load(str(onnx_path))
    biases = [t for t in model.graph.initializer if t.name.endswith("LayerNorm.bias")]
    biases[-1].raw_data = np.zeros(biases[-1].dims, np.float32).tobytes()
    onnx.save(model, str(directory / "model.onnx"))
    return {"opset": 17}


def test_wrong_vectors_are_not_written(
    bundles: Bundles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, model = tmp_path / "bundle", bundles.get("bert", "onnx", "fp32").path
    monkeypatch.setattr(onnx_graph, "build", perturbed)
    with pytest.raises(ParityError, match=r"parity of onnx fp32 is outside .*--force") as caught:
        edgessl.build(model, "onnx", path)
    assert caught.value.exit_code == 1
    assert list(tmp_path.iterdir()) == []
    forced = edgessl.build(model, "onnx", path, force=True)
    assert not forced.parity.within
    assert bundle.read(path).parity["within"] is False
    assert bundle.read(path).parity["cosine_min"] < 0.9999


def test_builder_that_fails_leaves_nothing(
    bundles: Bundles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(onnx_path: Path, directory: Path, plan: Any) -> dict[str, Any]:
        (directory / "half.bin").write_bytes(b"half")
        raise Unsupported("not today")

    source = bundles.get("bert", "onnx", "fp32").path
    monkeypatch.setattr(onnx_graph, "build", fail)
    with pytest.raises(Unsupported, match="not today"):
        edgessl.build(source, "onnx", tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


def test_overwrite(bundles: Bundles, tmp_path: Path) -> None:
    path, model = tmp_path / "bundle", bundles.get("bert", "onnx", "fp32").path
    first = edgessl.build(model, "onnx", path)
    stamp = (path / bundle.MANIFEST).stat().st_mtime_ns
    with pytest.raises(OutputError, match="bundle"):
        edgessl.build(model, "openvino", path)
    assert (path / bundle.MANIFEST).stat().st_mtime_ns == stamp
    second = edgessl.build(model, "openvino", path, overwrite=True)
    assert (first.manifest.target, second.manifest.target) == ("onnx", "openvino")
    assert bundle.check_files(path, bundle.read(path)) == []
    assert not (path / "model.onnx").exists()
    assert list(tmp_path.iterdir()) == [path]
