"""Ranges of an activation tensor, from a sample of its values.

``minmax`` takes all of it. ``percentile`` leaves out 0.01 % at each end. ``entropy`` keeps most of
the distribution's information (Migacz, "8-bit inference with TensorRT", GTC 2017). ``mse`` has the
smallest squared rounding and clipping error.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]
Range = tuple[float, float]

BINS = 2048
_LEVELS = 128  # of each sign
_SHARES = np.linspace(0.2, 1.0, 41)


def minmax(values: Floats) -> Range:
    """All of *values*, and 0."""
    return min(float(values.min()), 0.0), max(float(values.max()), 0.0)


def percentile(values: Floats, share: float = 0.9999) -> Range:
    """What holds all but ``1 - share`` of *values* at each end, and 0."""
    low, high = np.quantile(values, [1 - share, share])
    return min(float(low), 0.0), max(float(high), 0.0)


def mse(values: Floats, levels: int = 255) -> Range:
    """The share of the full range with the smallest mean squared error of *levels* steps."""
    low, high = minmax(values)
    counts, centres = _histogram(values, low, high)
    ends = np.stack([low * _SHARES, high * _SHARES])[:, :, None]
    step = np.maximum((ends[1] - ends[0]) / levels, np.finfo(np.float32).tiny)
    rounded = np.clip(np.rint(centres / step), np.rint(ends[0] / step), np.rint(ends[1] / step))
    error = np.square(rounded * step - centres) @ counts
    best = float(_SHARES[int(error.argmin())])
    return low * best, high * best


def entropy(values: Floats) -> Range:
    """The threshold on magnitudes whose quantized distribution diverges least (Kullback-Leibler)
    from the clipped one."""
    low, high = minmax(values)
    top = max(high, -low)
    if top == 0:
        return 0.0, 0.0
    counts, _ = np.histogram(np.abs(values), bins=BINS, range=(0, top))
    best, threshold = np.inf, top
    for kept in range(_LEVELS, BINS + 1, 16):
        clipped = counts[:kept].astype(np.float64)
        clipped[-1] += counts[kept:].sum()
        divergence = _divergence(clipped, counts[:kept])
        if divergence < best:
            best, threshold = divergence, top * kept / BINS
    return max(low, -threshold), min(high, threshold)


def _divergence(clipped: Floats, counts: npt.NDArray[Any]) -> float:
    """Of the clipped histogram from itself merged into the levels and spread out again."""
    edges = np.linspace(0, len(counts), _LEVELS + 1).astype(int)[:-1]
    filled = counts > 0
    sums = np.add.reduceat(counts, edges)
    members = np.add.reduceat(filled.astype(int), edges)
    spread = np.repeat(sums / np.maximum(members, 1), np.diff([*edges, len(counts)])) * filled
    real = clipped > 0
    p = clipped[real] / clipped.sum()
    q = np.maximum(spread[real] / max(spread.sum(), 1), 1e-12)
    return float((p * np.log(p / q)).sum())


def _histogram(values: Floats, low: float, high: float) -> tuple[Floats, Floats]:
    counts, edges = np.histogram(values, bins=BINS, range=(low, high) if high > low else (0, 1))
    return counts.astype(np.float64), (edges[:-1] + edges[1:]) / 2


METHODS: dict[str, Callable[[Floats], Range]] = {
    "minmax": minmax,
    "percentile": percentile,
    "entropy": entropy,
    "mse": mse,
}
