"""Time several ways of doing one thing, interleaved, so that a drifting machine hits them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping


def interleave(
    jobs: Mapping[str, Callable[[], object]], rounds: int, calls: int = 1, warm_up: int = 1
) -> dict[str, list[float]]:
    """Seconds of each call of each job: *rounds* rounds, the order reversed every other round.

    Args:
        jobs: name -> what to time.
        rounds: how often all of them are visited.
        calls: consecutive timed calls a visit.
        warm_up: calls of each job before the first round, not timed.

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
            for _ in range(calls):
                began = time.perf_counter()
                jobs[name]()
                samples[name].append(time.perf_counter() - began)
    return samples
