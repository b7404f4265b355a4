"""Clips to the pixels of their frames, as transformers' processors do it, without them.

VideoMAE's processor runs with Pillow, and the frames equal its. V-JEPA 2's needs torchvision: its
sizes, crop, mean and deviation are taken over, and Pillow resizes where torchvision would, which
differs by about one grey level.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgessl import image_config
from edgessl.errors import ItemError, RecipeError, Refused, refuse
from edgessl.image_config import IMAGE_SUFFIXES
from edgessl.runtimes.image import ImagePreprocessor, Pixels
from edgessl.spec import ImageSpec, VideoSpec


@dataclass(frozen=True, eq=False)
class VideoPreprocessor:
    """A bundle's video processor. Nothing changes after ``open``: threads may share it."""

    spec: VideoSpec
    images: ImagePreprocessor

    @staticmethod
    def open(directory: Path, spec: VideoSpec) -> VideoPreprocessor:
        """Read ``video_preprocessor_config.json``, else ``preprocessor_config.json``.

        Raises:
            BundleError, Unsupported: as ``ImagePreprocessor.open``.
        """
        path = image_config.video_config(directory)
        size = ImageSpec(spec.height, spec.width, spec.channels)
        return VideoPreprocessor(spec, ImagePreprocessor.open(directory, size, path.name))

    def __call__(
        self,
        clips: Sequence[Any] | npt.NDArray[np.generic],
        *,
        first: int = 0,
        refused: Refused | None = None,
    ) -> Pixels:
        """float32, ``(n, frames, 3, height, width)``.

        Args:
            clips: each a uint8 array ``(frames, H, W, 3)``; a list of frames in order (paths,
                encoded bytes, PIL images or uint8 arrays); or a folder of image files, in the
                order of the numbers in their names. Or one array ``(n, frames, H, W, 3)``.
                Of a clip's frames as many as the model takes are sampled evenly, frame
                ``i * have // want`` for the i-th; of a shorter clip some are taken again.
            first: index that error messages give to the first clip.
            refused: is told the index and the error of each clip that cannot be used, which is
                then left out; None: the error is raised.

        Raises:
            ItemError: an item is no clip, has no frames, or a frame cannot be read; names the
                clip, and the frame by its place in the clip.
        """
        self._check_list(clips)
        spec = self.spec
        pixels = np.empty(
            (len(clips), spec.frames, spec.channels, spec.height, spec.width), np.float32
        )
        used = 0
        for index, clip in enumerate(clips, first):
            try:
                self._fill(pixels[used], clip, index)
                used += 1
            except RecipeError as err:
                refuse(ItemError(str(err), index), refused, err)
        return pixels[:used]

    def _fill(self, pixels: Pixels, clip: Any, index: int) -> None:
        name = f"video {index}"
        frames = _frames(clip, name)
        previous = -1
        for place in range(self.spec.frames):
            chosen = place * len(frames) // self.spec.frames
            if chosen == previous:
                pixels[place] = pixels[place - 1]
                continue
            previous = chosen
            try:
                pixels[place] = self.images([frames[chosen]], first=chosen)[0]
            except RecipeError as err:
                raise RecipeError(f"{name}: {err}") from err

    @staticmethod
    def _check_list(clips: object) -> None:
        if isinstance(clips, np.ndarray):
            if clips.ndim != 5:
                raise RecipeError(
                    f"one array of videos must be (n, frames, H, W, 3), not {clips.shape}. "
                    "Pass a single video in a list: [video]."
                )
        elif isinstance(clips, (str, bytes, os.PathLike)) or not (
            hasattr(clips, "__len__") and hasattr(clips, "__iter__")
        ):
            raise RecipeError(
                f"expected a list of videos, got {type(clips).__name__}. Pass a list: [video]."
            )


def _frames(clip: Any, name: str) -> Sequence[Any]:
    if isinstance(clip, (str, os.PathLike)):
        frames: Sequence[Any] = _files(Path(clip), name)
    elif isinstance(clip, np.ndarray):
        if clip.ndim != 4:
            raise RecipeError(f"{name} has shape {clip.shape}; it should be (frames, H, W, 3).")
        frames = list(clip)
    elif isinstance(clip, (list, tuple)):
        frames = clip
    else:
        raise RecipeError(
            f"{name} is of type {type(clip).__name__}. Pass a uint8 array (frames, H, W, 3), a list "
            "of frames, or a folder of image files."
        )
    if not len(frames):
        raise RecipeError(f"{name} has no frames.")
    return frames


def _files(folder: Path, name: str) -> list[Path]:
    if not folder.exists():
        raise RecipeError(f"{name} ({str(folder)!r}): no such folder.")
    if not folder.is_dir():
        raise RecipeError(
            f"{name} ({str(folder)!r}) is a file; edgessl reads frames. Extract them into a "
            f"folder and pass that: ffmpeg -i {folder.name} FOLDER/%06d.png"
        )
    files = [file for file in folder.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES]
    if not files:
        raise RecipeError(f"{name} ({str(folder)!r}) has no frames: no image files in it.")
    return sorted(files, key=in_order)


def in_order(file: Path) -> list[Any]:
    """Sorts names as a reader does: frame2 before frame10."""
    parts = re.split(r"(\d+)", file.name)
    return [int(part) if position % 2 else part for position, part in enumerate(parts)]
