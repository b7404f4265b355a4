"""Pictures for the tests of image preprocessing, and transformers' own processors beside ours."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw
from transformers.image_processing_backends import PilBackend
from transformers.image_utils import load_image
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

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


def png(depth: int, colour: int, row: bytes, width: int, height: int = 1) -> bytes:
    """A PNG of one row, written by hand: Pillow writes no 16-bit colour."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = chunk(b"IDAT", zlib.compress(b"\0" + row))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + body + chunk(b"IEND", b"")
