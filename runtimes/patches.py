"""Which patches of an image an encoder looks at that was pretrained seeing only some (MAE)."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgessl.backend import Arrays
from edgessl.errors import RecipeError, nearest
from edgessl.runtimes.options import PATCHES
from edgessl.spec import PATCH_INDICES, EncoderSpec, ImageSpec

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class PatchChoice:
    """``kept`` of the patches of a ``grid`` (rows, columns), chosen by ``patches``:

    - ``grid``: the same ones of every image, as evenly spread as their number allows.
    - ``random``: of each image its own. The same image and ``seed`` give the same patches, in
      whatever batch and job.
    - ``saliency``: half of them as ``grid``, the others where neighbouring pixels differ most.
    """

    grid: tuple[int, int]
    kept: int
    patches: str = "grid"
    seed: int = 0

    def __call__(self, pixel_values: npt.NDArray[np.float32]) -> Indices:
        """Indices of the patches to look at, ascending, counted row by row: ``(n, kept)``.

        Args:
            pixel_values: float32 ``(n, channels, height, width)``, as the encoder takes them.
        """
        count, total = len(pixel_values), math.prod(self.grid)
        if self.kept == total:
            return np.tile(np.arange(total), (count, 1))
        if self.patches == "grid":
            return np.tile(np.sort(_spread(self.grid)[: self.kept]), (count, 1))
        if self.patches == "random":
            scores: npt.NDArray[Any] = _noise(pixel_values, total, self.seed)
        else:
            scores = _contrast(pixel_values, self.grid)
            scores[:, _spread(self.grid)[: (self.kept + 1) // 2]] = np.inf
        first = np.argpartition(scores, total - self.kept, axis=1)[:, total - self.kept :]
        return np.sort(first, axis=1)


def choice(
    spec: EncoderSpec, keep: float | None = None, patches: str = "grid", seed: int = 0
) -> PatchChoice | None:
    """What makes the input ``patch_indices``; None where the encoder has no such input.

    Args:
        keep: share of the patches, above 0 and at most 1; at least one patch is kept. None: all.

    Raises:
        RecipeError: a value that makes no sense, or one for an encoder without the input.
    """
    grid = _grid(spec)
    if keep is not None and (
        isinstance(keep, bool)
        or not isinstance(keep, (int, float, np.floating))
        or not 0 < keep <= 1
    ):
        raise RecipeError(
            f"keep_patches must be a share above 0 and at most 1, such as 0.5, not {keep!r}."
        )
    if patches not in PATCHES:
        raise RecipeError(
            f"patches {patches!r} is none of {', '.join(PATCHES)}.{nearest(str(patches), PATCHES)}"
        )
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise RecipeError(f"seed must be a whole number, not {seed!r}.")
    if grid is None:
        if keep is None:
            return None
        why = "was exported without it: export it again with --patch-dropping"
        if spec.family != "vit_mae":
            why = f"is {spec.family}, which was not pretrained with patches left out"
        raise RecipeError(f"keep_patches: this bundle {why}; see docs/patches.md.")
    total = math.prod(grid)
    kept = total if keep is None else max(1, math.floor(keep * total + 0.5))
    return PatchChoice(grid, kept, patches, seed)


def complete(
    spec: EncoderSpec,
    inputs: Mapping[str, npt.NDArray[Any]],
    choose: PatchChoice | None = None,
) -> Arrays:
    """*inputs* of the graph, with ``patch_indices`` where it takes them and they are not there.

    Args:
        choose: None: every patch.
    """
    choose, images = choose or choice(spec), spec.inputs[0].name
    if choose is None or PATCH_INDICES in inputs or images not in inputs:
        return dict(inputs)
    return {**inputs, PATCH_INDICES: choose(inputs[images])}


def check(spec: EncoderSpec, inputs: Mapping[str, npt.NDArray[Any]]) -> None:
    """Raise unless ``patch_indices``, if the graph takes any, are of patches that there are:
    runtimes differ in what they make of others, and some say nothing.

    Raises:
        RecipeError: none, or one that is out of range.
    """
    indices, grid = inputs.get(PATCH_INDICES), _grid(spec)
    if indices is None or grid is None:
        return
    total = math.prod(grid)
    if indices.shape[-1] < 1:
        raise RecipeError(f"{PATCH_INDICES} has no patches: give at least one an image.")
    if indices.size and not (0 <= indices.min() and indices.max() < total):
        raise RecipeError(
            f"{PATCH_INDICES} has {indices.min()} to {indices.max()}: this bundle's images have "
            f"the patches 0 to {total - 1} ({grid[0]} rows of {grid[1]})."
        )


def _grid(spec: EncoderSpec) -> tuple[int, int] | None:
    return spec.preprocessing.grid if isinstance(spec.preprocessing, ImageSpec) else None


@functools.lru_cache(maxsize=8)
def _spread(grid: tuple[int, int]) -> Indices:
    """All patches in an order of which every beginning is evenly spread: that of ordered dithering
    (Bayer, 1973), which takes one of each 2 x 2 first, then the one across from it."""
    rows, columns = np.mgrid[: grid[0], : grid[1]]
    rank = np.zeros(grid, np.int64)
    for bit in range(max(grid).bit_length()):
        row, column = rows >> bit & 1, columns >> bit & 1
        rank = 4 * rank + 2 * (row ^ column) + row
    order = np.argsort(rank, axis=None)
    order.setflags(write=False)  # every caller gets the same array
    return order


def _noise(
    pixel_values: npt.NDArray[np.float32], patches: int, seed: int
) -> npt.NDArray[np.uint64]:
    """Random numbers ``(n, patches)`` that follow from the image and *seed* alone, on any machine.

    A sum over the bits of the pixels tells images apart; SplitMix64 (Steele, Lea & Flood, OOPSLA
    2014) makes the numbers.
    """
    bits = np.ascontiguousarray(pixel_values, np.float32).view(np.uint32)
    sums = bits.sum(axis=(1, 2, 3), dtype=np.uint64)
    start = _mixed(sums ^ _mixed(np.array([seed & 0xFFFFFFFFFFFFFFFF], np.uint64)))
    steps = np.arange(1, patches + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    return _mixed(start[:, None] + steps)


def _mixed(numbers: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    numbers = (numbers ^ numbers >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ numbers >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return numbers ^ numbers >> np.uint64(31)


def _contrast(
    pixel_values: npt.NDArray[np.float32], grid: tuple[int, int]
) -> npt.NDArray[np.float32]:
    """How much each patch's pixels differ from those to the right and below: ``(n, patches)``."""
    height, width = pixel_values.shape[2] // grid[0], pixel_values.shape[3] // grid[1]
    found = np.empty((len(pixel_values), grid[0] * grid[1]), np.float32)
    for image, scores in zip(pixel_values, found, strict=True):  # one at a time stays in the cache
        grey = image[:, : grid[0] * height, : grid[1] * width].sum(axis=0)
        change = np.zeros_like(grey)
        np.abs(grey[:, 1:] - grey[:, :-1], out=change[:, :-1])
        change[:-1] += np.abs(grey[1:] - grey[:-1])
        in_rows = change.reshape(grid[0], height, -1).sum(axis=1)
        scores[:] = in_rows.reshape(-1, width).sum(axis=1)
    return found
