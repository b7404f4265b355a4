"""Images that cannot be used: one clear line that names them, and the others go on."""

from __future__ import annotations

import io
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgessl.errors import EdgesslError, ItemError, RecipeError
from edgessl.runtimes.image import ImagePreprocessor
from edgessl.spec import ImageSpec
from tests.pictures import CROP, PICTURES, assert_same, noise, png, write


@pytest.fixture(scope="module")
def ours(mae: Path) -> ImagePreprocessor:
    return ImagePreprocessor.open(mae, ImageSpec(32, 32))


@pytest.fixture(scope="module")
def cropping(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("cropping"), CROP)


@pytest.mark.parametrize(
    ("item", "says"),
    [
        (np.full((8, 8, 3), 255, np.float32), r"from 255 to 255; they must lie in 0\.\.1"),
        (np.linspace(-1, 1, 192).reshape(3, 8, 8), "from -1 to 1.*Session.run as pixel_values"),
        (np.full((8, 8), np.nan), "NaN or infinite"),
        (np.full((8, 8), np.inf, np.float16), "NaN or infinite"),
        (np.zeros((8, 8, 3), np.complex64), "complex64 array"),
        (np.zeros((8, 8, 3), np.int64), r"int64 array.*astype\(numpy.uint8\)"),
        (np.zeros((8, 8), np.uint16), "uint16 array. Scale"),
        (np.zeros((8, 8), bool), "bool array"),
        (np.zeros((3, 8, 3), np.uint8), r"shape \(3, 8, 3\), which may be"),
        (np.zeros((3, 1, 1), np.uint8), "which may be"),
        (np.zeros((3, 5, 4), np.uint8), "which may be"),
        (np.zeros((8, 8, 2), np.uint8), r"shape \(8, 8, 2\). Pass"),
        (np.zeros((2, 8, 8), np.uint8), r"shape \(2, 8, 8\). Pass"),
        (np.zeros((8, 8, 5), np.float32), r"shape \(8, 8, 5\). Pass"),
        (np.zeros(8, np.uint8), r"shape \(8,\). Pass"),
        (np.zeros((2, 8, 8, 3), np.uint8), r"shape \(2, 8, 8, 3\). Pass"),
        (np.zeros((0, 8, 3), np.uint8), "no pixels"),
        (np.zeros((8, 0), np.float32), "no pixels"),
        (np.array(7, np.uint8), r"shape \(\). Pass"),
        (Image.new("RGB", (0, 5)), "no pixels"),
        (Image.new("I", (5, 0)), "no pixels"),
        (Image.new("F", (5, 5)), "floating-point pixels"),
        (Image.new("I", (5, 5), 70000), "32-bit pixels"),
        (Image.new("I", (5, 5), -1), "32-bit pixels"),
        (Image.new("La", (5, 5)), "cannot be read: conversion from La"),
        (b"", "not an image that Pillow can read: it is empty"),
        (os.devnull, "not an image that Pillow can read: it is empty"),
        (b"no image at all", "not an image that Pillow can read"),
        ("absent.png", r"\('absent.png'\) cannot be read: No such file"),
        (Path("absent.png"), r"\('absent.png'\) cannot be read: No such file"),
        ("nul\0.png", "cannot be read"),
        (".", r"\('.'\) cannot be read"),
        (None, "of type NoneType"),
        (7, "of type int"),
        ([[0, 0], [0, 0]], "of type list"),
    ],
)
def test_wrong_item_is_named(ours: ImagePreprocessor, item: Any, says: str) -> None:
    with pytest.raises(ItemError, match=rf"^image 1\b.*{says}") as raised:
        ours([noise(32, 32), item])
    assert raised.value.index == 1
    with pytest.raises(RecipeError, match=rf"^image 33\b.*{says}"):
        ours([noise(32, 32), item], first=32)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF"])
def test_truncated_and_corrupt_files(ours: ImagePreprocessor, tmp_path: Path, format: str) -> None:
    stream = io.BytesIO()
    Image.fromarray(PICTURES["photo"]).save(stream, format)
    data = stream.getvalue()
    path = tmp_path / "half"
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(RecipeError, match="image 0 .*half"):
        ours([path])
    rng = np.random.default_rng(0)
    for _ in range(40):  # damaged anywhere: a picture or a clear refusal, never another error
        bent = bytearray(data)
        for place in rng.integers(0, min(len(data), 400), 4):
            bent[place] = rng.integers(256)
        try:
            assert ours([bytes(bent)]).shape == (1, 3, 32, 32)
        except RecipeError as err:
            assert str(err).startswith("image 0 ")


def test_image_bomb(ours: ImagePreprocessor) -> None:
    bomb = png(1, 0, bytes(100), 60_000, 60_000)
    with pytest.raises(RecipeError, match="image 0 cannot be read: Image size"):
        ours([bomb])


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_bomb_of_which_pillow_only_warns(
    ours: ImagePreprocessor, monkeypatch: pytest.MonkeyPatch
) -> None:
    small, large = (png(8, 0, bytes(100), 100, height) for height in (1, 2))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 150)
    assert ours([small]).shape == (1, 3, 32, 32)
    with pytest.raises(ItemError, match="image 1 cannot be read: 2 x 100 pixels may be a .* bomb"):
        ours([small, large])


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_refused_images_are_left_out_and_told_in_order(
    ours: ImagePreprocessor, workers: int
) -> None:
    items: list[Any] = [noise(40, 40, seed) for seed in range(24)]
    good = [item for place, item in enumerate(items) if place % 5]
    for place in range(0, 24, 5):
        items[place] = [b"no image", None, "absent.png", noise(9, 0), noise(3, 3)][place // 5]
    told: list[tuple[int, EdgesslError]] = []
    actual = ours(items, first=100, refused=lambda *refusal: told.append(refusal), workers=workers)
    assert_same(actual, ours(good))
    assert [index for index, _ in told] == [100, 105, 110, 115, 120]
    for index, error in told:
        assert isinstance(error, ItemError) and error.index == index
        assert str(error).startswith(f"image {index} ")
    with pytest.raises(ItemError, match="image 0 "):
        ours(items, workers=workers)


def test_nothing_but_refused_images(ours: ImagePreprocessor) -> None:
    told: list[int] = []
    actual = ours([None, 7], refused=lambda index, error: told.append(index))
    assert_same(actual, np.empty((0, 3, 32, 32), np.float32))
    assert told == [0, 1]


def test_an_error_can_be_sent_to_another_process(ours: ImagePreprocessor) -> None:
    with pytest.raises(ItemError) as raised:
        ours([noise(32, 32), None])
    copy = pickle.loads(pickle.dumps(raised.value))
    assert (type(copy), str(copy), copy.index) == (ItemError, str(raised.value), 1)


def test_too_wide_for_its_shorter_edge(cropping: Path) -> None:
    ours = ImagePreprocessor.open(cropping, ImageSpec(224, 224))
    with pytest.raises(RecipeError, match=r"image 0 is 1 x 9000: .* 256 x 2304000 .* Crop it"):
        ours([np.zeros((1, 9000, 3), np.uint8)])


@pytest.mark.parametrize(
    "images", ["a.png", b"bytes", Path("a.png"), Image.new("RGB", (2, 2)), None, 7]
)
def test_an_image_alone_is_no_list(ours: ImagePreprocessor, images: Any) -> None:
    with pytest.raises(RecipeError, match=r"Pass a list: \[image\]"):
        ours(images)


def test_an_array_alone_is_no_batch(ours: ImagePreprocessor) -> None:
    with pytest.raises(RecipeError, match=r"\(32, 32, 3\). Pass a single image in a list"):
        ours(noise(32, 32))
