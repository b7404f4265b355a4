"""ImagePreprocessor against transformers' own Pillow processors: the same floats, bit for bit."""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from transformers.image_processing_backends import PilBackend
from transformers.image_utils import load_image
from transformers.models.beit.image_processing_pil_beit import BeitImageProcessorPil
from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.convnext.image_processing_pil_convnext import ConvNextImageProcessorPil
from transformers.models.deit.image_processing_pil_deit import DeiTImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from edgessl.errors import BundleError, EdgesslError, RecipeError, Unsupported
from edgessl.runtimes.image import ImagePreprocessor
from edgessl.spec import ImageSpec

Array = npt.NDArray[np.uint8]

CROP = {
    "image_processor_type": "ViTImageProcessor",
    "do_center_crop": True,
    "crop_size": {"height": 224, "width": 224},
    "size": {"shortest_edge": 256},
    "resample": 3,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
}


def noise(height: int, width: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def smooth(height: int, width: int) -> Array:
    y, x = np.mgrid[0:height, 0:width]
    planes = (np.sin(x / 17) * 127 + 128, x * 255 / width, (x + y) * 255 / (height + width))
    return np.stack(planes, axis=-1).astype(np.uint8)


def shapes(height: int, width: int) -> Array:
    image = Image.new("RGB", (width, height), "teal")
    draw = ImageDraw.Draw(image)
    draw.ellipse((width // 8, height // 8, width // 2, height - 2), fill="orange", outline="black")
    draw.line((0, 0, width, height), fill="white", width=3)
    return np.asarray(image)


PICTURES = {
    "cifar": noise(32, 32),
    "pixel": noise(1, 1),
    "row": noise(1, 19),
    "wide": smooth(40, 700),
    "tall": shapes(611, 45),
    "odd": smooth(231, 229),
    "photo": shapes(480, 640),
    "large": np.kron(noise(60, 41), np.ones((20, 20, 1), np.uint8)),
}


def write(directory: Path, config: dict[str, Any]) -> Path:
    directory.mkdir(exist_ok=True)
    (directory / "preprocessor_config.json").write_text(json.dumps(config))
    return directory


def open_224(directory: Path, config: dict[str, Any]) -> ImagePreprocessor:
    return ImagePreprocessor.open(write(directory, config), ImageSpec(224, 224))


def expected(
    directory: Path, images: list[Image.Image], processor: type[PilBackend] = ViTImageProcessorPil
) -> npt.NDArray[np.float32]:
    upright = [load_image(image) for image in images]
    values = processor.from_pretrained(directory)(upright, return_tensors="np")["pixel_values"]
    return np.asarray(values)


def assert_same(actual: object, wanted: npt.NDArray[np.float32]) -> None:
    assert wanted.dtype == np.float32
    np.testing.assert_array_equal(actual, wanted, strict=True)


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


@pytest.mark.parametrize(
    ("config", "processor"),
    [
        ({}, ViTImageProcessorPil),
        ({"size": 224}, ViTImageProcessorPil),
        (
            {"size": [224, 224], "do_normalize": None, "crop_pct": None},
            ViTImageProcessorPil,
        ),
        ({"size": 224, "feature_extractor_type": "ViTFeatureExtractor"}, ViTImageProcessorPil),
        ({"image_processor_type": "ViTImageProcessorFast", "size": 224}, ViTImageProcessorPil),
        (
            {"feature_extractor_type": "DeiTFeatureExtractor", "size": 256, "crop_size": 224},
            DeiTImageProcessorPil,
        ),
        ({"image_processor_type": "DeiTImageProcessor"}, DeiTImageProcessorPil),
        ({"image_processor_type": "BeitImageProcessor"}, BeitImageProcessorPil),
        ({"image_processor_type": "BitImageProcessor"}, BitImageProcessorPil),
        (
            {"image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 256}},
            BitImageProcessorPil,
        ),
        ({"feature_extractor_type": "CLIPFeatureExtractor", "size": 224}, CLIPImageProcessorPil),
        ({"image_processor_type": "SiglipImageProcessor"}, SiglipImageProcessorPil),
        (
            {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 224}},
            ConvNextImageProcessorPil,
        ),
        (
            {"image_processor_type": "ConvNextImageProcessor", "size": 224, "crop_pct": 0.95},
            ConvNextImageProcessorPil,
        ),
    ],
)
def test_defaults_of_each_processor(
    tmp_path: Path, config: dict[str, Any], processor: type[PilBackend]
) -> None:
    ours = open_224(tmp_path, config)
    for name in ("photo", "cifar", "wide"):
        image = Image.fromarray(PICTURES[name])
        assert_same(ours([image]), expected(tmp_path, [image], processor))


@pytest.mark.parametrize(
    "processor", [ViTImageProcessorPil, BitImageProcessorPil, CLIPImageProcessorPil]
)
def test_what_transformers_saves_is_read(tmp_path: Path, processor: type[PilBackend]) -> None:
    processor().save_pretrained(tmp_path)
    ours = ImagePreprocessor.open(tmp_path, ImageSpec(224, 224))
    image = Image.fromarray(PICTURES["photo"])
    assert_same(ours([image]), expected(tmp_path, [image], processor))


def test_convnext_squeezes_large_sizes(tmp_path: Path) -> None:
    (tmp_path / "preprocessor_config.json").write_text(
        json.dumps({"image_processor_type": "ConvNextImageProcessor", "size": 384})
    )
    ours = ImagePreprocessor.open(tmp_path, ImageSpec(384, 384))
    image = Image.fromarray(PICTURES["photo"])
    assert_same(ours([image]), expected(tmp_path, [image], ConvNextImageProcessorPil))


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


def png(depth: int, colour: int, row: bytes, width: int, height: int = 1) -> bytes:
    """A PNG of one row, written by hand: Pillow writes no 16-bit colour."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = chunk(b"IDAT", zlib.compress(b"\0" + row))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + body + chunk(b"IEND", b"")


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
}


@pytest.mark.parametrize("layout", ARRAYS)
@pytest.mark.parametrize("shape", [(50, 70), (32, 32), (1, 9)])
def test_arrays(mae: Path, ours: ImagePreprocessor, layout: str, shape: tuple[int, int]) -> None:
    rgb = noise(*shape)
    array = ARRAYS[layout](rgb)
    image = Image.fromarray(
        np.ascontiguousarray(
            array.transpose(1, 2, 0)
            if layout.startswith("(3")
            else array[:, :, 0]
            if layout == "(H, W, 1)"
            else array
        )
    )
    assert_same(ours([array]), expected(mae, [image]))


def test_one_array_of_images(ours: ImagePreprocessor) -> None:
    images = np.stack([noise(32, 32, seed) for seed in range(4)])
    assert_same(ours(images), ours(list(images)))
    assert ours(images[:0]).shape == (0, 3, 32, 32)


def test_empty_list(ours: ImagePreprocessor) -> None:
    assert_same(ours([]), np.empty((0, 3, 32, 32), np.float32))


def test_the_image_given_is_not_changed(ours: ImagePreprocessor) -> None:
    array = noise(40, 40)
    image = Image.fromarray(array.copy())
    ours([array, image])
    np.testing.assert_array_equal(array, noise(40, 40))
    np.testing.assert_array_equal(np.asarray(image), noise(40, 40))


def test_many_threads_share_one(ours: ImagePreprocessor) -> None:
    batches = [[noise(37, 41, seed)] for seed in range(40)]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(ours, batches))
    for batch, result in zip(batches, together, strict=True):
        assert_same(ours(batch), result)


@pytest.mark.parametrize(
    ("item", "says"),
    [
        (np.zeros((8, 8, 3), np.float32), "float32 array.*Session.run as pixel_values"),
        (np.zeros((3, 8, 8), np.float64), "float64 array.*Session.run"),
        (np.zeros((8, 8, 3), np.int64), r"int64 array.*astype\(numpy.uint8\)"),
        (np.zeros((8, 8), np.uint16), "uint16 array. Scale"),
        (np.zeros((8, 8), bool), "bool array"),
        (np.zeros((3, 8, 3), np.uint8), r"shape \(3, 8, 3\), which may be"),
        (np.zeros((3, 1, 1), np.uint8), "which may be"),
        (np.zeros((3, 5, 4), np.uint8), "which may be"),
        (np.zeros((8, 8, 2), np.uint8), r"shape \(8, 8, 2\). Pass"),
        (np.zeros((1, 8, 8), np.uint8), r"shape \(1, 8, 8\). Pass"),
        (np.zeros(8, np.uint8), r"shape \(8,\). Pass"),
        (np.zeros((2, 8, 8, 3), np.uint8), r"shape \(2, 8, 8, 3\). Pass"),
        (np.zeros((0, 8, 3), np.uint8), "no pixels"),
        (Image.new("RGB", (0, 5)), "no pixels"),
        (Image.new("I", (5, 0)), "no pixels"),
        (Image.new("F", (5, 5)), "floating-point pixels"),
        (Image.new("I", (5, 5), 70000), "32-bit pixels"),
        (Image.new("I", (5, 5), -1), "32-bit pixels"),
        (Image.new("La", (5, 5)), "cannot be read: conversion from La"),
        (b"", "not an image that Pillow can read"),
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
    with pytest.raises(RecipeError, match=rf"^image 1\b.*{says}"):
        ours([noise(32, 32), item])
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


def test_config_that_leaves_another_size(tmp_path: Path) -> None:
    ours = open_224(tmp_path, {"size": {"shortest_edge": 224}})
    assert ours([noise(300, 300)]).shape == (1, 3, 224, 224)
    with pytest.raises(BundleError, match="image 1 is 224 x 448 after .* takes 224 x 224"):
        ours([noise(300, 300), noise(100, 200)])


@pytest.mark.parametrize(
    ("config", "error", "says"),
    [
        ({"size": 256}, BundleError, "images of 256 x 256, but the manifest says 224 x 224"),
        ({**CROP, "crop_size": 192}, BundleError, "images of 192 x 192"),
        ({"do_center_crop": True}, BundleError, "crop_size"),
        ({"crop_size": {"shortest_edge": 9}, "do_center_crop": True}, BundleError, "crop_size"),
        ({"size": "224"}, BundleError, "size is '224'"),
        ({"size": {"height": 224.5, "width": 224}}, BundleError, "whole numbers"),
        ({"size": {"height": 0, "width": 224}}, BundleError, "whole numbers"),
        ({"resample": 6}, BundleError, "resample is 6"),
        ({"resample": "bicubic"}, BundleError, "resample is 'bicubic'"),
        ({"rescale_factor": "1/255"}, BundleError, "rescale_factor is '1/255'"),
        ({"image_mean": [0.5]}, BundleError, "image_mean has 1 values, expected 3"),
        ({"image_mean": [0.5, 0.5, float("nan")]}, BundleError, "image_mean is nan"),
        ({"image_mean": None}, BundleError, "image_mean is None"),
        ({"resample": None}, BundleError, "resample is None"),
        ({"size": None}, BundleError, "size is None"),
        ({"image_std": [1, 0, 1]}, BundleError, "image_std is 0"),
        ({"crop_pct": 0.875}, Unsupported, "crop_pct = 0.875"),
        ({"do_pad": True, "pad_size": 224}, Unsupported, "do_pad = True"),
        ({"rescale_offset": True}, Unsupported, "rescale_offset"),
        ({"do_flip_channel_order": True}, Unsupported, "do_flip_channel_order"),
        ({"data_format": "channels_last"}, Unsupported, "data_format"),
        ({"size": {"longest_edge": 224}}, Unsupported, "longest_edge"),
        ({"size": {"shortest_edge": 9, "longest_edge": 19}}, Unsupported, "longest_edge"),
        ({"image_processor_type": "LevitImageProcessor"}, Unsupported, "'LevitImage"),
    ],
)
def test_config_that_cannot_be_followed(
    tmp_path: Path, config: dict[str, Any], error: type[EdgesslError], says: str
) -> None:
    with pytest.raises(error, match=rf"preprocessor_config\.json.*{says}"):
        open_224(tmp_path, config)


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff\xfe", b"[" * 100_000])
def test_damaged_config(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "preprocessor_config.json").write_bytes(content)
    with pytest.raises(BundleError, match=r"preprocessor_config\.json: damaged"):
        ImagePreprocessor.open(tmp_path, ImageSpec(224, 224))


def test_missing_config(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"preprocessor_config\.json is missing"):
        ImagePreprocessor.open(tmp_path, ImageSpec(224, 224))


def test_only_rgb(mae: Path) -> None:
    with pytest.raises(Unsupported, match="1 channels"):
        ImagePreprocessor.open(mae, ImageSpec(32, 32, channels=1))
