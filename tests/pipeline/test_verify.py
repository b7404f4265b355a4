"""``verify``: what it measures on a sound bundle, and every damage that it finds."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgessl import bundle, parity, pipeline
from edgessl.errors import BundleError
from tests.bundles import Bundles, sign


@pytest.fixture
def copy(bundles: Bundles, tmp_path: Path) -> Path:
    """A tiny text bundle, to be damaged at will."""
    return shutil.copytree(bundles.get("bert", "onnx", "fp32").path, tmp_path / "copy")


@pytest.mark.parametrize(
    ("model", "key", "precision"),
    [("bert", "onnx", "fp32"), ("mae", "openvino", "int8"), ("mae", "onnx", "fp16")],
)
def test_sound_bundle(bundles: Bundles, model: str, key: str, precision: str) -> None:
    built = bundles.get(model, key, precision)
    said: list[str] = []
    found = pipeline.verify(built.path, said.append)
    assert (found["ok"], found["files"], found["preprocessing"]) == (True, [], True)
    assert found["runtime"]["runtime"] == {"onnx": "onnxruntime"}.get(key, key)
    for name in ("cosine_mean", "cosine_min", "max_abs_diff", "rows", "bound", "within"):
        assert found["parity"][name] == pytest.approx(built.manifest.parity[name], abs=1e-6)
    assert said == ["checking files", "checking parity on this device"]


def test_every_damage_is_named(copy: Path) -> None:
    (copy / "model.onnx").write_bytes((copy / "model.onnx").read_bytes()[::-1])
    (copy / "tokenizer.json").unlink()
    (copy / "extra.txt").write_text("?")
    found = pipeline.verify(copy)
    assert found["ok"] is False
    changed, missing, extra = sorted(found["files"], key=lambda line: line.partition(": ")[2])
    assert changed.startswith("model.onnx: changed (sha256")
    assert (missing, extra) == ("tokenizer.json: missing", "extra.txt: not in the manifest")


@pytest.mark.parametrize("old_new", [("fp32", "fp16"), ('"rows": 15', '"rows": 16')])
def test_changed_manifest(copy: Path, old_new: tuple[str, str]) -> None:
    path = copy / bundle.MANIFEST
    text = path.read_text(encoding="utf-8")
    assert old_new[0] in text
    path.write_text(text.replace(*old_new), encoding="utf-8")
    with pytest.raises(BundleError, match="changed after it was written"):
        pipeline.verify(copy)


def test_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="not a bundle"):
        pipeline.verify(tmp_path)


def rewrite(copy: Path, edit: Any) -> dict[str, Any]:
    """Change the golden batches and sign the bundle as if it had been built so."""
    manifest = bundle.read(copy)
    reference = parity.read(copy / bundle.REFERENCE)
    edit(reference)
    parity.save(reference, copy / bundle.REFERENCE)
    sign(copy, manifest)
    return pipeline.verify(copy)


def test_other_vectors_than_the_reference(copy: Path) -> None:
    def turn(reference: list[parity.Batch]) -> None:
        reference[0].outputs["sentence_embedding"][:] *= -1

    found = rewrite(copy, turn)
    assert (found["ok"], found["files"], found["preprocessing"]) == (False, [], True)
    assert found["parity"]["within"] is False
    assert found["parity"]["cosine_min"] == pytest.approx(-1)


@pytest.mark.parametrize("text", ["another text", "an"])
def test_other_inputs_than_the_reference(copy: Path, text: str) -> None:
    """The device's tokenizer would make something else of the golden text."""

    def replace(reference: list[parity.Batch]) -> None:
        reference[0].items[0] = text

    found = rewrite(copy, replace)
    assert (found["ok"], found["preprocessing"]) == (False, False)
    assert found["parity"]["within"] is True


def test_not_a_number(copy: Path) -> None:
    def spoil(reference: list[parity.Batch]) -> None:
        reference[1].outputs["sentence_embedding"][0, 0] = np.nan

    found = rewrite(copy, spoil)
    assert (found["ok"], found["parity"]["cosine_min"]) == (False, -1.0)


def test_a_tighter_bound_is_a_verdict(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(parity.BOUNDS, "fp32", (1.1, 1.1))
    found = pipeline.verify(copy)
    assert (found["ok"], found["parity"]["within"]) == (False, False)
    assert found["parity"]["bound"] == {"cosine_mean": 1.1, "cosine_min": 1.1}
