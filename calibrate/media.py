"""Which images, recordings and videos are drawn, and whether they can be read."""

from __future__ import annotations

import io
import os
import warnings
import wave
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgessl.calibrate import draw
from edgessl.errors import RecipeError
from edgessl.image_config import IMAGE_SUFFIXES
from edgessl.rows.base import Rows
from edgessl.rows.media import NAMES, cell, open_array
from edgessl.spec import Task

_CHUNK = 64 << 20  # bytes of an array that are checked at once


def from_folder(path: Path, names: list[str], task: Task, samples: int, seed: int) -> draw.Drawn:
    order = sorted(names, key=lambda name: (draw.ticket(os.fsencode(name), seed), name))
    candidates = ((name, path / name) for name in order)
    return draw.distinct(candidates, len(names), samples, _checks(task), contents)


def from_rows(
    rows: Rows, columns: list[str], folder: Path, task: Task, samples: int, seed: int
) -> draw.Drawn:
    def items(count: int) -> Iterator[tuple[str, Any]]:
        for name, value in draw.fetched(rows, columns, count, samples, seed):
            item = cell(value, folder)
            yield f"{name}, {item}" if isinstance(item, Path) else name, item

    count = rows.count()
    return draw.distinct(items(count), count, samples, _checks(task), contents)


def from_array(path: Path, task: Task, samples: int, seed: int) -> draw.Drawn:
    """Rows of an .npy, of which only those drawn are read into memory, or of an .npz.

    Raises:
        RecipeError: not such a file, of another type or shape, or with NaN or infinity in it.
    """
    array = open_array(path, task)
    if np.issubdtype(array.dtype, np.floating):
        _check_finite(array, path, task)
    order = draw.shuffled(len(array), seed)
    candidates = ((f"item {row}", np.array(array[int(row)])) for row in order)
    return draw.distinct(candidates, len(array), samples, lambda item: None, contents)


def _check_finite(array: npt.NDArray[Any], path: Path, task: Task) -> None:
    step = max(_CHUNK // max(array[0].nbytes, 1), 1) if len(array) else 1
    for start in range(0, len(array), step):
        rows = np.asarray(array[start : start + step])
        broken = np.flatnonzero(~np.isfinite(rows).all(axis=tuple(range(1, rows.ndim))))
        if len(broken):
            raise RecipeError(
                f"calibration data {str(path)!r}: item {start + int(broken[0])} of its "
                f"{len(array)} {NAMES[task]} holds NaN or infinity. Remove or repair it."
            )


def _checks(task: Task) -> Callable[[Any], str | None]:
    return {"image": _bad_image, "audio": _bad_recording, "video": _bad_video}[task]


def _bad_image(item: Path | bytes, pixels: bool = True) -> str | None:
    """Why Pillow cannot read it; None where it can."""
    from PIL import Image

    if isinstance(item, Path) and not item.is_file():
        return "no such file" if not item.exists() else "not a regular file"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(item if isinstance(item, Path) else io.BytesIO(item)) as image:
                if image.mode == "F":
                    return "floating-point pixels, whose range is unknown"
                if pixels:
                    image.draft("RGB", (64, 64))  # a JPEG is read whole, but not enlarged
                    image.load()
    except Exception as err:  # decoders raise OSError, SyntaxError, ValueError, struct.error, ...
        if type(err).__name__ == "UnidentifiedImageError":
            return "not an image that Pillow can read"
        return str(getattr(err, "strerror", None) or err or type(err).__name__).rstrip(".")
    return None


def _bad_recording(item: Path | bytes) -> str | None:
    if isinstance(item, Path) and not item.is_file():
        return "no such file" if not item.exists() else "not a regular file"
    try:
        with wave.open(str(item) if isinstance(item, Path) else io.BytesIO(item), "rb") as file:
            size = file.getnframes() * file.getnchannels() * file.getsampwidth()
            if len(file.readframes(file.getnframes())) < size or not size:
                return "truncated" if size else "no samples"
    except OSError as err:
        return str(err.strerror or err)
    except (wave.Error, EOFError, ValueError, RuntimeError, ArithmeticError) as err:
        return f"not a WAV file of plain PCM: {str(err) or 'it ends early'}"
    return None


def _bad_video(folder: Path) -> str | None:
    """Every frame is opened, and the first one decoded: decoding all would take too long."""
    for number, frame in enumerate(_frames(folder)):
        reason = _bad_image(frame, pixels=number == 0)
        if reason is not None:
            return f"{frame.name}: {reason}"
    return None


def _frames(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES)


def contents(item: Any) -> Iterable[bytes]:
    """What an item consists of: a text, a file, an array, or each frame of a folder."""
    if isinstance(item, str):
        return [item.encode()]
    if isinstance(item, bytes):
        return [item]
    if not isinstance(item, Path):
        return [item.tobytes()]
    return (file.read_bytes() for file in (_frames(item) if item.is_dir() else [item]))
