"""The ViT-MAE encoder against an ordinary ViT with the same weights, and against its own library."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import ViTConfig, ViTMAEModel, ViTModel

from edgessl import encoders
from edgessl.encoder import Encoder
from edgessl.encoders import run
from edgessl.encoders.options import LoadOptions
from edgessl.errors import CheckpointError, RecipeError
from edgessl.spec import ImageSpec, Provenance, TensorSpec
from tests.builders import change_json, save_mae

VECTOR, FEATURES = "image_embedding", "last_hidden_state"
Floats = npt.NDArray[np.float32]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_mae(tmp_path_factory.mktemp("mae"))


@pytest.fixture
def model(tiny: Path, tmp_path: Path) -> Path:
    """A copy of the tiny MAE, to be changed at will."""
    return shutil.copytree(tiny, tmp_path / "model")


@pytest.fixture(params=["tiny", "cifar10"])
def directory(request: pytest.FixtureRequest, tiny: Path, mae: Path) -> Path:
    return tiny if request.param == "tiny" else mae


def load(directory: Path, **options: Any) -> Encoder:
    return encoders.load(directory, LoadOptions(**options), Provenance("here"))


def pixels(encoder: Encoder, count: int = 3) -> Floats:
    assert isinstance(encoder.spec.preprocessing, ImageSpec)
    size = encoder.spec.preprocessing
    shape = (count, size.channels, size.height, size.width)
    return np.random.default_rng(5).normal(size=shape).astype(np.float32)


def features(directory: Path, images: Floats) -> Floats:
    encoder = load(directory, pooling="none")
    hidden: Floats = run.forward(encoder, {"pixel_values": images})[FEATURES]
    return hidden


def ordinary_vit(directory: Path, images: Floats) -> Floats:
    """The same weights in a plain ViT, which masks nothing and knows no random numbers."""
    mae = ViTMAEModel.from_pretrained(directory)
    names = ViTConfig().to_dict().keys() & mae.config.to_dict().keys() - {"model_type"}
    vit: Any = ViTModel(
        ViTConfig(**{name: getattr(mae.config, name) for name in names}), add_pooling_layer=False
    )
    vit.load_state_dict(mae.state_dict(), strict=True)
    with torch.no_grad():
        hidden: Floats = vit.eval()(torch.from_numpy(images)).last_hidden_state.numpy()
    return hidden


def test_is_the_ordinary_vit(directory: Path) -> None:
    images = pixels(load(directory))
    expected = ordinary_vit(directory, images)
    np.testing.assert_allclose(features(directory, images), expected, atol=2e-5)


def test_is_the_mae_that_masks_nothing(directory: Path) -> None:
    images = pixels(load(directory))
    model: Any = ViTMAEModel.from_pretrained(directory, mask_ratio=0.0)
    model.eval()
    patches = (model.config.image_size // model.config.patch_size) ** 2
    noise = torch.arange(patches).repeat(len(images), 1)
    with torch.no_grad():
        expected = model(torch.from_numpy(images), noise=noise).last_hidden_state.numpy()
    assert expected.shape[1] == 1 + patches
    np.testing.assert_allclose(features(directory, images), expected, atol=2e-5)


def patches_of(images: Floats, kept: int, seed: int = 4) -> npt.NDArray[np.int64]:
    """Patches of each image, *kept* of them in no order."""
    rng = np.random.default_rng(seed)
    return np.stack([rng.permutation(count_patches(images))[:kept] for _ in images])


def count_patches(images: Floats) -> int:
    return int(images.shape[-1] // 4) ** 2  # both checkpoints have patches of 4 pixels


def masked_mae(directory: Path, images: Floats, indices: npt.NDArray[np.int64]) -> Floats:
    """Features of transformers' own model, whose noise leaves those patches, in that order."""
    patches, kept = count_patches(images), indices.shape[1]
    ratio = 1 - (kept + 0.5) / patches
    model: Any = ViTMAEModel.from_pretrained(directory, mask_ratio=ratio)
    model.eval()
    noise = np.full((len(images), patches), 2.0)
    np.put_along_axis(noise, indices, np.arange(kept) / kept, axis=1)
    with torch.no_grad():
        hidden: Floats = model(
            torch.from_numpy(images), noise=torch.from_numpy(noise)
        ).last_hidden_state.numpy()
    assert hidden.shape[1] == 1 + kept
    return hidden


@pytest.mark.parametrize("pooling", ["mean", "cls", "max"])
@pytest.mark.parametrize("kept", [1, 4, 11])
def test_fewer_patches_are_what_pretraining_saw(directory: Path, kept: int, pooling: str) -> None:
    encoder = load(directory, pooling=pooling, features=True)
    images = pixels(encoder)
    indices = patches_of(images, kept)
    hidden = masked_mae(directory, images, indices)
    outputs = run.forward(encoder, {"pixel_values": images, "patch_indices": indices})
    np.testing.assert_allclose(outputs[FEATURES], hidden, atol=2e-5)
    rest = hidden[:, 1:]
    expected = {"mean": rest.mean(1), "cls": hidden[:, 0], "max": rest.max(1)}[pooling]
    np.testing.assert_allclose(outputs[VECTOR], expected, atol=2e-5)


def test_patch_dropping_is_an_input_that_may_be_left_out_of_the_export(directory: Path) -> None:
    encoder, without = load(directory), load(directory, patch_dropping=False)
    images = pixels(encoder)
    side = images.shape[-1] // 4
    assert isinstance(encoder.spec.preprocessing, ImageSpec)
    assert encoder.spec.preprocessing.grid == (side, side)
    assert encoder.spec.inputs[1:] == (TensorSpec("patch_indices", "int64", ("batch", "kept")),)
    axis = encoder.spec.axes["kept"]
    assert (axis.smallest, axis.usual, axis.largest, axis.counted) == (1, *3 * (side * side,))
    assert without.spec.inputs == encoder.spec.inputs[:1]
    every = np.tile(np.arange(side * side), (len(images), 1))
    expected = run.forward(without, {"pixel_values": images})[VECTOR]
    actual = run.forward(encoder, {"pixel_values": images, "patch_indices": every})[VECTOR]
    np.testing.assert_array_equal(actual, expected)


def test_merging_leaves_no_choice_of_patches(tiny: Path) -> None:
    encoder = load(tiny, merge_tokens=2)
    assert [spec.name for spec in encoder.spec.inputs] == ["pixel_values"]
    assert encoder.spec.preprocessing == ImageSpec(16, 16)


def test_positions_and_every_patch_count(directory: Path) -> None:
    """A change of one patch shows most in that patch's own token: nothing is masked or moved."""
    encoder = load(directory, pooling="none")
    module: Any = encoder.module
    patch = int(module.backbone.config.patch_size)
    image = pixels(encoder, 1)
    side = image.shape[-1] // patch
    width = encoder.spec.outputs[0].shape[2]
    assert encoder.spec.outputs == (TensorSpec(FEATURES, "float32", ("batch", "tokens", width)),)
    before = run.forward(encoder, {"pixel_values": image})[FEATURES]
    for row, column in ((0, 0), (0, side - 1), (1, 2), (side - 1, 0)):
        changed = image.copy()
        changed[:, :, row * patch : (row + 1) * patch, column * patch : (column + 1) * patch] *= -1
        after = run.forward(encoder, {"pixel_values": changed})[FEATURES]
        moved = np.linalg.norm(after - before, axis=-1)[0]
        assert (moved > 0).all()
        assert moved[1:].argmax() == row * side + column


def test_cifar10_has_65_tokens(mae: Path) -> None:
    encoder = load(mae, features=True)
    outputs = run.forward(encoder, {"pixel_values": pixels(encoder)})
    assert outputs[FEATURES].shape == (3, 65, 128)
    assert outputs[VECTOR].shape == (3, 128)


def test_the_same_every_time_and_in_every_batch(directory: Path) -> None:
    encoder = load(directory)
    images = pixels(encoder, 4)
    first = run.forward(encoder, {"pixel_values": images})[VECTOR]
    torch.manual_seed(99)
    np.testing.assert_array_equal(first, run.forward(encoder, {"pixel_values": images})[VECTOR])
    alone = [run.forward(encoder, {"pixel_values": image[None]})[VECTOR][0] for image in images]
    np.testing.assert_allclose(first, alone, atol=1e-5)
    assert np.abs(first[0] - first[1]).max() > 1e-3


@pytest.mark.parametrize("unit", [True, False])
@pytest.mark.parametrize("pooling", ["cls", "mean", "max"])
def test_poolings(tiny: Path, pooling: str, unit: bool) -> None:
    encoder = load(tiny, pooling=pooling, normalize=unit, features=True)
    images = pixels(encoder)
    hidden = ordinary_vit(tiny, images)
    patches = hidden[:, 1:]  # the class token takes no part in mean and max
    expected = {"cls": hidden[:, 0], "mean": patches.mean(1), "max": patches.max(1)}[pooling]
    if unit:
        expected = expected / np.linalg.norm(expected, axis=1, keepdims=True)
    outputs = run.forward(encoder, {"pixel_values": images})
    assert list(outputs) == [VECTOR, FEATURES]
    np.testing.assert_allclose(outputs[VECTOR], expected, atol=2e-5)
    assert (encoder.spec.pooling, encoder.spec.normalize) == (pooling, unit)


def test_default_is_the_mean_of_the_patches(directory: Path) -> None:
    encoder = load(directory)
    assert (encoder.spec.pooling, encoder.spec.normalize) == ("mean", False)
    images = pixels(encoder)
    expected = ordinary_vit(directory, images)[:, 1:].mean(1)
    actual = run.forward(encoder, {"pixel_values": images})[VECTOR]
    np.testing.assert_allclose(actual, expected, atol=2e-5)


def test_decoder_is_ignored(model: Path) -> None:
    encoder = load(model)
    images = pixels(encoder)
    expected = run.forward(encoder, {"pixel_values": images})[VECTOR]
    assert not any("decoder" in name for name, _ in encoder.module.named_parameters())
    state = load_file(model / "model.safetensors")
    dropped = {k: v for k, v in state.items() if "decoder" not in k}
    assert len(dropped) < len(state)
    save_file(dropped, model / "model.safetensors", metadata={"format": "pt"})
    actual = run.forward(load(model), {"pixel_values": images})[VECTOR]
    np.testing.assert_array_equal(actual, expected)


def test_config_may_leave_defaults_out(tmp_path: Path) -> None:
    directory = save_mae(tmp_path, image_size=224, patch_size=56)
    change_json(directory / "config.json", image_size=None, num_channels=None)
    assert load(directory).spec.preprocessing == ImageSpec(224, 224, 3, (4, 4))


def test_preprocessor_is_needed(model: Path) -> None:
    path = model / "preprocessor_config.json"
    assert load(model).assets[path.name] == path.read_bytes()
    path.write_text("{")
    with pytest.raises(CheckpointError, match="preprocessor_config.json cannot be read"):
        load(model)
    path.unlink()
    with pytest.raises(CheckpointError, match="save_pretrained"):
        load(model)


def test_max_length_is_for_texts(tiny: Path) -> None:
    with pytest.raises(RecipeError, match="--max-length is for text encoders"):
        load(tiny, max_length=16)
