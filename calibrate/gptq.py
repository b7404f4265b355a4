"""Weights to int8 with the rounding error of each input made good by those that follow (GPTQ).

Frantar, Ashkboos, Hoefler & Alistarh, "GPTQ: accurate post-training quantization for generative
pre-trained transformers", ICLR 2023.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

_DAMPING = 0.01  # of the mean diagonal, as in the paper
_BLOCK = 128


def scales(weights: Floats, saturating: bool) -> Floats:
    """A scale for each column of *weights* ``(K, N)``.

    Args:
        saturating: the processor adds pairs of products of uint8 and int8 in 16 bits
            (``vpmaddubsw``), so two neighbours of one sign may come to 128 together; that is exact
            there, and wider than weights of 7 bits.
    """
    widest = np.abs(weights).max(axis=0) / 127
    if saturating:
        padded = np.pad(weights, [(0, len(weights) % 2), (0, 0)])
        for sign in (1, -1):
            pairs = np.maximum(sign * padded, 0).reshape(-1, 2, weights.shape[1]).sum(axis=1)
            widest = np.maximum(widest, pairs.max(axis=0) / 127)  # 127: both may round up
    return np.where(widest > 0, widest, 1).astype(np.float32)


def quantize(
    weights: Floats, gram: npt.NDArray[Any] | None, scale: Floats, saturating: bool = False
) -> npt.NDArray[np.int8]:
    """Integers *q* that minimize the error of ``x @ (q * scale)`` over the rows *x* behind *gram*.

    A weight that is 0 stays so: it may be part of a pattern (``edgessl.two_four``).

    Args:
        weights: ``(K, N)`` float32.
        gram: ``(K, K)``, the sum of ``x.T @ x``; None rounds to nearest.
        scale: ``(N,)``.
        saturating: keep to what ``scales`` says of it.

    Returns:
        int8 ``(K, N)``, in [-127, 127].
    """
    left = weights / scale
    if gram is None:
        nearest: npt.NDArray[np.int8] = np.clip(np.rint(left), -127, 127).astype(np.int8)
        return nearest
    inputs = len(left)
    size = np.diag(gram)
    hessian = np.asarray(gram, np.float64) + _DAMPING * max(float(size.mean()), 1e-12) * np.eye(
        inputs
    )
    order = np.argsort(-size, kind="stable")  # the largest first: the others can make it good
    back = np.argsort(order)
    left = left[order]
    zero = left == 0
    hessian = hessian[np.ix_(order, order)]
    upper = np.linalg.cholesky(np.linalg.inv(hessian)).T.astype(np.float32)
    codes = np.zeros(left.shape, np.float32)
    partner = back[np.minimum(order ^ 1, inputs - 1)]
    for start in range(0, inputs, _BLOCK):
        end = min(start + _BLOCK, inputs)
        errors = np.zeros((end - start, left.shape[1]), np.float32)
        for row in range(start, end):
            low: Any = -127.0
            high: Any = 127.0
            if saturating and partner[row] < row:  # the pair's other weight is settled
                other = codes[partner[row]]
                low = np.maximum(low, -128 - np.minimum(other, 0))
                high = np.minimum(high, 128 - np.maximum(other, 0))
            codes[row] = np.where(zero[row], 0, np.clip(np.rint(left[row]), low, high))
            errors[row - start] = (left[row] - codes[row]) / upper[row, row]
            left[row + 1 : end] -= np.outer(upper[row, row + 1 : end], errors[row - start])
        left[end:] -= upper[start:end, end:].T @ errors
    return codes[back].astype(np.int8)
