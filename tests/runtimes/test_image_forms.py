"""Every form in which an image may come gives what transformers makes of it."""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from edgessl.errors import ItemError
from edgessl.runtimes.image import ImagePreprocessor
from edgessl.spec import ImageSpec
from tests.pictures import (
    PICTURES,
    Array,
    assert_same,
    expected,
    noise,
    png,
    shapes,
)


@pytest.fixture(scope="module")
def ours(mae: Path) -> ImagePreprocessor:
    return ImagePreprocessor.open(mae, ImageSpec(32, 32))


def _palette(**save: Any) -> Image.Image:
    image = Image.fromarray(shapes(50, 70)).quantize(16)
    stream = io.BytesIO()
    image.save(stream, "PNG", **save)
    return Image.open(stream)


MODES: dict[str, Callable[[], Image.Image]] = {
    **{
        mode: partial(Image.fromarray(shapes(50, 70)).convert, mode)
        for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV")
    },
    "translucent": lambda: Image.merge(
        "RGBA", [Image.fromarray(plane) for plane in noise(50, 280).reshape(50, 70, 12).T[:4]]
    ),
    "palette": _palette,
    "palette with a clear colour": lambda: _palette(transparency=3),
    "PA": lambda: Image.fromarray(shapes(50, 70)).convert("P").convert("PA"),
}


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_becomes_rgb(mae: Path, ours: ImagePreprocessor, mode: str) -> None:
    image = MODES[mode]()
    assert_same(ours([image]), expected(mae, [image]))


def test_palette_with_alpha_bytes_is_read_without_a_warning(
    mae: Path, ours: ImagePreprocessor
) -> None:
    image = _palette(transparency=bytes(range(0, 256, 16)))
    with pytest.warns(UserWarning, match="Palette images with Transparency"):
        wanted = expected(mae, [image])
    assert_same(ours([image]), wanted)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_exif_orientation(
    mae: Path, ours: ImagePreprocessor, tmp_path: Path, orientation: int, format: str
) -> None:
    image = Image.fromarray(shapes(50, 70))
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "picture"
    image.save(path, format, exif=exif)
    with Image.open(path) as opened:
        wanted = expected(mae, [opened])
        assert_same(ours([opened]), wanted)
    assert_same(ours([path]), wanted)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM"])
def test_files_and_bytes(mae: Path, ours: ImagePreprocessor, tmp_path: Path, format: str) -> None:
    path = tmp_path / "picture"
    Image.fromarray(PICTURES["photo"]).save(path, format)
    data = path.read_bytes()
    with Image.open(path) as opened:
        wanted = expected(mae, [opened] * 5)
    assert_same(ours([path, str(path), data, bytearray(data), memoryview(data)]), wanted)


def test_gif_gives_its_first_frame(mae: Path, ours: ImagePreprocessor, tmp_path: Path) -> None:
    frames = [Image.fromarray(noise(30, 30, seed)) for seed in range(3)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    with Image.open(tmp_path / "a.gif") as opened:
        assert_same(ours([tmp_path / "a.gif"]), expected(mae, [opened]))


def test_16_bit_grey_is_scaled_as_pillow_scales_16_bit_colour(ours: ImagePreprocessor) -> None:
    levels = [0, 200, 255, 256, 0x80FF, 0xFEFF, 0xFFFF]
    grey = png(16, 0, struct.pack(">7H", *levels), 7)
    colour = png(16, 2, b"".join(struct.pack(">3H", *[level] * 3) for level in levels), 7)
    wanted = ours([colour])
    assert np.unique(wanted[0, 0]).size > 2
    for mode in ("I;16", "I;16B", "I;16L", "I"):
        image = Image.frombytes(mode, (7, 1), _packed(mode, levels))
        assert_same(ours([image]), wanted)
    assert_same(ours([grey]), wanted)


def _packed(mode: str, levels: list[int]) -> bytes:
    return struct.pack({"I;16B": ">7H", "I": "=7i"}.get(mode, "<7H"), *levels)


ARRAYS: dict[str, Callable[[Array], Array]] = {
    "(H, W, 3)": lambda rgb: rgb,
    "(3, H, W)": lambda rgb: rgb.transpose(2, 0, 1),
    "(3, H, W) contiguous": lambda rgb: np.ascontiguousarray(rgb.transpose(2, 0, 1)),
    "reversed": lambda rgb: rgb[::-1, ::2],
    "read-only": lambda rgb: np.frombuffer(rgb.tobytes(), np.uint8).reshape(rgb.shape),
    "(H, W)": lambda rgb: rgb[:, :, 1],
    "(H, W, 1)": lambda rgb: rgb[:, :, 1:2],
    "(H, W, 4)": lambda rgb: np.concatenate([rgb, rgb[:, :, :1]], axis=2),
    "(1, H, W)": lambda rgb: rgb[None, :, :, 1],
    "(4, H, W)": lambda rgb: np.concatenate([rgb, rgb[:, :, :1]], axis=2).transpose(2, 0, 1),
}


@pytest.mark.parametrize("layout", ARRAYS)
@pytest.mark.parametrize("shape", [(50, 70), (32, 32), (1, 9)])
def test_arrays(mae: Path, ours: ImagePreprocessor, layout: str, shape: tuple[int, int]) -> None:
    rgb = noise(*shape)
    array = ARRAYS[layout](rgb)
    image = Image.fromarray(
        np.ascontiguousarray(
            array.transpose(1, 2, 0)
            if layout.startswith(("(3", "(4"))
            else array[:, :, 0]
            if layout == "(H, W, 1)"
            else array[0]
            if layout == "(1, H, W)"
            else array
        )
    )
    assert_same(ours([array]), expected(mae, [image]))


def test_one_array_of_images(ours: ImagePreprocessor) -> None:
    images = np.stack([noise(32, 32, seed) for seed in range(4)])
    assert_same(ours(images), ours(list(images)))
    assert_same(ours(images.transpose(0, 3, 1, 2)), ours(list(images)))
    assert_same(ours(images.transpose(0, 3, 1, 2) / 255), ours(list(images)))
    assert ours(images[:0]).shape == (0, 3, 32, 32)


@pytest.mark.parametrize("layout", ARRAYS)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_from_0_to_1_are_the_bytes_that_they_came_from(
    ours: ImagePreprocessor, layout: str, dtype: type[np.floating[Any]]
) -> None:
    array = ARRAYS[layout](noise(50, 70))
    assert_same(ours([(array / 255).astype(dtype)]), ours([array]))


def test_floats_are_taken_as_the_nearest_level(ours: ImagePreprocessor) -> None:
    level = np.full((32, 32), 0.3 + 0.4 / 255)  # 76.9 of 255
    assert_same(ours([level]), ours([np.full((32, 32), 77, np.uint8)]))


@pytest.mark.parametrize("layout", ["(H, W, 3)", "(3, H, W)"])
def test_arrays_are_what_the_processor_itself_takes_them_for(
    mae: Path, ours: ImagePreprocessor, layout: str
) -> None:
    array = ARRAYS[layout](noise(50, 70))
    processor = ViTImageProcessorPil.from_pretrained(mae)
    wanted = np.asarray(processor([array], return_tensors="np")["pixel_values"])
    assert_same(ours([array]), wanted)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_floats_as_the_processor_takes_them_that_is_told(
    mae: Path, ours: ImagePreprocessor, dtype: type[np.floating[Any]]
) -> None:
    array = (noise(50, 70).transpose(2, 0, 1) / 255).astype(dtype)
    processor = ViTImageProcessorPil.from_pretrained(mae)
    wanted = processor([array], do_rescale=False, return_tensors="np")["pixel_values"]
    np.testing.assert_allclose(ours([array]), wanted, rtol=0, atol=2e-6)


def test_tensors(mae: Path, ours: ImagePreprocessor) -> None:
    tensor = torch.from_numpy(noise(50, 70).transpose(2, 0, 1).copy())
    assert_same(ours([tensor, tensor / 255]), ours([noise(50, 70)] * 2))
    with pytest.raises(ItemError, match="image 0 cannot be read: .*requires grad"):
        ours([torch.zeros(3, 9, 9, requires_grad=True)])


def test_empty_list(ours: ImagePreprocessor) -> None:
    assert_same(ours([]), np.empty((0, 3, 32, 32), np.float32))


def test_the_image_given_is_not_changed(ours: ImagePreprocessor) -> None:
    array = noise(40, 40)
    image = Image.fromarray(array.copy())
    ours([array, image])
    np.testing.assert_array_equal(array, noise(40, 40))
    np.testing.assert_array_equal(np.asarray(image), noise(40, 40))


def test_names_that_are_no_text_and_links(
    mae: Path, ours: ImagePreprocessor, tmp_path: Path
) -> None:
    name = os.fsdecode(bytes(tmp_path) + b"/\xff\xfe.png")
    Image.fromarray(noise(20, 20)).save(name)
    link = tmp_path / "link"
    link.symlink_to(name)
    assert_same(ours([name, Path(name), link]), ours([noise(20, 20)] * 3))
    os.unlink(name)
    for lost in (name, link):
        with pytest.raises(ItemError, match="cannot be read: No such file") as raised:
            ours([lost])
        str(raised.value).encode("utf-8")  # can be printed


@pytest.mark.parametrize("workers", [1, 2, 7])
def test_workers_keep_the_order(ours: ImagePreprocessor, tmp_path: Path, workers: int) -> None:
    pictures = [noise(20 + 37 * (seed % 5), 31, seed) for seed in range(40)]
    items: list[Any] = []
    for place, picture in enumerate(pictures):
        image = Image.fromarray(picture)
        image.save(tmp_path / f"{place}.png")
        stream = io.BytesIO()
        image.save(stream, "PNG")
        lazy = Image.open(io.BytesIO(stream.getvalue()))
        items.append([tmp_path / f"{place}.png", stream.getvalue(), lazy, picture][place % 4])
    wanted = np.concatenate([ours([picture]) for picture in pictures])
    assert_same(ours(items, workers=workers), wanted)
    assert_same(ours(items), wanted)


def test_one_lazily_read_image_many_times(ours: ImagePreprocessor) -> None:
    stream = io.BytesIO()
    Image.fromarray(noise(500, 500)).save(stream, "PNG")
    wanted = ours([noise(500, 500)] * 16)
    assert_same(ours([Image.open(stream)] * 16), wanted)


def test_many_threads_share_one(ours: ImagePreprocessor) -> None:
    batches = [[noise(37, 41, seed)] for seed in range(40)]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(ours, batches))
    for batch, result in zip(batches, together, strict=True):
        assert_same(ours(batch), result)
