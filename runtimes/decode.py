"""Anything that is an image, as RGB bytes: files, encoded bytes, PIL images and arrays."""

from __future__ import annotations

import io
import math
import os
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

Bytes = npt.NDArray[np.uint8]

_ENCODED = (str, os.PathLike, bytes, bytearray, memoryview)
_DECODED = 8  # bytes of a photograph for each of its JPEG
_ORIENTATION = 0x0112  # of EXIF; 2 to 8 are turned or mirrored


class Unusable(Exception):
    """Why an image cannot be taken; who knows its index says which it is."""


def to_rgb(item: object) -> Image.Image | Bytes:
    """*item* upright and in RGB: a PIL image, or a uint8 array ``(H, W, 3)`` made from an array.

    Raises:
        Unusable: it is no image, cannot be read, or has no clear layout or range.
    """
    image: Image.Image | Bytes
    if isinstance(item, (Image.Image, *_ENCODED)):
        image = _read(item)
    elif hasattr(item, "__array__"):  # numpy's, and a torch.Tensor on the CPU
        image = _from_array(_array(item))
    else:
        raise Unusable(
            f"is of type {type(item).__name__}. Pass a path, encoded bytes, a PIL image or an array."
        )
    size = size_of(image)
    if 0 in size:
        raise Unusable(f"has no pixels: it is {size[0]} x {size[1]}.")
    return image


def size_of(image: Image.Image | Bytes) -> tuple[int, int]:
    """Height and width in pixels."""
    if isinstance(image, Image.Image):
        return image.height, image.width
    return image.shape[0], image.shape[1]


def cost(item: Any) -> int:
    """Roughly how many bytes an image has once it is decoded, to weigh threads against."""
    if isinstance(item, (str, os.PathLike)):
        try:
            return _DECODED * os.stat(item).st_size
        except (OSError, ValueError):  # it will be said when it is read
            return 0
    if isinstance(item, (bytes, bytearray, memoryview)):
        return _DECODED * len(item)
    if isinstance(item, Image.Image):
        return 3 * item.width * item.height
    return math.prod(getattr(item, "shape", ()))


def _read(item: Any) -> Image.Image:
    try:
        if isinstance(item, Image.Image):
            return _upright_rgb(item)
        source = item if isinstance(item, (str, os.PathLike)) else io.BytesIO(item)
        with Image.open(source) as image:
            _check_bomb(image)
            return _upright_rgb(image)
    except Unusable:
        raise
    except UnidentifiedImageError as err:
        empty = ": it is empty" if _is_empty(item) else ""
        raise Unusable(f"is not an image that Pillow can read{empty}.") from err
    except Exception as err:  # decoders raise OSError, SyntaxError, ValueError, struct.error, ...
        reason = getattr(err, "strerror", None) or str(err) or type(err).__name__
        raise Unusable(f"cannot be read: {reason.rstrip('.')}.") from err


def _is_empty(item: Any) -> bool:
    if isinstance(item, (str, os.PathLike)):
        return os.stat(item).st_size == 0
    return len(item) == 0


def _check_bomb(image: Image.Image) -> None:
    """Pillow itself only warns up to twice its limit, after which come gigabytes."""
    limit = Image.MAX_IMAGE_PIXELS
    width, height = image.size
    if limit is not None and width * height > limit:
        raise Unusable(
            f"cannot be read: {height} x {width} pixels may be a decompression bomb. If it is "
            "none, raise PIL.Image.MAX_IMAGE_PIXELS."
        )


def _upright_rgb(image: Image.Image) -> Image.Image:
    image.load()
    if image.getexif().get(_ORIENTATION, 1) != 1:
        image = ImageOps.exif_transpose(image)
    if image.mode == "RGB":
        return image
    if image.mode == "I" or image.mode.startswith("I;16"):
        values = np.asarray(image)
        if values.min(initial=0) < 0 or values.max(initial=0) > 65535:
            raise Unusable("has 32-bit pixels outside 0..65535. Scale it to 8 bit first.")
        return Image.fromarray((values >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise Unusable(
            "has floating-point pixels, whose range is unknown. Scale it to 8 bit first."
        )
    if image.mode == "P":  # the same colours by another way: the direct one warns of transparency
        image = image.convert("RGBA")
    return image.convert("RGB")


def _array(item: Any) -> npt.NDArray[Any]:
    if isinstance(item, np.ndarray):
        return item
    try:
        return np.asarray(item)
    except Exception as err:  # a tensor on another device, or one that keeps gradients
        raise Unusable(f"cannot be read: {str(err) or type(err).__name__}") from err


def _from_array(array: npt.NDArray[Any]) -> Bytes:
    if array.dtype != np.uint8 and not np.issubdtype(array.dtype, np.floating):
        raise Unusable(
            f"is a {array.dtype} array. Scale it to 0..255 and pass .astype(numpy.uint8)."
        )
    rows_first = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (1, 3, 4))
    channels_first = array.ndim == 3 and array.shape[0] in (1, 3, 4)
    if rows_first and channels_first and array.shape[0] == 3:
        raise Unusable(
            f"has shape {array.shape}, which may be (H, W, C) or (C, H, W). Pass a PIL image: "
            "PIL.Image.fromarray(array) for (H, W, C)."
        )
    if not (rows_first or channels_first):
        raise Unusable(
            f"has shape {array.shape}. Pass (H, W), (H, W, C) or (C, H, W), C being 1, 3 or 4."
        )
    if not rows_first:
        array = array.transpose(1, 2, 0)
    if array.ndim == 2:
        array = array[:, :, None]
    array = array[:, :, :3]  # without alpha
    pixels = array if array.dtype == np.uint8 else _to_bytes(array)
    return np.broadcast_to(pixels, (*pixels.shape[:2], 3))


def _to_bytes(array: npt.NDArray[Any]) -> Bytes:
    low, high = (array.min(), array.max()) if array.size else (0, 1)
    if not (low >= 0 and high <= 1):
        found = f"from {low:g} to {high:g}" if np.isfinite([low, high]).all() else "NaN or infinite"
        raise Unusable(
            f"has floating-point pixels that are {found}; they must lie in 0..1. Divide 0..255 by "
            "255, or pass it as uint8; what is preprocessed already goes to Session.run as "
            "pixel_values."
        )
    levels: Bytes = np.rint(array * array.dtype.type(255)).astype(np.uint8)
    return levels
