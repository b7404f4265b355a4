"""Floats to few bits and back, without data: numpy only."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Int8 = npt.NDArray[np.int8]
Floats = npt.NDArray[np.float32]

_TURNS = 2  # of least squares; the error hardly moves after that
_STARTS = (1.0, 0.9, 0.8)  # shares of the range: least squares finds the nearest minimum only


def table_to_int8(table: Floats) -> tuple[Int8, Floats, Floats]:
    """``codes * rows * columns`` is nearly *table*.

    Rows differ in size because tokens differ in frequency, columns because a few dimensions carry
    outliers; a scale along one axis alone rounds the other away. Columns take the square root of
    their range, measured in each row's median, and rows what is left (SmoothQuant's even split;
    Xiao et al., 2023).

    Args:
        table: ``(tokens, width)`` float32.

    Returns:
        codes ``(tokens, width)`` int8, row scales ``(tokens, 1)`` and column scales ``(width,)``,
        float32.
    """
    sizes = np.abs(table)
    sizes /= _not_zero(np.median(sizes, axis=1, keepdims=True))  # lest a large row rule them all
    columns = np.sqrt(_not_zero(sizes.max(axis=0)))
    level = table / columns
    rows = (_not_zero(np.abs(level).max(axis=1, keepdims=True)) / 127).astype(np.float32)
    return np.rint(level / rows).astype(np.int8), rows, columns


def round_blocks(
    weights: Floats, bits: int, block: int, symmetric: bool
) -> tuple[Bytes, Floats, Bytes]:
    """``(codes - zeros) * scales`` is nearly *weights*, block by block.

    8 bits: to nearest, symmetrically; more does not show. 4 bits: codes, and the scales and zero
    points that fit them best (least squares), in turns; each block keeps its best.

    Args:
        weights: ``(inputs, outputs)`` float32; *block* divides the inputs.
        bits: 8 or 4.
        block: inputs that share a scale.
        symmetric: zero points in the middle, 8 of 4 bits; of 8 bits they always are, 128.

    Returns:
        codes ``(inputs, outputs)`` uint8, scales ``(blocks, outputs)`` float32, above 0 as TensorRT
        wants them, and zero points ``(blocks, outputs)`` uint8.
    """
    top, middle = (1 << bits) - 1, 1 << (bits - 1)
    values = weights.reshape(-1, block, weights.shape[1])
    low = np.minimum(values.min(axis=1, keepdims=True), 0)
    high = np.maximum(values.max(axis=1, keepdims=True), 0)
    symmetric = symmetric or bits == 8
    widest = np.maximum(high, -low) / (middle - 1) if symmetric else (high - low) / top
    best: list[npt.NDArray[Any]] = []
    for share in (1.0,) if bits == 8 else _STARTS:
        scales = _not_zero(widest) * np.float32(share)
        zeros = np.full_like(scales, middle) if symmetric else _whole(-low / scales, top)
        for _ in range(1 if bits == 8 else 1 + _TURNS):
            codes = np.clip(np.rint(values / scales) + zeros, 0, top)
            error = np.square((codes - zeros) * scales - values).sum(axis=1, keepdims=True)
            fresh = [error, codes, scales, zeros]
            better = error < best[0] if best else np.ones_like(error, dtype=bool)
            pairs = zip(fresh, best or fresh, strict=True)
            best = [np.where(better, new, old) for new, old in pairs]
            if not symmetric:
                centre, mean = (array.mean(axis=1, keepdims=True) for array in (codes, values))
                zeros = _whole(centre - mean / _fit(codes - centre, values - mean, scales), top)
            scales = _fit(codes - zeros, values, scales)
    _, codes, scales, zeros = best
    kept = codes.reshape(weights.shape).astype(np.uint8)
    return kept, scales[:, 0].astype(np.float32), zeros[:, 0].astype(np.uint8)


def pack(codes: Bytes) -> Bytes:
    """Codes of 4 bits two a byte along the last axis, the first in the low half; an odd end is
    filled with 0."""
    odd = codes.shape[-1] % 2
    even = np.pad(codes, [(0, 0)] * (codes.ndim - 1) + [(0, odd)])
    packed: Bytes = (even[..., 0::2] & np.uint8(15)) | (even[..., 1::2] << np.uint8(4))
    return packed


def _fit(codes: Floats, values: Floats, otherwise: Floats) -> Floats:
    """The scale by which *codes* come nearest to *values*; where there is none, *otherwise*."""
    square = np.square(codes).sum(axis=1, keepdims=True)
    product = (codes * values).sum(axis=1, keepdims=True)
    fits = (square > 0) & (product > 0)
    return np.where(fits, product / np.where(fits, square, 1), otherwise).astype(np.float32)


def _whole(zeros: Floats, top: int) -> Floats:
    return np.clip(np.rint(zeros), 0, top)


def _not_zero(ranges: Floats) -> Floats:
    return np.where(ranges != 0, ranges, np.float32(1))
