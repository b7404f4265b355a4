"""Patch dropping through bundles: every runtime against transformers' own masked encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest
import torch
from transformers import ViTMAEModel

import edgessl
from edgessl import parity
from edgessl.errors import RecipeError
from edgessl.runtimes.patches import PatchChoice
from tests.bundles import Bundles, smooth_images

GRID = (8, 8)


def masked_mae(mae: Path, pixels: npt.NDArray[np.float32], kept: int, how: str, seed: int) -> Any:
    """Mean over the patches that the choice leaves, by the pretraining model with that noise."""
    indices = PatchChoice(GRID, kept, how, seed)(pixels)
    model: Any = ViTMAEModel.from_pretrained(mae, mask_ratio=1 - (kept + 0.5) / 64)
    model.eval()
    noise = np.ones((len(pixels), 64))
    np.put_along_axis(noise, indices, 0.0, axis=1)
    with torch.no_grad():
        hidden = model(torch.from_numpy(pixels), noise=torch.from_numpy(noise)).last_hidden_state
    assert hidden.shape[1] == 1 + kept
    return hidden[:, 1:].mean(1).numpy()


@pytest.mark.parametrize(
    ("key", "precision"),
    [("onnx", "fp32"), ("openvino", "fp32"), ("onnx", "int8-dynamic"), ("openvino", "int8")],
)
def test_equals_the_masked_encoder(bundles: Bundles, mae: Path, key: str, precision: str) -> None:
    images = list(smooth_images(5))
    with edgessl.load(bundles.get("mae", key, precision).path) as session:
        pixels = session.prepare(images)["pixel_values"]
        for keep, kept, how in ((0.5, 32, "grid"), (0.25, 16, "random"), (0.35, 22, "saliency")):
            expected = masked_mae(mae, pixels, kept, how, seed=2)
            options: dict[str, Any] = {"keep_patches": keep, "patches": how, "seed": 2}
            vectors = session.embed(images, **options)
            if precision == "fp32":
                np.testing.assert_allclose(vectors, expected, atol=2e-5)
            assert parity.cosine(vectors, expected).min() >= parity.BOUNDS[precision][1]
            alone = session.using(**options)
            if precision != "int8-dynamic":  # whose ranges are those of a batch
                one = np.concatenate([alone.embed([image]) for image in images])
                np.testing.assert_allclose(one, vectors, atol=1e-5)
        whole = session.embed(images)
        np.testing.assert_array_equal(session.embed(images, keep_patches=1.0), whole)
        plain = session.run({"pixel_values": pixels})["image_embedding"]
        np.testing.assert_array_equal(plain, whole)
        with pytest.raises(RecipeError, match="patches 0 to 63"):
            session.run({"pixel_values": pixels, "patch_indices": np.full((5, 2), 64)})


def test_the_input_changes_nothing_where_every_patch_is_kept(
    bundles: Bundles, mae: Path, tmp_path: Path
) -> None:
    built = bundles.get("mae", "onnx", "fp32")
    without = edgessl.build(mae, "onnx", tmp_path / "without", patch_dropping=False)
    assert without.manifest.variant == built.manifest.variant
    images = list(smooth_images(3))
    with edgessl.load(built.path) as one, edgessl.load(without.path) as other:
        np.testing.assert_array_equal(one.embed(images), other.embed(images))
        with pytest.raises(RecipeError, match="export it again with --patch-dropping"):
            other.embed(images, keep_patches=0.5)


def test_other_tools_need_not_know_of_it(bundles: Bundles) -> None:
    """ONNX Runtime opens the file with pixel_values alone; quantized files too."""
    for precision in ("fp32", "int8-dynamic"):
        path = bundles.get("mae", "onnx", precision).path
        settings = onnxruntime.SessionOptions()
        settings.log_severity_level = 3
        graph = onnxruntime.InferenceSession(path / "model.onnx", settings)
        assert [value.name for value in graph.get_inputs()] == ["pixel_values"]
        with edgessl.load(path) as session:
            for count in (1, 3):
                pixels = session.prepare(list(smooth_images(count)))["pixel_values"]
                (vectors,) = graph.run(["image_embedding"], {"pixel_values": pixels})
                expected = session.run({"pixel_values": pixels})["image_embedding"]
                np.testing.assert_allclose(vectors, expected, atol=1e-5)


def test_it_is_still_there_for_what_is_built_from_the_bundle(
    bundles: Bundles, mae: Path, tmp_path: Path
) -> None:
    source = bundles.get("mae", "onnx", "fp32").path
    images = list(smooth_images(2))
    for key in ("openvino", "onnx"):
        built = edgessl.build(source, key, tmp_path / key)
        with edgessl.load(built.path) as session:
            pixels = session.prepare(images)["pixel_values"]
            vectors = session.embed(images, keep_patches=0.25)
        np.testing.assert_allclose(vectors, masked_mae(mae, pixels, 16, "grid", 0), atol=2e-5)
    engine = edgessl.build(source, "tensorrt-rtx", tmp_path / "engine").manifest
    assert engine.compatibility["engine"] == "model.engine"
    assert engine.compatibility["profiles"]["patch_indices"] == [[1, 1], [8, 64], [32, 64]]


def test_features_come_in_the_order_of_the_patches(mae: Path, tmp_path: Path) -> None:
    built = edgessl.build(mae, "openvino", tmp_path / "bundle", features=True)
    images = list(smooth_images(2))
    with edgessl.load(built.path) as session:
        pixels = session.prepare(images)["pixel_values"]
        order = np.array([[5, 60, 2], [9, 9, 63]])
        forth = session.run({"pixel_values": pixels, "patch_indices": order})["last_hidden_state"]
        back = session.run({"pixel_values": pixels, "patch_indices": order[:, ::-1].copy()})
        np.testing.assert_allclose(back["last_hidden_state"][:, :0:-1], forth[:, 1:], atol=1e-4)
        kept = session.using(keep_patches=0.5).features(images)
        assert [item.shape for item in kept] == [(33, 128)] * 2
        assert [item.shape for item in session.features(images)] == [(65, 128)] * 2
