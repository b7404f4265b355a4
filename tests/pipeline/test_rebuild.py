"""Bundle -> bundle for another target: no torch, and the vectors stay what they were."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import edgessl
from edgessl import bundle, encoders, gpu, parity
from edgessl.errors import BundleError, RecipeError, Unsupported
from tests.bundles import Bundles, files_of


@pytest.fixture(autouse=True)
def no_torch(monkeypatch: pytest.MonkeyPatch, bundles: Bundles) -> None:
    """All that is built from a checkpoint here is built before; a rebuild must not need one."""
    for model, precision in (("bert", "fp32"), ("bert", "int8"), ("mae", "fp32")):
        bundles.get(model, "onnx", precision)
    for precision in ("fp32", "int8"):
        bundles.get("bert", "openvino", precision)
    for target, precision in (
        ("tensorrt", "int8"),
        ("onnx", "fp16"),
        ("onnx", "int8-weight-only"),
        ("onnx", "int8-dynamic"),
    ):
        bundles.get("bert", target, precision)

    def refuse(*_: Any) -> None:
        raise AssertionError("a bundle was opened as a checkpoint")

    monkeypatch.setattr(encoders, "load", refuse)
    monkeypatch.setattr(gpu, "probe", lambda: gpu.GpuProbe(False, "no GPU in this test"))


@pytest.mark.parametrize("model", ["bert", "mae"])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_fp32_onnx_to_openvino(
    bundles: Bundles, tmp_path: Path, model: str, precision: str
) -> None:
    source = bundles.get(model, "onnx", "fp32")
    options = bundles.quantize(model, precision)
    built = edgessl.build(
        source.path, "openvino", tmp_path / "bundle", precision=precision, **options
    )
    manifest = built.manifest
    assert set(manifest.files) == files_of(model, "openvino")
    assert (manifest.precision, manifest.parity["within"]) == (precision, True)
    assert (manifest.variant == source.manifest.variant) == (precision == "fp32")
    assert manifest.encoder == source.manifest.encoder
    assert manifest.compute == source.manifest.compute
    for field in ("source", "weights_sha256"):
        assert getattr(manifest.provenance, field) == getattr(source.manifest.provenance, field)
    # The reference is still the encoder's own, not the bundle's that it was built from.
    old, new = (parity.read(path / bundle.REFERENCE) for path in (source.path, built.path))
    for before, after in zip(old, new, strict=True):
        assert all((before.outputs[k] == after.outputs[k]).all() for k in before.outputs)


def test_the_same_variant_by_either_way(bundles: Bundles, tmp_path: Path) -> None:
    direct = bundles.get("bert", "openvino", "int8").manifest
    source = bundles.get("bert", "onnx", "fp32").path
    options = bundles.quantize("bert", "int8")
    built = edgessl.build(source, "openvino", tmp_path / "b", precision="int8", **options)
    assert built.manifest.variant == direct.variant
    assert built.manifest.calibration == direct.calibration


@pytest.mark.parametrize(
    ("key", "precision"),
    [("onnx", "fp16"), ("onnx", "int8-weight-only"), ("tensorrt", "bf16"), ("tensorrt", "fp16")],
)
def test_fp32_onnx_to_every_precision(
    bundles: Bundles, tmp_path: Path, key: str, precision: str
) -> None:
    source = bundles.get("bert", "onnx", "fp32")
    built = edgessl.build(source.path, key, tmp_path / "bundle", precision=precision)
    manifest = built.manifest
    assert (manifest.precision, manifest.parity["within"]) == (precision, True)
    if f"bert-{key}-{precision}" in bundles.built:
        direct = bundles.get("bert", key, precision).manifest
        assert manifest.variant == direct.variant
        assert manifest.files["model.onnx"] == direct.files["model.onnx"]


def test_precision_and_variant_are_carried_over(bundles: Bundles, tmp_path: Path) -> None:
    source = bundles.get("bert", "tensorrt", "int8")
    for key in ("tensorrt", "onnx", "openvino"):
        built = edgessl.build(source.path, key, tmp_path / key)
        manifest = built.manifest
        assert (manifest.precision, manifest.variant) == ("int8", source.manifest.variant)
        assert manifest.calibration == source.manifest.calibration
        assert manifest.compatibility["graph"] == source.manifest.compatibility["graph"]
        assert set(manifest.files) == files_of("bert", key)
        if key == "tensorrt":  # for others the vector is given twice: see edgessl.ecosystem
            assert manifest.files["model.onnx"] == source.manifest.files["model.onnx"]
    plan = json.loads((tmp_path / "tensorrt" / "build_plan.json").read_text())
    assert plan["precision"] == "int8"
    # and on from there: the plan of the first is not carried into the next
    again = edgessl.build(tmp_path / "tensorrt", "onnx", tmp_path / "again")
    assert "build_plan.json" not in again.manifest.files
    assert again.manifest.variant == source.manifest.variant


@pytest.mark.parametrize("key", ["onnx", "openvino", "tensorrt"])
def test_nothing_from_an_ir(bundles: Bundles, tmp_path: Path, key: str) -> None:
    source = bundles.get("bert", "openvino", "fp32").path
    with pytest.raises(Unsupported, match=r"without an ONNX \(target openvino\)"):
        edgessl.build(source, key, tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("precision", ["int8", "int8-weight-only", "int8-dynamic"])
def test_a_quantized_graph_is_for_its_target(
    bundles: Bundles, tmp_path: Path, precision: str
) -> None:
    source = bundles.get("bert", "onnx", precision)
    again = edgessl.build(source.path, "onnx", tmp_path / "again")
    assert again.manifest.files["model.onnx"] == source.manifest.files["model.onnx"]
    for name in ("graph", "int8", "notes"):
        facts = again.manifest.compatibility.get(name)
        assert facts == source.manifest.compatibility.get(name)
    key = "tensorrt" if precision != "int8-dynamic" else "openvino"
    wanted = f"holds {precision} made for onnx" if key == "tensorrt" else "openvino has no"
    with pytest.raises(Unsupported, match=wanted):
        edgessl.build(source.path, key, tmp_path / "bundle")


@pytest.mark.parametrize(
    ("have", "key", "precision"),
    [("fp16", "onnx", "fp32"), ("int8", "onnx", "fp32"), ("int8", "openvino", "fp16")],
)
def test_precisions_that_need_the_checkpoint(
    bundles: Bundles, tmp_path: Path, have: str, key: str, precision: str
) -> None:
    source = bundles.get("bert", "onnx", have).path
    with pytest.raises(Unsupported, match=f"holds {have}; .* from the checkpoint, or from"):
        edgessl.build(source, key, tmp_path / "bundle", precision=precision)


@pytest.mark.parametrize(
    "options", [{"pooling": "cls"}, {"normalize": True}, {"max_length": 5}, {"revision": "main"}]
)
def test_what_is_fixed_in_a_bundle(
    bundles: Bundles, tmp_path: Path, options: dict[str, Any]
) -> None:
    source = bundles.get("bert", "onnx", "fp32").path
    with pytest.raises(RecipeError, match="fixed in the bundle"):
        edgessl.build(source, "openvino", tmp_path / "bundle", **options)
    with pytest.raises(RecipeError, match="--features: the bundle .* was exported without"):
        edgessl.build(source, "openvino", tmp_path / "bundle", features=True)


def test_a_damaged_bundle_is_no_source(bundles: Bundles, tmp_path: Path) -> None:
    copy = shutil.copytree(bundles.get("bert", "onnx", "fp32").path, tmp_path / "copy")
    content = (copy / "model.onnx").read_bytes()
    (copy / "model.onnx").write_bytes(content[:-1] + b"?")
    with pytest.raises(BundleError, match="model.onnx: changed"):
        edgessl.build(copy, "openvino", tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()
