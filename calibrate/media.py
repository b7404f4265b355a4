"""Images, recordings and videos: found in folders, tables and arrays, and whether they can be read."""

from __future__ import annotations

import io
import os
import warnings
import wave
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from edgessl.calibrate import draw, tables
from edgessl.calibrate.rows import Bad, Rows, unreadable
from edgessl.errors import RecipeError
from edgessl.image_config import IMAGE_SUFFIXES
from edgessl.spec import Task

_CHUNK = 64 << 20  # bytes of an array that are checked at once


@dataclass(frozen=True)
class _Arrays:
    """What an .npy or .npz holds."""

    dtypes: tuple[str, ...]
    axes: str  # of its shape, as a message says it; the last is 3 where there are colours

    @property
    def dimensions(self) -> int:
        return self.axes.count(",") + 1

    def fits(self, array: npt.NDArray[Any]) -> bool:
        colours = self.axes.endswith("3")
        return (
            str(array.dtype) in self.dtypes
            and array.ndim == self.dimensions
            and (not colours or array.shape[-1] == 3)
        )

    def conversion(self, array: npt.NDArray[Any]) -> str:
        """How to make what it should be, where that is plain."""
        if self.axes.endswith("3") and array.ndim == self.dimensions - 1:
            return " Grey becomes RGB: np.repeat(array[..., None], 3, axis=-1)."
        if array.ndim != self.dimensions:
            return ""
        if self.axes.endswith("3") and array.shape[-1] != 3:
            last = array.ndim - 1
            order = (*range(last - 2), last - 1, last, last - 2)
            turn = f" Colours go last: array.transpose{order}." if array.shape[-3] == 3 else ""
            return turn or (" Drop alpha: array[..., :3]." if array.shape[-1] == 4 else "")
        if "float32" in self.dtypes:
            return " Convert it: array.astype('float32'), -1 to 1."
        if array.dtype == bool:
            return " Convert it: array.astype('uint8') * 255."
        if np.issubdtype(array.dtype, np.floating):
            return " Of 0 to 1, convert it: (array * 255).round().astype('uint8')."
        return " Of 0 to 255, convert it: array.astype('uint8')."

    def __str__(self) -> str:
        return f"{' or '.join(self.dtypes)} ({self.axes})"


_ARRAYS = {
    "image": _Arrays(("uint8",), "n, height, width, 3"),
    "audio": _Arrays(("float32", "int16"), "n, samples"),
    "video": _Arrays(("uint8",), "n, frames, height, width, 3"),
}
_FOLDERS = {
    "image": "an image encoder needs a folder of images",
    "audio": "an audio encoder needs a folder of .wav files",
    "video": "a video encoder needs a folder of folders of frames",
}
NAMES = {"text": "texts", "image": "images", "audio": "recordings", "video": "videos"}


def wanted(task: Task) -> str:
    """What a user can give, for a message."""
    tables_too = "" if task == "video" else ", a table with a column of them"
    return f"{_FOLDERS[task]}, or an .npy/.npz of {_ARRAYS[task]}{tables_too}"


def in_folder(path: Path, task: Task) -> list[str]:
    """Relative names of the images, .wav files, or folders that hold frames, below *path*."""
    suffixes = {".wav"} if task == "audio" else IMAGE_SUFFIXES
    files = (PurePosixPath(name) for name in tables.visible_files(path))
    found = (file for file in files if file.suffix.lower() in suffixes)
    return sorted({str(file.parent if task == "video" else file) for file in found})


def nothing_in(path: Path, task: Task) -> RecipeError:
    """Says what the folder holds instead."""
    kinds = Counter(os.path.splitext(name)[1].lower() for name in tables.visible_files(path))
    held = ", ".join(f"{count} {kind or 'without suffix'}" for kind, count in kinds.most_common(4))
    return RecipeError(
        f"calibration data {str(path)!r} holds no {NAMES[task]}, but "
        f"{f'files: {held}' if held else 'no files at all'}; {wanted(task)}."
    )


def from_folder(path: Path, names: list[str], task: Task, samples: int, seed: int) -> draw.Drawn:
    order = sorted(names, key=lambda name: (draw.ticket(os.fsencode(name), seed), name))
    candidates = ((name, path / name) for name in order)
    return draw.distinct(candidates, len(names), samples, _checks(task), contents)


def from_rows(
    rows: Rows, columns: list[str], folder: Path, task: Task, samples: int, seed: int
) -> draw.Drawn:
    def items(count: int) -> Iterator[tuple[str, Any]]:
        for name, value in draw.fetched(rows, columns, count, samples, seed):
            item = _cell(value, folder)
            yield f"{name}, {item}" if isinstance(item, Path) else name, item

    count = rows.count()
    return draw.distinct(items(count), count, samples, _checks(task), contents)


def _cell(value: Any, folder: Path) -> Any:
    """Encoded bytes or a path, of what a table has: that, or ``{bytes, path}``."""
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, str) and value.strip():
        return folder / value
    return value if isinstance(value, (bytes, Bad)) else Bad("", "empty")


def from_array(path: Path, task: Task, samples: int, seed: int) -> draw.Drawn:
    """Rows of an .npy, of which only those drawn are read into memory, or of an .npz.

    Raises:
        RecipeError: not such a file, of another type or shape, or with NaN or infinity in it.
    """
    array = _read(path)
    expected = _ARRAYS[task]
    if not expected.fits(array):
        raise RecipeError(
            f"calibration data {str(path)!r} is {array.dtype} {array.shape}; it should be "
            f"{expected}.{expected.conversion(array)}"
        )
    if not array.size and len(array):
        raise RecipeError(f"calibration data {str(path)!r} is {array.shape}: its items are empty.")
    if np.issubdtype(array.dtype, np.floating):
        _check_finite(array, path, task)
    order = draw.shuffled(len(array), seed)
    candidates = ((f"item {row}", np.array(array[int(row)])) for row in order)
    return draw.distinct(candidates, len(array), samples, lambda item: None, contents)


def _read(path: Path) -> npt.NDArray[Any]:
    try:
        with path.open("rb") as stream:
            if stream.read(6) != b"\x93NUMPY":
                stream.seek(0)
                with np.load(stream, allow_pickle=False) as archive:
                    return np.asarray(archive[_only(archive.files, path)])
        mapped: npt.NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
        return mapped
    except RecipeError:
        raise
    except Exception as err:  # zipfile, zlib and numpy raise a dozen unrelated types
        raise unreadable(path, err) from err


def _only(names: list[str], path: Path) -> str:
    if len(names) != 1:
        raise RecipeError(
            f"calibration data {str(path)!r} holds {len(names)} arrays ({', '.join(names[:5])}); "
            "it should hold one."
        )
    return names[0]


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
