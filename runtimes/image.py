"""Images to ``pixel_values``, exactly as transformers' Pillow processors do it, without them."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from edgessl import image_config
from edgessl.errors import BundleError, RecipeError, Unsupported
from edgessl.image_config import ImageConfig
from edgessl.spec import ImageSpec

Pixels = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class ImagePreprocessor:
    """A bundle's image processor. Nothing changes after ``open``: threads may share it.

    ``levels``: float32, ``(3, 256)``: what each of the 256 pixel values of each channel becomes.
    """

    spec: ImageSpec
    config: ImageConfig
    levels: Pixels

    @staticmethod
    def open(
        directory: Path, spec: ImageSpec, name: str = image_config.PREPROCESSOR_CONFIG
    ) -> ImagePreprocessor:
        """Read ``preprocessor_config.json``, or the file *name*, from *directory*.

        Raises:
            BundleError: the file is missing or damaged, or gives images of another size.
            Unsupported: it asks for something that edgessl does not do to an image; names it.
        """
        path = directory / name
        if spec.channels != 3:
            raise Unsupported(
                f"{path}: images with {spec.channels} channels are not supported, only 3 (RGB)."
            )
        config = image_config.read(path)
        if config.output not in (None, (spec.height, spec.width)):
            raise BundleError(
                f"{path} gives images of {_show(config.output)}, but the manifest says "
                f"{spec.height} x {spec.width} (height x width). Export the bundle again."
            )
        return ImagePreprocessor(spec, config, _levels(config))

    def __call__(
        self, images: Sequence[Any] | npt.NDArray[np.generic], *, first: int = 0
    ) -> Pixels:
        """``pixel_values``: float32, ``(n, 3, height, width)``.

        Args:
            images: paths, encoded bytes, PIL images, or uint8 arrays ``(H, W)``, ``(H, W, 1)``,
                ``(H, W, 3)``, ``(3, H, W)`` or ``(H, W, 4)`` (RGBA); or one array
                ``(n, H, W, 3)``. Turned upright by their EXIF tag and made RGB as transformers'
                ``load_image`` does (alpha is dropped, not blended). One difference: 16-bit grey
                (Pillow's ``I;16`` and ``I``) keeps its high byte, as Pillow does for 16-bit
                colour, where ``load_image`` makes everything above 255 white.
            first: index that error messages give to the first image.

        Raises:
            RecipeError: an item is no image, cannot be read, or has no clear layout; names its
                index and path.
            BundleError: the config does not bring this image to the bundle's size.
        """
        _check_list(images)
        size = (self.spec.height, self.spec.width)
        pixel_values = np.empty((len(images), 3, *size), dtype=np.float32)
        for index, item in enumerate(images):
            name = _name(item, first + index)
            pixels = self._fit(_to_rgb(item, name), name)
            if pixels.shape[:2] != size:
                raise BundleError(
                    f"{name} is {_show(pixels.shape[:2])} after preprocessing, this bundle takes "
                    f"{_show(size)} (height x width). Resize or crop it to that first."
                )
            for channel, levels in enumerate(self.levels):
                pixel_values[index, channel] = levels[pixels[:, :, channel]]
        return pixel_values

    def _fit(self, image: Image.Image, name: str) -> npt.NDArray[np.uint8]:
        """Resize and crop an RGB image: uint8, ``(H, W, 3)``."""
        size = self.config.size
        if size is not None:
            height, width = size if isinstance(size, tuple) else _with_edge(size, image, name)
            image = image.resize((width, height), resample=Image.Resampling(self.config.resample))
        pixels = np.asarray(image)
        return pixels if self.config.crop is None else _center_crop(pixels, self.config.crop)


def _levels(config: ImageConfig) -> Pixels:
    """Scale and normalise every possible pixel value, with transformers' dtypes and order."""
    levels = np.tile(np.arange(256, dtype=np.uint8), (3, 1))
    if config.scale is not None:
        values = (levels.astype(np.float64) * config.scale).astype(np.float32)
    else:
        values = levels.astype(np.float32)
    if config.mean is not None and config.std is not None:
        mean, std = (np.array(v, dtype=np.float32)[:, None] for v in (config.mean, config.std))
        values = (values - mean) / std
    return values


def _with_edge(edge: int, image: Image.Image, name: str) -> tuple[int, int]:
    """(height, width) with the shorter edge at *edge*; transformers truncates the longer one."""
    width, height = image.size
    if width <= height:
        size = int(edge * height / width), edge
    else:
        size = edge, int(edge * width / height)
    if Image.MAX_IMAGE_PIXELS is not None and size[0] * size[1] > Image.MAX_IMAGE_PIXELS:
        raise RecipeError(
            f"{name} is {_show((height, width))}: with its shorter edge at {edge} it would be "
            f"{_show(size)} (height x width), more than memory should bear. Crop it first."
        )
    return size


def _center_crop(pixels: npt.NDArray[np.uint8], size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """The middle of *pixels*; black is added around an image that is smaller, one pixel more
    before than after where the difference is odd, as transformers does."""
    before = [max(0, want - have + 1) // 2 for want, have in zip(size, pixels.shape)]
    after = [max(0, want - have) // 2 for want, have in zip(size, pixels.shape)]
    padded = np.pad(pixels, [*zip(before, after), (0, 0)])
    top, left = (max(0, have - want) // 2 for want, have in zip(size, pixels.shape))
    return padded[top : top + size[0], left : left + size[1]]


def _check_list(images: object) -> None:
    if isinstance(images, np.ndarray):
        if images.ndim != 4:
            raise RecipeError(
                f"one array of images must be (n, H, W, 3), not {images.shape}. "
                "Pass a single image in a list: [image]."
            )
    elif isinstance(images, (str, bytes, os.PathLike, Image.Image)) or not (
        hasattr(images, "__len__") and hasattr(images, "__iter__")
    ):
        raise RecipeError(
            f"expected a list of images, got {type(images).__name__}. Pass a list: [image]."
        )


def _name(item: object, index: int) -> str:
    path = item if isinstance(item, (str, os.PathLike)) else getattr(item, "filename", None)
    return f"image {index} ({os.fspath(path)!r})" if path else f"image {index}"


def _show(size: tuple[int, ...] | None) -> str:
    return " x ".join(map(str, size or ()))


def _to_rgb(item: object, name: str) -> Image.Image:
    """*item* upright and in RGB."""
    if isinstance(item, np.ndarray):
        image = _from_array(item, name)
    elif isinstance(item, (str, os.PathLike, bytes, bytearray, memoryview, Image.Image)):
        image = _read(item, name)
    else:
        raise RecipeError(
            f"{name} is of type {type(item).__name__}. "
            "Pass a path, encoded bytes, a PIL image or a uint8 array."
        )
    if 0 in image.size:
        raise RecipeError(f"{name} has no pixels: it is {_show(image.size[::-1])}.")
    return image


def _read(item: Any, name: str) -> Image.Image:
    try:
        if isinstance(item, Image.Image):
            return _upright_rgb(item, name)
        source = item if isinstance(item, (str, os.PathLike)) else io.BytesIO(item)
        with Image.open(source) as image:
            return _upright_rgb(image, name)
    except RecipeError:
        raise
    except UnidentifiedImageError as err:
        raise RecipeError(f"{name} is not an image that Pillow can read.") from err
    except Exception as err:  # decoders raise OSError, SyntaxError, ValueError, struct.error, ...
        reason = getattr(err, "strerror", None) or str(err) or type(err).__name__
        raise RecipeError(f"{name} cannot be read: {reason.rstrip('.')}.") from err


def _upright_rgb(image: Image.Image, name: str) -> Image.Image:
    image = ImageOps.exif_transpose(image)
    if image.mode == "I" or image.mode.startswith("I;16"):
        values = np.asarray(image)
        if values.min(initial=0) < 0 or values.max(initial=0) > 65535:
            raise RecipeError(
                f"{name} has 32-bit pixels outside 0..65535. Scale it to 8 bit first."
            )
        return Image.fromarray((values >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise RecipeError(
            f"{name} has floating-point pixels, whose range is unknown. Scale it to 8 bit first."
        )
    if image.mode == "P":  # the same colours by another way: the direct one warns of transparency
        image = image.convert("RGBA")
    return image.convert("RGB")


def _from_array(array: npt.NDArray[np.generic], name: str) -> Image.Image:
    if np.issubdtype(array.dtype, np.floating):
        raise RecipeError(
            f"{name} is a {array.dtype} array. Pass uint8 pixels (0..255), or, if it is "
            "preprocessed already, give it to Session.run as pixel_values."
        )
    if array.dtype != np.uint8:
        raise RecipeError(
            f"{name} is a {array.dtype} array. Scale it to 0..255 and pass .astype(numpy.uint8)."
        )
    rows_first = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (1, 3, 4))
    channels_first = array.ndim == 3 and array.shape[0] == 3
    if rows_first and channels_first:
        raise RecipeError(
            f"{name} has shape {array.shape}, which may be (H, W, C) or (C, H, W). Pass a PIL "
            "image: PIL.Image.fromarray(array) for (H, W, C)."
        )
    if not (rows_first or channels_first):
        raise RecipeError(
            f"{name} has shape {array.shape}. Pass (H, W), (H, W, 1), (H, W, 3), (3, H, W) or "
            "(H, W, 4)."
        )
    pixels = array.transpose(1, 2, 0) if channels_first else array
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    return Image.fromarray(np.ascontiguousarray(pixels)).convert("RGB")
