"""Images, recordings and videos: found in folders, tables and arrays."""

from __future__ import annotations

import contextlib
import math
import os
import zipfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from edgessl.errors import RecipeError
from edgessl.image_config import IMAGE_SUFFIXES
from edgessl.rows import tables
from edgessl.rows.base import Bad, unreadable
from edgessl.spec import Task


@dataclass(frozen=True)
class _Arrays:
    """What an .npy or .npz holds."""

    dtypes: tuple[str, ...]
    axes: str  # of its shape, as a message says it; the last is 3 where there are colours

    @property
    def dimensions(self) -> int:
        return self.axes.count(",") + 1

    def check(self, array: npt.NDArray[Any], path: Path) -> None:
        """Raise a ``RecipeError`` that says what *array* is and what it should be."""
        if not self._fits(array):
            raise RecipeError(
                f"data {str(path)!r} is {array.dtype} {array.shape}; it should be "
                f"{self}.{self._conversion(array)}"
            )
        if not array.size and len(array):
            raise RecipeError(f"data {str(path)!r} is {array.shape}: its items are empty.")

    def _fits(self, array: npt.NDArray[Any]) -> bool:
        colours = self.axes.endswith("3")
        return (
            str(array.dtype) in self.dtypes
            and array.ndim == self.dimensions
            and (not colours or array.shape[-1] == 3)
        )

    def _conversion(self, array: npt.NDArray[Any]) -> str:
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
        f"data {str(path)!r} holds no {NAMES[task]}, but "
        f"{f'files: {held}' if held else 'no files at all'}; {wanted(task)}."
    )


def cell(value: Any, folder: Path) -> Any:
    """Encoded bytes or a path, of what a table has: that, or ``{bytes, path}``."""
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, str) and value.strip():
        return folder / value
    return value if isinstance(value, (bytes, Bad)) else Bad("", "empty")


def open_array(path: Path, task: Task) -> npt.NDArray[Any]:
    """The one array of an .npy, which stays on the disk, or of an .npz, which is read.

    Raises:
        RecipeError: not such a file, or of another type or shape than *task* needs.
    """
    array = _read(path)
    _ARRAYS[task].check(array, path)
    return array


def check_array(array: npt.NDArray[Any], path: Path, task: Task) -> None:
    """Raise a ``RecipeError`` where an array of *path* is of another type or shape than *task*
    needs."""
    _ARRAYS[task].check(array, path)


@dataclass(frozen=True)
class StreamedArray:
    """The one array of an .npy or .npz, read item by item."""

    path: Path
    shape: tuple[int, ...]
    dtype: npt.DTypeLike

    @staticmethod
    def open(path: Path, task: Task) -> StreamedArray:
        """Raises ``RecipeError``, as ``open_array`` does."""
        with _member(path) as (shape, dtype, _):
            # a view of one element: nothing is in memory
            _ARRAYS[task].check(np.broadcast_to(np.empty((), dtype), shape), path)
            return StreamedArray(path, shape, dtype)

    def items(self, start: int) -> Iterator[npt.NDArray[Any]]:
        with _member(self.path) as (shape, dtype, stream):
            size = math.prod(shape[1:]) * dtype.itemsize
            stream.seek(start * size, os.SEEK_CUR)
            for _ in range(start, shape[0]):
                content = stream.read(size)
                if len(content) < size:
                    raise unreadable(self.path, "its end is missing")
                yield np.frombuffer(content, dtype).reshape(shape[1:])


@contextlib.contextmanager
def _member(path: Path) -> Iterator[tuple[tuple[int, ...], np.dtype[Any], IO[bytes]]]:
    """Shape, dtype, and the bytes of the array, of which nothing is read yet."""
    with contextlib.ExitStack() as stack:
        try:
            stream: IO[bytes] = stack.enter_context(path.open("rb"))
            if stream.read(6) != b"\x93NUMPY":
                stream.seek(0)
                archive = stack.enter_context(zipfile.ZipFile(stream))
                stream = stack.enter_context(archive.open(_only(archive.namelist(), path)))
                stream.read(6)
            version = tuple(stream.read(2))
            read = np.lib.format.read_array_header_1_0
            if version != (1, 0):
                read = np.lib.format.read_array_header_2_0
            shape, fortran, dtype = read(stream)
            if fortran and len(shape) > 1:
                raise unreadable(path, "it is in Fortran order: np.ascontiguousarray(array)")
            yield shape, dtype, stream
        except RecipeError:
            raise
        except Exception as err:  # zipfile, zlib and numpy raise a dozen unrelated types
            raise unreadable(path, err) from err


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
            f"data {str(path)!r} holds {len(names)} arrays ({', '.join(names[:5])}); "
            "it should hold one."
        )
    return names[0]
