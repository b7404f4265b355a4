"""How vectors are stored: float32, float16, int8 or one bit a dimension; and what that costs."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from edgessl.errors import RecipeError, nearest

DTYPES = ("float32", "float16", "int8", "binary")
_STORED = {"float32": "<f4", "float16": "<f2", "int8": "i1", "binary": "u1"}
_NEIGHBOURS, _QUERIES, SAMPLE = 10, 500, 10_000

Vectors = npt.NDArray[np.float32]
Array = npt.NDArray[Any]


def check(dtype: str) -> str:
    if dtype not in DTYPES:
        raise RecipeError(
            f"--dtype {dtype!r} is none of {', '.join(DTYPES)}.{nearest(dtype, DTYPES)}"
        )
    return dtype


def stored(dtype: str) -> np.dtype[Any]:
    """numpy's dtype of the stored numbers."""
    return np.dtype(_STORED[dtype])


def width(dtype: str, dimensions: int) -> int:
    """Stored numbers a vector: for ``binary`` bytes, of 8 dimensions each."""
    return -(-dimensions // 8) if dtype == "binary" else dimensions


def fit_scales(vectors: Vectors) -> Vectors:
    """The step of each dimension for int8: the largest absolute value is 127. ``(d,)``."""
    largest = np.abs(vectors).max(axis=0)
    return np.where(largest > 0, largest / 127, 1).astype(np.float32)


def encode(vectors: Vectors, dtype: str, scales: Vectors | None = None) -> Array:
    """``(n, d)`` float32 as it is stored: ``(n, width)``.

    - ``int8``: ``round(vector / scales)``, cut at -127 and 127.
    - ``binary``: bit 1 where a dimension is above 0, packed as ``numpy.packbits`` does, the first
      dimension in the highest bit: ``ubinary`` of sentence-transformers.
    """
    if dtype == "int8":
        if scales is None:
            raise ValueError("int8 needs scales")
        levels: Array = np.clip(np.rint(vectors / scales), -127, 127).astype(np.int8)
        return levels
    if dtype == "binary":
        return np.packbits(vectors > 0, axis=1)
    plain: Array = vectors.astype(stored(dtype))
    return plain


def decode(array: Array, dtype: str, dimensions: int, scales: Vectors | None = None) -> Vectors:
    """Stored vectors as ``(n, d)`` float32; a bit is plus or minus ``1 / sqrt(d)``."""
    if dtype == "int8":
        if scales is None:
            raise ValueError("int8 needs scales")
        return array.astype(np.float32) * scales
    if dtype == "binary":
        bits = np.unpackbits(array, axis=1, count=dimensions).astype(np.float32)
        return (2 * bits - 1) / np.float32(np.sqrt(dimensions))
    return array.astype(np.float32)


def recall(vectors: Vectors, dtype: str, scales: Vectors | None = None) -> dict[str, Any]:
    """Of the 10 nearest neighbours in float32, the share that the stored vectors also find.

    Cosine similarity; up to 500 of *vectors* are the queries, in float32, and each looks among all
    the others. ``recall_at_10_bits``, of binary: with the queries as bits, too (Hamming distance).

    Returns:
        ``recall_at_10`` (None for fewer than 11 vectors), ``vectors`` and ``queries`` compared.
    """
    count = len(vectors)
    if count <= _NEIGHBOURS:
        return {"recall_at_10": None, "vectors": count, "queries": 0}
    chosen = np.linspace(0, count - 1, min(_QUERIES, count)).astype(np.int64)
    exact = _unit(vectors)
    kept = _unit(decode(encode(vectors, dtype, scales), dtype, vectors.shape[1], scales))
    truth = _nearest(exact[chosen], exact, chosen)
    facts: dict[str, Any] = {
        "recall_at_10": _overlap(truth, _nearest(exact[chosen], kept, chosen)),
        "vectors": count,
        "queries": len(chosen),
    }
    if dtype == "binary":
        facts["recall_at_10_bits"] = _overlap(truth, _nearest(kept[chosen], kept, chosen))
    return facts


def _unit(vectors: Vectors) -> Vectors:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: Vectors = vectors / np.maximum(lengths, np.finfo(np.float32).tiny)
    return unit


def _nearest(queries: Vectors, among: Vectors, own: npt.NDArray[np.int64]) -> Array:
    """Indices of the 10 nearest of each query but itself, the lower one of two equally near."""
    found = queries @ among.T
    found[np.arange(len(queries)), own] = -np.inf
    # a stable order: ties are common among bits
    return np.argsort(-found, axis=1, kind="stable")[:, :_NEIGHBOURS]


def _overlap(truth: Array, found: Array) -> float:
    same = (truth[:, :, None] == found[:, None, :]).any(axis=2)
    return round(float(same.mean()), 4)
