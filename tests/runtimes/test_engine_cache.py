"""Which engine a device takes, and the cache: pure functions and files, no GPU."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgessl.bundle import Manifest
from edgessl.errors import BundleError, OutputError
from edgessl.runtimes.engine_cache import Here, fetch, misfit, path_of, plan_of
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


def test_the_cache_is_in_the_home_by_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EDGESSL_CACHE_DIR", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    (tmp_path / "model.onnx").touch()
    path = path_of(tmp_path / "model.onnx", plan_of(manifest(FITS), ORIN), ORIN)
    assert path.parent == tmp_path / ".cache" / "edgessl" / "engines"


def test_no_onnx_to_build_from(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="model.onnx: the engine is built from it"):
        path_of(tmp_path / "model.onnx", plan_of(manifest(FITS), ORIN), ORIN)


def test_built_once(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.engine"
    built = iter([b"first"])
    assert fetch(path, lambda: next(built)) == b"first"
    assert fetch(path, lambda: next(built)) == b"first"
    assert not list(path.parent.glob("*.partial"))


def test_a_failed_build_leaves_nothing_and_can_be_tried_again(tmp_path: Path) -> None:
    path = tmp_path / "a.engine"

    def fails() -> bytes:
        raise BundleError("no")

    with pytest.raises(BundleError, match="no"):
        fetch(path, fails)
    assert not path.exists() and not list(tmp_path.glob("*.partial"))
    assert fetch(path, lambda: b"engine") == b"engine"


def test_a_failed_write_leaves_no_half_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OutputError, match="No space left.*EDGESSL_CACHE_DIR"):
        fetch(tmp_path / "a.engine", lambda: b"engine")
    assert [p.name for p in tmp_path.iterdir()] == ["a.engine.lock"]


def test_a_cache_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="cannot be written.*EDGESSL_CACHE_DIR"):
        fetch(tmp_path / "file" / "engines" / "a.engine", lambda: b"engine")


@pytest.mark.skipif(sys.platform == "win32", reason="nothing is locked without fcntl")
def test_processes_that_come_together_build_once(tmp_path: Path) -> None:
    code = f"""
import time
from pathlib import Path
from edgessl.runtimes.engine_cache import fetch
def build():
    with open({str(tmp_path / "builds")!r}, "a") as log:
        log.write("built\\n")
    time.sleep(1.0)
    return b"engine"
assert fetch(Path({str(tmp_path / "a.engine")!r}), build) == b"engine"
"""
    children = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(3)]
    assert [child.wait(60) for child in children] == [0, 0, 0]
    assert (tmp_path / "builds").read_text() == "built\n"
