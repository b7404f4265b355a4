"""From a file or an old directory to a bundle: what was assumed is said and kept."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

import edgessl
from edgessl import bundle, encoders
from edgessl.encoders import run
from edgessl.encoders.options import LoadOptions
from edgessl.errors import CheckpointError
from edgessl.spec import Provenance
from tests.builders import change_json, random_texts, save_text_model
from tests.release_models import ViT, prefixed, randomize


def test_a_release_file_becomes_a_bundle(tmp_path: Path) -> None:
    model = ViT().eval()
    randomize(model)
    file = tmp_path / "moco.pth.tar"
    torch.save({"state_dict": prefixed("module.base_encoder.", model.state_dict())}, file)
    built = edgessl.build(file, "onnx", tmp_path / "bundle", pooling="cls")
    origin = bundle.read(built.path).provenance
    assert origin.source == "moco.pth.tar"
    assert origin.weights_sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert origin.assumptions[0].startswith("converted from: MoCo v3")
    assert any("heads" in line for line in origin.assumptions)
    pixels = torch.randn(2, 3, 16, 16, generator=torch.manual_seed(1))
    with edgessl.load(built.path) as session, torch.no_grad():
        ours = session.run({"pixel_values": pixels.numpy()})["image_embedding"]
        np.testing.assert_allclose(ours, model(pixels)[:, 0].numpy(), atol=1e-4)


def test_a_directory_without_model_type(tmp_path: Path) -> None:
    directory = save_text_model(tmp_path / "old-bert")
    expected = encoders.load(directory, LoadOptions(), Provenance("old"))
    change_json(directory / "config.json", model_type=None)
    encoder = encoders.load(directory, LoadOptions(), Provenance("old"))
    assert encoder.spec == expected.spec
    assert encoder.provenance.weights_sha256 == expected.provenance.weights_sha256
    (line,) = encoder.provenance.assumptions
    assert line.startswith("bert: ") and "taken as bert" in line
    ids = np.random.default_rng(0).integers(5, 30, (2, 6))
    inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    for name, vector in run.forward(expected, inputs).items():
        np.testing.assert_array_equal(run.forward(encoder, inputs)[name], vector)
    built = edgessl.build(directory, "onnx", tmp_path / "bundle")
    with edgessl.load(built.path) as session:
        assert session.embed(random_texts(2)).shape == (2, 32)


def test_a_file_that_is_no_checkpoint(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("hello")
    with pytest.raises(CheckpointError, match="notes.txt is not a weights file"):
        edgessl.build(file, "onnx", tmp_path / "bundle")
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
