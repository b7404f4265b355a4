"""Calibration data: a file or folder -> a seeded sample of texts or images."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgessl.errors import RecipeError
from edgessl.spec import Task

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"})


@dataclass(frozen=True)
class Calibration:
    """``items``: texts, image paths, or uint8 arrays ``(H, W, 3)``.

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
    recursively), or an .npy/.npz with one uint8 array ``(n, H, W, 3)``.

    Raises:
        RecipeError: nothing there, not readable, or not for this task.
    """
    if samples < 1:
        raise RecipeError(f"calibration samples must be at least 1, not {samples}.")
    if not path.exists():
        raise RecipeError(f"calibration data {str(path)!r}: no such file or folder.")
    items: Sequence[Any] = _texts(path) if task == "text" else _images(path)
    if not len(items):
        raise RecipeError(f"calibration data {str(path)!r} holds no {task}s.")
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


def _images(path: Path) -> Sequence[Any]:
    if path.is_dir():
        return sorted(file for file in path.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES)
    if path.suffix not in (".npy", ".npz"):
        raise RecipeError(
            f"calibration data {str(path)!r}: an image encoder needs a folder of images, or an "
            ".npy/.npz of uint8 (n, height, width, 3)."
        )
    try:
        with path.open("rb") as stream:
            loaded = np.load(stream, allow_pickle=False)
            array = loaded if isinstance(loaded, np.ndarray) else loaded[_only(loaded.files, path)]
    except RecipeError:
        raise
    except Exception as err:  # zipfile, zlib and numpy raise a dozen unrelated types
        raise RecipeError(f"calibration data {str(path)!r} cannot be read: {err}") from err
    if array.dtype != np.uint8 or array.ndim != 4 or array.shape[-1] != 3:
        raise RecipeError(
            f"calibration data {str(path)!r} is {array.dtype} {array.shape}; "
            "it should be uint8 (n, height, width, 3)."
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
        content = (
            item.encode()
            if isinstance(item, str)
            else (item.read_bytes() if isinstance(item, Path) else item.tobytes())
        )
        digest.update(len(content).to_bytes(8, "little") + content)
    return digest.hexdigest()
