"""The manifest and the files that it names: written, read back, and every kind of damage found."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgessl import bundle
from edgessl.bundle import FileEntry, Manifest
from edgessl.errors import BundleError
from edgessl.spec import EncoderSpec, ImageSpec, Provenance, TensorSpec, TextSpec

AXES = ("batch", "sequence")
TEXT = EncoderSpec(
    task="text",
    family="bert",
    pooling="mean",
    normalize=True,
    inputs=(TensorSpec("input_ids", "int64", AXES), TensorSpec("attention_mask", "int64", AXES)),
    outputs=(TensorSpec("sentence_embedding", "float32", ("batch", 384)),),
    preprocessing=TextSpec(128, lowercase=True, prompt="Anfrage – "),
)
IMAGE = EncoderSpec(
    task="image",
    family="vit_mae",
    pooling="none",
    normalize=False,
    inputs=(TensorSpec("pixel_values", "float32", ("batch", 3, 16, 24)),),
    outputs=(TensorSpec("last_hidden_state", "float32", ("batch", 25, 8)),),
    preprocessing=ImageSpec(16, 24),
)
FILES = {"model.onnx": b"graph" * 99, "tokenizer.json": b"{}", "deeper/extra.bin": b""}


def manifest(spec: EncoderSpec = TEXT) -> Manifest:
    return Manifest(
        target="onnx",
        precision="int8",
        encoder=spec,
        provenance=Provenance("org/näme", "c9745ed1", "ab" * 32, {"edgessl": "0.1.0"}),
        variant="0123456789abcdef",
        recipe={"model": "org/näme", "compute_capabilities": [], "seed": 0},
        compatibility={"opset": 17},
        parity={"cosine_mean": 0.9987654321, "within": True},
        compute={"parameters": 10, "at": {"input_ids": [1, 128]}},
        calibration={"source": "t.txt", "samples": 3, "sha256": "cd" * 32},
    )


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    folder = tmp_path / "bundle"
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    entries = {name: bundle.file_entry(folder / name) for name in bundle.list_files(folder)}
    (folder / bundle.MANIFEST).write_text(
        replace(manifest(), files=entries).dumps(), encoding="utf-8"
    )
    return folder


def problems(directory: Path) -> list[str]:
    return bundle.check_files(directory, bundle.read(directory))


@pytest.mark.parametrize("spec", [TEXT, IMAGE], ids=["text", "image"])
def test_round_trip(tmp_path: Path, spec: EncoderSpec) -> None:
    written = replace(manifest(spec), files={"model.onnx": FileEntry(3, "ef" * 32)})
    (tmp_path / bundle.MANIFEST).write_text(written.dumps(), encoding="utf-8")
    assert bundle.read(tmp_path) == written
    assert bundle.read(tmp_path).dumps() == written.dumps()
    assert bundle.is_bundle(tmp_path)


def test_digest_is_over_the_canonical_rest() -> None:
    data = json.loads(manifest().dumps())
    digest = data.pop("digest")
    canonical = json.dumps(data, sort_keys=True, ensure_ascii=False).encode()
    assert digest == hashlib.sha256(canonical).hexdigest()


def test_files_of_a_sound_bundle(directory: Path) -> None:
    found = bundle.read(directory).files
    assert {name: entry.size for name, entry in found.items()} == {
        name: len(content) for name, content in FILES.items()
    }
    for name, content in FILES.items():
        assert found[name].sha256 == hashlib.sha256(content).hexdigest()
    assert problems(directory) == []


def test_formatting_of_the_manifest_does_not_matter(directory: Path) -> None:
    path = directory / bundle.MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")), indent=None))
    assert problems(directory) == []


def test_same_size_other_content(directory: Path) -> None:
    (directory / "model.onnx").write_bytes(FILES["model.onnx"][::-1])
    (problem,) = problems(directory)
    assert problem.startswith("model.onnx: changed (sha256 ")


def test_other_size(directory: Path) -> None:
    with (directory / "tokenizer.json").open("ab") as file:
        file.write(b"\n")
    assert problems(directory) == ["tokenizer.json: changed (size 3, manifest says 2)"]


def test_missing_and_extra(directory: Path) -> None:
    (directory / "deeper" / "extra.bin").unlink()
    (directory / "deeper" / "other.bin").write_bytes(b"?")
    (directory / ".hidden").write_bytes(b"?")
    assert problems(directory) == [
        "deeper/extra.bin: missing",
        ".hidden: not in the manifest",
        "deeper/other.bin: not in the manifest",
    ]


def test_broken_link_counts_as_a_file(directory: Path) -> None:
    (directory / "tokenizer.json").unlink()
    (directory / "dangling").symlink_to(directory / "nowhere")
    assert problems(directory) == ["tokenizer.json: missing", "dangling: not in the manifest"]


def change_manifest(directory: Path, edit: Any, resign: bool) -> None:
    path = directory / bundle.MANIFEST
    data = json.loads(path.read_text(encoding="utf-8"))
    digest = data.pop("digest")
    edit(data)
    canonical = json.dumps(data, sort_keys=True, ensure_ascii=False).encode()
    data["digest"] = hashlib.sha256(canonical).hexdigest() if resign else digest
    path.write_text(json.dumps(data), encoding="utf-8")


@pytest.mark.parametrize(
    "edit",
    [
        lambda data: data["encoder"].update(pooling="cls"),
        lambda data: data["files"]["model.onnx"].update(size=1),
        lambda data: data["files"].pop("model.onnx"),
        lambda data: data.update(precision="fp32"),
        lambda data: data.update(note="added"),
    ],
)
def test_changed_manifest(directory: Path, edit: Any) -> None:
    change_manifest(directory, edit, resign=False)
    with pytest.raises(BundleError, match="changed after it was written"):
        bundle.read(directory)


@pytest.mark.parametrize(
    "edit",
    [
        lambda data: data.pop("target"),
        lambda data: data.update(unheard_of=1),
        lambda data: data["encoder"].update(task="sound"),
        lambda data: data["encoder"]["preprocessing"].update(unheard_of=1),
        lambda data: data.update(files=[]),
        lambda data: data.update(provenance="me"),
    ],
)
def test_foreign_manifest_with_a_right_digest(directory: Path, edit: Any) -> None:
    change_manifest(directory, edit, resign=True)
    with pytest.raises(BundleError, match="not laid out as this edgessl expects"):
        bundle.read(directory)


def test_manifest_of_another_version(directory: Path) -> None:
    change_manifest(directory, lambda data: data.update(schema_version=2), resign=True)
    with pytest.raises(BundleError, match="manifest version 2, this edgessl reads 1"):
        bundle.read(directory)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"3", b"null", b"{}", b"\xff\xfe"])
def test_damaged_manifest(directory: Path, content: bytes) -> None:
    (directory / bundle.MANIFEST).write_bytes(content)
    with pytest.raises(BundleError, match="damaged, not a manifest"):
        bundle.read(directory)


def test_no_bundle(directory: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="there is no such directory"):
        bundle.read(tmp_path / "nowhere")
    with pytest.raises(BundleError, match="it has no manifest.json"):
        bundle.read(directory / "deeper")
    assert not bundle.is_bundle(directory / "deeper")


def test_a_copy_is_the_same_bundle(directory: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(directory, tmp_path / "copy")
    assert bundle.read(copy) == bundle.read(directory)
    assert problems(copy) == []


VALUES = st.none() | st.booleans() | st.integers() | st.text(max_size=5)


@given(st.dictionaries(st.text(max_size=5), VALUES, min_size=1), st.randoms())
def test_variant_id(identity: dict[str, Any], random: Any) -> None:
    name = bundle.variant_id(identity)
    assert len(name) == 16 and int(name, 16) >= 0
    keys = list(identity)
    random.shuffle(keys)
    assert bundle.variant_id({key: identity[key] for key in keys}) == name
    for key in keys:
        assert bundle.variant_id({**identity, key: [identity[key]]}) != name


def test_specs_know_their_vector() -> None:
    assert (TEXT.vector, TEXT.has_features) == ("sentence_embedding", False)
    assert (IMAGE.vector, IMAGE.has_features) == (None, True)
