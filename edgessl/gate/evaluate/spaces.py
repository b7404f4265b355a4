"""Vectors side by side: cosines, nearest neighbours, and how much two lists of them share."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]

_BLOCK = 1 << 22  # similarities that are in memory
_SAME = 1e-5  # closer than this two similarities are the same: float32 says no more


@dataclass(frozen=True)
class Space:
    """The vectors of one subject, ``(items, dimensions)``.

    ``broken``: items whose vector was not finite; it is 0 here.
    """

    rows: Rows
    broken: npt.NDArray[np.bool_]

    @staticmethod
    def of(rows: Rows) -> Space:
        broken: npt.NDArray[np.bool_] = np.logical_not(np.isfinite(rows).all(axis=1))
        return Space(np.where(broken[:, None], np.float32(0), rows), broken)

    @cached_property
    def unit(self) -> Rows:
        """Of length 1, and 0 where there is no direction."""
        lengths = np.linalg.norm(self.rows.astype(np.float64), axis=1, keepdims=True)
        return (self.rows / np.where(lengths > 0, lengths, 1)).astype(np.float32)

    def equals(self, other: Space) -> bool:
        """Whether every number is the same."""
        return np.array_equal(self.rows, other.rows) and np.array_equal(self.broken, other.broken)


def cosines(left: Space, right: Space) -> Floats:
    """Of each row with the same row, in float64; -1 where one of the two is not finite."""
    a, b = left.rows.astype(np.float64), right.rows.astype(np.float64)
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    found = np.einsum("ij,ij->i", a, b) / np.where(lengths > 0, lengths, 1)
    # rounding would leave identical vectors a hair apart
    found = np.where((left.rows == right.rows).all(axis=1), 1.0, np.clip(found, -1, 1))
    return np.where(left.broken | right.broken, -1.0, found)


def nearest(queries: Rows, index: Rows, k: int, own: Places | None = None) -> tuple[Places, Rows]:
    """Places in *index* of the *k* nearest of each query, the nearest first, and how near.

    Args:
        queries, index: of length 1; compared exactly, block by block.
        own: the place of each query itself, which is not one of its neighbours.
    """
    step = max(_BLOCK // len(index), 1)
    places, near = [], []
    for start in range(0, len(queries), step):
        found = queries[start : start + step] @ index.T
        if own is not None:
            found[np.arange(len(found)), own[start : start + step]] = -np.inf
        best = np.argpartition(-found, min(k, found.shape[1] - 1), axis=1)[:, :k]
        order = np.argsort(-np.take_along_axis(found, best, axis=1), axis=1, kind="stable")
        best = np.take_along_axis(best, order, axis=1)
        places.append(best)
        near.append(np.take_along_axis(found, best, axis=1))
    return np.concatenate(places), np.concatenate(near)


def shared(found: Places, queries: Rows, index: Rows, own: Places | None = None) -> Floats:
    """Of the *found* neighbours of each query, ``(queries, k)``, the share that are also the
    nearest in another space: as near there as its own k nearest."""
    _, near = nearest(queries, index, found.shape[1], own)
    there = np.einsum("qd,qkd->qk", queries, index[found])
    share: Floats = (there >= near[:, -1:] - _SAME).mean(axis=1)
    return share
