"""ImagePreprocessor against transformers' own Pillow processors: the same floats, bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from edgessl.runtimes.image import ImagePreprocessor
from edgessl.spec import ImageSpec
from tests.pictures import (
    CROP,
    PICTURES,
    assert_same,
    expected,
    noise,
    write,
)


@pytest.fixture(scope="module")
def ours(mae: Path) -> ImagePreprocessor:
    return ImagePreprocessor.open(mae, ImageSpec(32, 32))


@pytest.fixture(scope="module")
def cropping(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("cropping"), CROP)


@pytest.mark.parametrize("name", PICTURES)
def test_checkpoint(mae: Path, ours: ImagePreprocessor, name: str) -> None:
    image = Image.fromarray(PICTURES[name])
    assert_same(ours([image]), expected(mae, [image]))


@pytest.mark.parametrize("name", PICTURES)
def test_shorter_edge_then_center_crop(cropping: Path, name: str) -> None:
    image = Image.fromarray(PICTURES[name])
    ours = ImagePreprocessor.open(cropping, ImageSpec(224, 224))
    assert_same(ours([image]), expected(cropping, [image]))


def test_batch_of_different_images(mae: Path, ours: ImagePreprocessor) -> None:
    images = [Image.fromarray(picture) for picture in PICTURES.values()]
    assert_same(ours(images), expected(mae, images))


@pytest.mark.parametrize("resample", range(6))
@pytest.mark.parametrize("name", ["cifar", "photo", "wide"])
def test_every_resampling_filter(tmp_path: Path, resample: int, name: str) -> None:
    config = {"size": {"height": 48, "width": 56}, "resample": resample}
    ours = ImagePreprocessor.open(write(tmp_path, config), ImageSpec(48, 56))
    image = Image.fromarray(PICTURES[name])
    assert_same(ours([image]), expected(tmp_path, [image]))


@pytest.mark.parametrize("crop", [(20, 20), (31, 33), (33, 31), (64, 64), (65, 20), (20, 65)])
@pytest.mark.parametrize("shape", [(32, 32), (33, 31), (20, 65)])
def test_center_crop_pads_what_is_too_small(
    tmp_path: Path, crop: tuple[int, int], shape: tuple[int, int]
) -> None:
    sides = {"height": crop[0], "width": crop[1]}
    config = {"do_resize": False, "do_center_crop": True, "crop_size": sides}
    ours = ImagePreprocessor.open(write(tmp_path, config), ImageSpec(*crop))
    image = Image.fromarray(noise(*shape))
    assert_same(ours([image]), expected(tmp_path, [image]))


@given(height=st.integers(1, 90), width=st.integers(1, 90), edge=st.integers(1, 80))
@settings(max_examples=40, deadline=None)
def test_any_size(
    tmp_path_factory: pytest.TempPathFactory, height: int, width: int, edge: int
) -> None:
    config = {"size": {"shortest_edge": edge}, "do_center_crop": True, "crop_size": 40}
    directory = write(tmp_path_factory.getbasetemp() / "any_size", config)
    ours = ImagePreprocessor.open(directory, ImageSpec(40, 40))
    image = Image.fromarray(noise(height, width, seed=height * width))
    assert_same(ours([image]), expected(directory, [image]))


@pytest.mark.parametrize(
    "changes",
    [
        {"do_normalize": False},
        {"do_rescale": False},
        {"rescale_factor": 1 / 127.5},
        {"rescale_factor": 1},
        {"image_mean": 0.5, "image_std": 0.25},
        {"image_mean": [0.1, 1e-7, 3.3], "image_std": [1e-3, 7, 0.1]},
        {"do_rescale": False, "image_mean": [123.675, 116.28, 103.53], "image_std": [58, 57, 57]},
    ],
)
def test_scaling_and_normalising(tmp_path: Path, changes: dict[str, Any]) -> None:
    every_level = np.repeat(np.arange(256, dtype=np.uint8), 3).reshape(16, 16, 3)
    config = {"size": {"height": 16, "width": 16}, "resample": 0, **changes}
    ours = ImagePreprocessor.open(write(tmp_path, config), ImageSpec(16, 16))
    image = Image.fromarray(every_level)
    assert_same(ours([image]), expected(tmp_path, [image]))


def test_nothing_but_float32(tmp_path: Path) -> None:
    config = {"do_resize": False, "do_rescale": False, "do_normalize": False}
    ours = ImagePreprocessor.open(write(tmp_path, config), ImageSpec(32, 32))
    wanted = PICTURES["cifar"].transpose(2, 0, 1)[None].astype(np.float32)
    assert_same(ours([PICTURES["cifar"]]), wanted)
