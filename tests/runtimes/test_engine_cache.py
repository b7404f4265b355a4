"""Which engine a device takes, and where it keeps its own: pure functions, no GPU."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgessl.bundle import Manifest
from edgessl.errors import BundleError
from edgessl.runtimes.engine_cache import Here, misfit, path_of, plan_of, timing_of
from edgessl.spec import EncoderSpec, ImageSpec, Provenance

ORIN = Here("tensorrt", "10.3.0", "8.7", "linux-aarch64")
PROFILES = {"pixel_values": [[1, 3, 4, 4], [8, 3, 4, 4], [16, 3, 4, 4]]}
FITS: dict[str, Any] = {
    "engine": "model.engine",
    "package": "tensorrt",
    "version": "10.3.0",
    "compute_capabilities": ["8.7"],
    "platform": "linux-aarch64",
    "profiles": PROFILES,
    "workspace_mb": 256,
}


def manifest(compatibility: dict[str, Any]) -> Manifest:
    return Manifest(
        target="tensorrt",
        precision="fp16",
        encoder=EncoderSpec("image", "vit", "mean", True, (), (), ImageSpec(4, 4)),
        provenance=Provenance("here"),
        variant="0" * 16,
        recipe={},
        compatibility=compatibility,
        parity={},
        compute={},
    )


def test_the_bundles_own_engine_fits() -> None:
    assert misfit(FITS, ORIN) is None


def test_an_engine_for_rtx_fits_every_gpu_it_names_on_any_platform() -> None:
    facts = {**FITS, "package": "tensorrt_rtx", "compute_capabilities": ["8.6", "12.0"]}
    del facts["platform"]
    assert misfit(facts, Here("tensorrt_rtx", "10.3.0", "12.0", "win32-AMD64")) is None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"engine": "built on the device"}, "carries none"),
        ({"package": "tensorrt_rtx"}, "package tensorrt_rtx, not tensorrt"),
        ({"version": "10.3.1"}, "version 10.3.1, not 10.3.0"),
        ({"compute_capabilities": ["8.6", "8.9"]}, "8.6, 8.9, not 8.7"),
        ({"platform": "linux-x86_64"}, "linux-x86_64, not linux-aarch64"),
    ],
)
def test_why_it_does_not_fit(change: dict[str, Any], reason: str) -> None:
    assert reason in (misfit({**FITS, **change}, ORIN) or "")


def test_the_plan_comes_from_the_manifest() -> None:
    plan = plan_of(manifest(FITS), ORIN)
    assert plan.target == "tensorrt" and plan.precision == "fp16"
    assert plan.profiles == {"pixel_values": ((1, 3, 4, 4), (8, 3, 4, 4), (16, 3, 4, 4))}
    assert plan.workspace_mb == 256
    assert plan.compute_capabilities == ("8.7",)


@pytest.mark.parametrize("damage", [{"profiles": None}, {"profiles": {"x": [1]}}, {}])
def test_a_manifest_without_a_plan(damage: dict[str, Any]) -> None:
    facts = {**FITS, **damage}
    if not damage:
        del facts["workspace_mb"]
    with pytest.raises(BundleError, match="does not say how to build"):
        plan_of(manifest(facts), ORIN)


def test_whatever_changes_the_engine_changes_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGESSL_CACHE_DIR", str(tmp_path))
    base, other = tmp_path / "base.onnx", tmp_path / "other.onnx"
    base.write_bytes(b"base")
    other.write_bytes(b"other")
    plan = plan_of(manifest(FITS), ORIN)
    low, optimal, _ = plan.profiles["pixel_values"]
    wider: dict[str, Any] = {"pixel_values": (low, optimal, (32, 3, 4, 4))}
    paths = [
        path_of(base, plan, ORIN),
        path_of(other, plan, ORIN),
        path_of(base, replace(plan, profiles=wider), ORIN),
        path_of(base, replace(plan, precision="int8"), ORIN),
        path_of(base, replace(plan, workspace_mb=1), ORIN),
        path_of(base, plan, replace(ORIN, version="10.4.0")),
        path_of(base, plan, replace(ORIN, package="tensorrt_rtx")),
        path_of(base, plan, replace(ORIN, compute_capability="8.9")),
        path_of(base, plan, replace(ORIN, platform="linux-x86_64")),
    ]
    assert len(set(paths)) == len(paths)
    assert {path.parent for path in paths} == {tmp_path / "engines"}
    assert paths[0].name.startswith(hashlib.sha256(b"base").hexdigest()[:16] + "-")
    assert paths[0].name.endswith("-tensorrt-10.3.0-linux-aarch64-sm87.engine")
    other.write_bytes(b"base")  # the content counts, not where it is
    assert path_of(other, plan_of(manifest(FITS), ORIN), ORIN) == paths[0]


def test_no_onnx_to_build_from(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="model.onnx: the engine is built from it"):
        path_of(tmp_path / "model.onnx", plan_of(manifest(FITS), ORIN), ORIN)


def test_timings_are_of_one_tensorrt_on_one_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGESSL_CACHE_DIR", str(tmp_path))
    path = timing_of(ORIN)
    assert path == tmp_path / "timing" / "tensorrt-10.3.0-linux-aarch64-sm87.timing"
    assert timing_of(replace(ORIN, version="10.4.0")) != path
    assert timing_of(replace(ORIN, compute_capability="8.9")) != path
