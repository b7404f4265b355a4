"""Calibration data: a file or folder -> a seeded sample of texts, images, audio or videos."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgessl.errors import RecipeError
from edgessl.image_config import IMAGE_SUFFIXES
from edgessl.spec import Task


@dataclass(frozen=True)
class _Arrays:
    """What an .npy or .npz holds."""

    dtypes: tuple[str, ...]
    axes: str  # of its shape, as a message says it; the last is 3 where there are colours

    def fits(self, array: npt.NDArray[Any]) -> bool:
        dimensions = self.axes.count(",") + 1
        colours = self.axes.endswith("3")
        return (
            str(array.dtype) in self.dtypes
            and array.ndim == dimensions
            and (not colours or array.shape[-1] == 3)
        )

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
_NAMES = {"text": "texts", "image": "images", "audio": "recordings", "video": "videos"}


@dataclass(frozen=True)
class Calibration:
    """``items``: texts; paths of images, .wav files or folders of frames; or arrays: uint8
    ``(H, W, 3)`` or ``(frames, H, W, 3)``, float32 or int16 ``(samples,)``.

    ``sha256`` is over the content of the chosen items, so it names the data and not the file.
    """

    items: list[Any]
    source: str
    sha256: str

    def to_json(self) -> dict[str, Any]:
        return {"source": self.source, "samples": len(self.items), "sha256": self.sha256}


def load(path: Path, task: Task, samples: int, seed: int) -> Calibration:
    """Draw *samples* distinct items from *path*, the same ones for the same *seed*.

    Texts: a UTF-8 file, a text a line, empty lines skipped. Images: a folder (searched
    recursively), or an .npy/.npz with one uint8 array ``(n, H, W, 3)``. Audio: a folder of .wav
    files (searched recursively), or an array ``(n, samples)``, float32 or int16. Videos: a folder
    in which each folder that holds images is a video, or a uint8 array ``(n, frames, H, W, 3)``.

    Raises:
        RecipeError: nothing there, not readable, or not for this task.
    """
    if samples < 1:
        raise RecipeError(f"calibration samples must be at least 1, not {samples}.")
    if not path.exists():
        raise RecipeError(f"calibration data {str(path)!r}: no such file or folder.")
    items: Sequence[Any] = _texts(path) if task == "text" else _files_or_arrays(path, task)
    if not len(items):
        raise RecipeError(f"calibration data {str(path)!r} holds no {_NAMES[task]}.")
    order = np.random.default_rng(seed).permutation(len(items))[:samples]
    chosen = [items[int(index)] for index in order]
    return Calibration(chosen, path.name, _sha256(chosen))


def _texts(path: Path) -> list[str]:
    if path.is_dir():
        raise RecipeError(
            f"calibration data {str(path)!r} is a folder; a text encoder needs a text file with "
            "a text a line."
        )
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as err:
        raise RecipeError(
            f"calibration data {str(path)!r} is not UTF-8 text (byte {err.start}); it should be "
            "a text file with a text a line."
        ) from err
    except OSError as err:
        raise RecipeError(f"calibration data {str(path)!r}: {err.strerror}.") from err
    return list(dict.fromkeys(line.strip() for line in lines if line.strip()))


def _files_or_arrays(path: Path, task: Task) -> Sequence[Any]:
    wanted = _ARRAYS[task]
    if path.is_dir():
        suffixes = {".wav"} if task == "audio" else IMAGE_SUFFIXES
        files = [file for file in path.rglob("*") if file.suffix.lower() in suffixes]
        return sorted({file.parent for file in files} if task == "video" else files)
    if path.suffix not in (".npy", ".npz"):
        raise RecipeError(
            f"calibration data {str(path)!r}: {_FOLDERS[task]}, or an .npy/.npz of {wanted}."
        )
    try:
        with path.open("rb") as stream:
            loaded = np.load(stream, allow_pickle=False)
            array = loaded if isinstance(loaded, np.ndarray) else loaded[_only(loaded.files, path)]
    except RecipeError:
        raise
    except Exception as err:  # zipfile, zlib and numpy raise a dozen unrelated types
        raise RecipeError(f"calibration data {str(path)!r} cannot be read: {err}") from err
    if not wanted.fits(array):
        raise RecipeError(
            f"calibration data {str(path)!r} is {array.dtype} {array.shape}; it should be {wanted}."
        )
    return list(array)


def _only(names: list[str], path: Path) -> str:
    if len(names) != 1:
        raise RecipeError(
            f"calibration data {str(path)!r} holds {len(names)} arrays ({', '.join(names[:5])}); "
            "it should hold one."
        )
    return names[0]


def _sha256(items: list[Any]) -> str:
    digest = hashlib.sha256()
    for item in items:
        for content in _contents(item):
            digest.update(len(content).to_bytes(8, "little") + content)
    return digest.hexdigest()


def _contents(item: Any) -> list[bytes]:
    if isinstance(item, str):
        return [item.encode()]
    if not isinstance(item, Path):
        return [item.tobytes()]
    if not item.is_dir():
        return [item.read_bytes()]
    frames = [file for file in item.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES]
    return [file.read_bytes() for file in sorted(frames)]
