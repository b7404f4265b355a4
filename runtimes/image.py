"""Images to ``pixel_values``, exactly as transformers' Pillow processors do it, without them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from edgessl import image_config
from edgessl.errors import BundleError, ItemError, RecipeError, Refused, Unsupported
from edgessl.image_config import ImageConfig
from edgessl.runtimes import decode
from edgessl.runtimes.workers import each, usable_cores
from edgessl.spec import ImageSpec

Pixels = npt.NDArray[np.float32]

# Bytes of a batch, and of an image in it, below which threads take longer than they save.
_WORTH_THREADS = 400_000
_WORTH_A_THREAD = 50_000


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
        self,
        images: Sequence[Any] | npt.NDArray[np.generic],
        *,
        first: int = 0,
        refused: Refused | None = None,
        workers: int | None = None,
    ) -> Pixels:
        """``pixel_values``: float32, ``(n, 3, height, width)``.

        Args:
            images: paths, encoded bytes, PIL images, or arrays ``(H, W)``, ``(H, W, C)`` or
                ``(C, H, W)`` with 1, 3 or 4 (RGBA) channels: uint8, or floats in 0..1, which are
                taken as the nearest of 256 levels. Or one array of images, ``(n, H, W, C)`` or
                ``(n, C, H, W)``. Turned upright by their EXIF tag and made RGB as transformers'
                ``load_image`` does (alpha is dropped, not blended). One difference: 16-bit grey
                (Pillow's ``I;16`` and ``I``) keeps its high byte, as Pillow does for 16-bit
                colour, where ``load_image`` makes everything above 255 white.
            first: index that error messages give to the first image.
            refused: is told the index and the error of each image that cannot be used, which is
                then left out; None: the error is raised.
            workers: threads that decode and resize; None: one a core. So many decoded images are
                in memory at once.

        Raises:
            ItemError: an item is no image, cannot be read, has no clear layout or range, or is not
                brought to the bundle's size by its config; names its index and path.
            RecipeError: *images* is no list.
        """
        _check_list(images)
        count = len(images)
        pixel_values = np.empty((count, 3, self.spec.height, self.spec.width), dtype=np.float32)

        def fill(place: int) -> None:
            try:
                self._fill(pixel_values[place], decode.to_rgb(images[place]))
            except decode.Unusable as err:
                name = _name(images[place], first + place)
                raise ItemError(f"{name} {err}", first + place) from err.__cause__

        if workers is None:
            workers = usable_cores() if _parallel(images) else 1
        errors = each(fill, count, workers, all_errors=refused is not None)
        if not errors:
            return pixel_values
        if refused is None:
            raise errors[0][1]
        for place, error in errors:
            refused(first + place, error)
        bad = [place for place, _ in errors]
        kept: Pixels = np.delete(pixel_values, bad, axis=0)
        return kept

    def _fill(self, planes: Pixels, image: Image.Image | decode.Bytes) -> None:
        """Put an RGB image, resized, cropped, scaled and normalised, into *planes*."""
        pixels = self._fit(image)
        if pixels.shape[:2] != planes.shape[1:]:
            raise decode.Unusable(
                f"is {_show(pixels.shape[:2])} after preprocessing, this bundle takes "
                f"{_show(planes.shape[1:])} (height x width). Resize or crop it to that first."
            )
        for channel, levels in enumerate(self.levels):
            np.take(levels, pixels[:, :, channel], out=planes[channel], mode="clip")

    def _fit(self, image: Image.Image | decode.Bytes) -> decode.Bytes:
        """Resize and crop an RGB image: uint8, ``(H, W, 3)``."""
        have = decode.size_of(image)
        size = self.config.size
        if size is not None:
            height, width = size if isinstance(size, tuple) else _with_edge(size, *have)
            if have != (height, width):
                if isinstance(image, np.ndarray):
                    image = Image.fromarray(np.ascontiguousarray(image))
                resample = Image.Resampling(self.config.resample)
                image = image.resize((width, height), resample=resample)
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


def _with_edge(edge: int, height: int, width: int) -> tuple[int, int]:
    """(height, width) with the shorter edge at *edge*; transformers truncates the longer one."""
    if width <= height:
        size = int(edge * height / width), edge
    else:
        size = edge, int(edge * width / height)
    if Image.MAX_IMAGE_PIXELS is not None and size[0] * size[1] > Image.MAX_IMAGE_PIXELS:
        raise decode.Unusable(
            f"is {_show((height, width))}: with its shorter edge at {edge} it would be "
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


def _parallel(images: Sequence[Any] | npt.NDArray[np.generic]) -> bool:
    """Whether threads bring more than they cost, and may be: a PIL image that is there twice
    would be decoded by two of them at once."""
    if len(images) < 2:
        return False
    cost = sum(map(decode.cost, images))
    if cost < max(_WORTH_THREADS, len(images) * _WORTH_A_THREAD):
        return False
    lazy = [id(image) for image in images if isinstance(image, Image.Image)]
    return len(set(lazy)) == len(lazy)


def _check_list(images: object) -> None:
    if isinstance(images, np.ndarray):
        if images.ndim != 4:
            raise RecipeError(
                f"one array of images must be (n, H, W, C) or (n, C, H, W), not {images.shape}. "
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
