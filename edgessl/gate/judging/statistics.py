"""Intervals that a verdict can rest on: of percentiles, and of differences between two subjects.

Samples come in rounds, a fresh process each. Calls of one round are alike (the same process, the
same minute), so that what counts is how much rounds differ, not how many calls there were.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from edgessl.errors import require

Interval = tuple[float, float]
Samples = Sequence[float] | npt.NDArray[np.float64]
UNKNOWN: Interval = (-math.inf, math.inf)


def _special() -> Any:
    return require("scipy.special", "gate", "judging against a budget")


def percentile_interval(rounds: Sequence[Samples], fraction: float, confidence: float) -> Interval:
    """Two-sided interval of a percentile of all calls, with no assumption about their distribution.

    Order statistics of fractional rank (Hutson, "Calculating nonparametric confidence intervals
    for quantiles using fractional order statistics", J. Appl. Stat. 26, 1999). Rounds are clusters:
    the number of calls is divided by the design effect of exceeding the percentile, and the
    interval widened for how few rounds there are to tell that from (Korn and Graubard, Survey
    Methodology 24, 1998). Coverage by simulation: ``python -m examples.measure gate``; it falls
    short for p99 where rounds differ as much among themselves as calls do.

    Args:
        rounds: by round, its samples. fraction: 0.99 for p99.

    Returns:
        lower and upper bound in the samples' unit; infinite where there are too few samples or
        rounds to give one.
    """
    if len(rounds) < 2:  # how much rounds differ cannot be told
        return UNKNOWN
    samples = np.sort(np.concatenate([np.asarray(r, np.float64) for r in rounds]))
    effective = float(len(samples))
    if len(samples) > len(rounds):  # else nothing is clustered
        effective = _effective_size(rounds, samples, fraction, confidence)
    tail = (1 - confidence) / 2
    low = _rank(effective, fraction, 1 - tail) / (effective + 1) * (len(samples) + 1)
    high = _rank(effective, fraction, tail) / (effective + 1) * (len(samples) + 1)
    return _at_rank(samples, low), _at_rank(samples, high)


def _effective_size(
    rounds: Sequence[Samples],
    ordered: npt.NDArray[np.float64],
    fraction: float,
    confidence: float,
) -> float:
    """How many independent calls tell as much about the percentile as all of these."""
    count, total = len(rounds), len(ordered)
    threshold = ordered[math.ceil(fraction * total) - 1]
    above = np.array([(np.asarray(samples) > threshold).sum() for samples in rounds])
    if not above.any():  # a coarse clock: the slowest calls all took as long
        above = np.array([(np.asarray(samples) >= threshold).sum() for samples in rounds])
    share = above.sum() / total
    if share == 1:  # all calls took as long
        return float(total)
    excess = above - np.array([len(samples) for samples in rounds]) * share
    squares = (excess**2).sum()
    if not squares:
        return float(total)
    effect = squares * count / (count - 1) / total / (share * (1 - share))
    # Where a few rounds have most of the slow calls, there are only a few to learn from
    # (Satterthwaite's idea: degrees of freedom from the fourth moments).
    freedom = min(count - 1, max(1.0, 2 * squares**2 / (excess**4).sum() - 1))
    upper = (1 + confidence) / 2
    few_rounds = (normal_quantile(upper) / _special().stdtrit(freedom, upper)) ** 2
    return float(min(total, total * few_rounds / effect))


def _rank(size: float, fraction: float, tail: float) -> float:
    """The fractional rank k of which P(Beta(k, size + 1 - k) < fraction) is *tail*."""
    betainc = _special().betainc
    low, high = 0.0, size + 1
    for _ in range(60):  # betainc falls with k
        middle = (low + high) / 2
        if betainc(middle, size + 1 - middle, fraction) > tail:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _at_rank(ordered: npt.NDArray[np.float64], rank: float) -> float:
    """Between the order statistics (ranks from 1) that are next to *rank*."""
    if rank < 1:
        return -math.inf
    if rank > len(ordered):
        return math.inf
    return float(np.interp(rank, np.arange(1, len(ordered) + 1), ordered))


def shift_interval(differences: Samples, confidence: float) -> tuple[float, Interval]:
    """The middle of paired differences and its exact interval: Hodges and Lehmann's estimate.

    The interval is that of Wilcoxon's signed-rank test (Hollander, Wolfe and Chicken,
    "Nonparametric Statistical Methods", 2014, section 3.4): exact for independent differences that
    are symmetric about their middle, which differences of two that took turns are; one bad round
    moves it little.

    Returns:
        the estimate and the bounds; infinite where there are too few differences.
    """
    values = np.asarray(differences, np.float64)
    first, second = np.triu_indices(len(values))
    walsh = np.sort((values[first] + values[second]) / 2)
    rank = _signed_rank_quantile(len(values), (1 - confidence) / 2)
    middle = float(np.median(walsh))
    if rank < 1:
        return middle, UNKNOWN
    return middle, (float(walsh[rank - 1]), float(walsh[-rank]))


def _signed_rank_quantile(count: int, tail: float) -> int:
    """How many values the signed-rank statistic of so many pairs has in a tail of at most *tail*:
    the rank of the bound among the pairs' means; 0 where there is none."""
    if count > 200:  # the normal law is exact enough: some ranks of 20,000
        mean = count * (count + 1) / 4
        deviation = math.sqrt(count * (count + 1) * (2 * count + 1) / 24)
        return max(0, math.floor(mean + normal_quantile(tail) * deviation + 0.5))
    ways = np.zeros(count * (count + 1) // 2 + 1)
    ways[0] = 1
    for rank in range(1, count + 1):
        ways[rank:] += ways[:-rank].copy()
    below = np.cumsum(ways / 2.0**count)  # below[c] is P(T <= c)
    return int(np.searchsorted(below, tail, side="right"))


def prediction_interval(earlier: Sequence[float], confidence: float) -> tuple[float, Interval]:
    """Where the next value belongs if it is one of a kind with *earlier* ones (three or more):
    their mean, and Student's prediction interval (Hahn and Meeker, "Statistical Intervals",
    1991, section 4.7)."""
    values = np.asarray(earlier, np.float64)
    mean, count = float(values.mean()), len(values)
    quantile = _special().stdtrit(count - 1, (1 + confidence) / 2)
    half = float(quantile * values.std(ddof=1) * math.sqrt(1 + 1 / count))
    return mean, (mean - half, mean + half)


def look_confidence(confidence: float, limits: int, look: int) -> float:
    """The confidence that each interval needs at a look (from 1), so that all intervals of all
    limits at all looks, however many there will be, hold together with *confidence*.

    Bonferroni over the limits, and shares 1 / (look (look + 1)) over the looks, which sum to 1.
    """
    return 1 - (1 - confidence) / (limits * look * (look + 1))


def fewest_rounds(confidence: float) -> int:
    """How many rounds ``shift_interval`` needs to say anything at this confidence."""
    return math.ceil(math.log2(2 / (1 - confidence)))


def normal_quantile(probability: float) -> float:
    return NormalDist().inv_cdf(probability)
