"""Paired bootstrap: what a figure would have been on other items like these.

A resample is how often it has each unit (an item, a pair, a query, a test row). With the same seed
two subjects get the same resamples, so that the difference of what they give is one of pairs
(Efron and Tibshirani, "An Introduction to the Bootstrap", 1993; for accuracies of models, Koehn,
"Statistical Significance Tests for Machine Translation Evaluation", 2004).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

RESAMPLES = 2000
_AT_ONCE = 1 << 20  # counts of units that are in memory
_TAILS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05)
QUANTILES = (*_TAILS, 0.5, *(round(1 - tail, 4) for tail in reversed(_TAILS)))

Floats = npt.NDArray[np.float64]
Statistic = Callable[[Floats], Floats]  # (resamples, units) of counts -> (resamples,)


@dataclass(frozen=True)
class Measured:
    """A figure of one subject, and how it follows from how often each unit counts.

    ``sizes``: of each kind of unit, how many there are; each kind is resampled by itself.
    ``discrete``: the mean over units of something between 0 and 1 that is often exactly the same
    for two subjects. ``biased``: units that are there twice move it. ``facts``: what a reader should know of how it was measured.
    """

    statistic: Statistic
    sizes: tuple[int, ...]
    discrete: bool = False
    biased: bool = False
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def value(self) -> float:
        """Of the data as they are: each unit once."""
        return float(self.statistic(np.ones((1, sum(self.sizes))))[0])


def resampled(measured: Measured, seed: int) -> Floats:
    """``(RESAMPLES,)``: the figure on each resample; NaN where a resample has none."""
    rng = np.random.default_rng(seed)
    step = max(_AT_ONCE // sum(measured.sizes), 1)
    found = []
    for start in range(0, RESAMPLES, step):
        rows = min(step, RESAMPLES - start)
        counts = [_counts(rng, rows, size) for size in measured.sizes]
        found.append(measured.statistic(np.hstack(counts)))
    return np.concatenate(found)


def centred(values: Floats, value: float) -> Floats:
    """Resampled *values* of a biased figure, moved to where the figure itself is."""
    moved: Floats = values + (value - np.nanmean(values))
    return moved


def differences(left: Floats, right: Floats, measured: Measured, seed: int) -> Floats:
    """What is resampled of two subjects, as the difference of the first.

    Of 100 answers none of which differ the bootstrap would be sure that none ever do. So discrete
    ones get two units more, drawn as the others are, that differ one each way: where none differ
    the 95 % interval is 3 / n to both sides, the rule of three.
    """
    found = left - right
    if measured.discrete:
        rng = np.random.default_rng([seed, 1])
        found += (rng.poisson(1, RESAMPLES) - rng.poisson(1, RESAMPLES)) / sum(measured.sizes)
    return found


def spread(values: Floats) -> tuple[tuple[float, float] | None, dict[str, Any]]:
    """The 95 % interval of resampled *values* (percentile method; None where there are none), and
    the facts of a score: ``quantiles`` by probability and ``standard_error``."""
    known = values[np.isfinite(values)]
    if not len(known):
        return None, {}
    quantiles = {
        str(q): float(x) for q, x in zip(QUANTILES, np.quantile(known, QUANTILES), strict=True)
    }
    facts = {"quantiles": quantiles, "standard_error": float(known.std())}
    return (quantiles["0.025"], quantiles["0.975"]), facts


def mean(values: Sequence[float] | npt.NDArray[Any]) -> Statistic:
    """The mean over units of *values*, ``(units,)``."""
    own = np.asarray(values, np.float64)
    # in numpy, not BLAS: a sum that does not depend on where arrays lie in memory
    return lambda counts: (counts * own).sum(axis=1) / counts.sum(axis=1)


def quantile(values: Sequence[float] | npt.NDArray[Any], fraction: float) -> Statistic:
    """A quantile of *values*, ``(units,)``, between two of them as ``numpy.quantile`` has it."""
    own = np.asarray(values, np.float64)
    order = np.argsort(own, kind="stable")
    ordered = own[order]

    def statistic(counts: Floats) -> Floats:
        upto = counts[:, order].cumsum(axis=1)
        place = fraction * (upto[:, -1:] - 1)
        low, high = (
            ordered[(upto <= rank).sum(axis=1)] for rank in (np.floor(place), np.ceil(place))
        )
        share = (place - np.floor(place))[:, 0]
        return np.asarray(low + share * (high - low))

    return statistic


def pearson(left: npt.NDArray[Any], right: npt.NDArray[Any]) -> Statistic:
    """Pearson's correlation over units of two ``(units,)``."""
    x, y = (_standardized(np.asarray(side, np.float64))[None] for side in (left, right))
    return lambda counts: _correlation(x, y, counts)


def spearman(left: npt.NDArray[Any], right: npt.NDArray[Any]) -> Statistic:
    """Spearman's rank correlation; every resample is ranked anew, ties at their mean rank."""
    x, y = _Ranks(left), _Ranks(right)
    return lambda counts: _correlation(x.within(counts), y.within(counts), counts)


class _Ranks:
    """Ranks of ``(units,)`` values in resamples of them."""

    def __init__(self, values: npt.NDArray[Any]) -> None:
        distinct, self._tie = np.unique(values, return_inverse=True)
        self._order = np.argsort(self._tie, kind="stable")
        self._starts = np.searchsorted(self._tie[self._order], np.arange(len(distinct)))

    def within(self, counts: Floats) -> Floats:
        held = np.add.reduceat(counts[:, self._order], self._starts, axis=1)
        ranks: Floats = held.cumsum(axis=1) - (held - 1) / 2
        return ranks[:, self._tie]


def _standardized(values: Floats) -> Floats:
    centred: Floats = values - values.mean()
    return centred / (centred.std() or 1)


def _correlation(x: Floats, y: Floats, counts: Floats) -> Floats:
    """Row by row of ``(resamples, units)``; NaN where one side does not vary."""
    total = counts.sum(axis=1, keepdims=True)
    x, y = (side - (counts * side).sum(axis=1, keepdims=True) / total for side in (x, y))
    joint, xx, yy = (
        (counts * left * right).sum(axis=1) for left, right in ((x, y), (x, x), (y, y))
    )
    flat = math.ulp(1.0) * total[:, 0]  # what rounding leaves of no variance
    with np.errstate(invalid="ignore", divide="ignore"):
        found = joint / np.sqrt(xx * yy)
    return np.where((xx > flat) & (yy > flat), found, np.nan)


def _counts(rng: np.random.Generator, rows: int, size: int) -> Floats:
    """How often each of *size* units is among *size* draws with replacement, *rows* times."""
    drawn = rng.integers(size, size=(rows, size)) + size * np.arange(rows)[:, None]
    counts = np.bincount(drawn.ravel(), minlength=rows * size)
    return counts.reshape(rows, size).astype(np.float64)
