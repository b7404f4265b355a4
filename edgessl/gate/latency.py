"""Time several ways of doing one thing, interleaved, so that a drifting machine hits them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

_RESAMPLES = 2000


def interleave(
    jobs: Mapping[str, Callable[[], object]],
    rounds: int,
    calls: int = 1,
    warm_up: int = 1,
    rest: float = 0.0,
) -> dict[str, list[float]]:
    """Seconds of each call of each job: *rounds* rounds, the order reversed every other round.

    Args:
        jobs: name -> what to time.
        rounds: how often all of them are visited.
        calls: consecutive timed calls a visit.
        warm_up: calls of each job before the first round, not timed.
        rest: seconds before each visit, for what the job before it has left running.

    Returns:
        name -> ``rounds * calls`` samples, raw and in order.
    """
    for job in jobs.values():
        for _ in range(warm_up):
            job()
    samples: dict[str, list[float]] = {name: [] for name in jobs}
    names = list(jobs)
    for number in range(rounds):
        for name in names if number % 2 == 0 else reversed(names):
            time.sleep(rest)
            for _ in range(calls):
                began = time.perf_counter()
                jobs[name]()
                samples[name].append(time.perf_counter() - began)
    return samples


def ratio(
    left: Sequence[Sequence[float]], right: Sequence[Sequence[float]]
) -> tuple[float, tuple[float, float]]:
    """Ratio of the medians of *left* to those of *right*, and its 95 % interval.

    Args:
        left, right: by round, the seconds of its calls; the same rounds in both.

    Bootstrap over rounds (Efron, 1979): the two of a round saw the same weather.
    """
    one, other = np.array(left), np.array(right)
    drawn = np.random.default_rng(0).integers(len(one), size=(_RESAMPLES, len(one)))
    ratios = np.median(one[drawn], axis=(1, 2)) / np.median(other[drawn], axis=(1, 2))
    low, high = np.quantile(ratios, [0.025, 0.975])
    return float(np.median(one) / np.median(other)), (float(low), float(high))
