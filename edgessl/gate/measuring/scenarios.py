"""How queries are put to a subject, in MLPerf's words.

``single-stream`` and ``multi-stream``: one query after another, of one item or of several.
``offline``: all items in one query. ``server``: queries arrive at random, whether or not the ones
before are done, and a query's latency begins when it was due (no coordinated omission).
"""

from __future__ import annotations

import statistics
import time
from array import array
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count, repeat
from typing import Any

import numpy as np

from edgessl.errors import EdgesslError

MODES = {  # how a session is opened for it
    "single-stream": "latency",
    "multi-stream": "latency",
    "offline": "throughput",
    "server": "throughput",
}
MOST_SAMPLES = 1 << 16  # of one block

# Warm-up ends when two blocks in a row have medians this close, or when its time is over. Items of
# different lengths are seen once each: OpenVINO, for one, makes kernels for every new length.
WARM_BLOCK_NS, WARM_LIMIT_NS, STABLE = 20_000_000, 1_000_000_000, 0.05
ONCE_LIMIT_NS = 3_000_000_000
# Untimed queries for so long before a block: others have just used the caches.
LEAD_NS = 5_000_000

_SOON_NS = 1_000_000  # threads are up before the first arrival
_PATIENCE = 4  # spans after the last arrival until an overloaded server is given up

Call = Callable[[Any], Any]  # takes a query, a list of items
Take = Callable[[], Any]  # the next query
Clock = Callable[[], int]  # nanoseconds


@dataclass(frozen=True)
class Block:
    """``latency_ns`` of each query; ``items`` in them all; ``busy_ns``: wall time of the block.

    ``overloaded``: queries arrived faster than they were done.
    """

    latency_ns: list[int]
    items: int
    busy_ns: int
    overloaded: bool = False


def one_after_another(
    call: Call, take: Take, span_ns: int, clock: Clock = time.perf_counter_ns
) -> Block:
    """Queries for *span_ns*, at least one.

    Raises:
        EdgesslError: the clock went backwards.
    """
    samples = array("q", bytes(8 * MOST_SAMPLES))
    done = items = 0
    began = clock()
    deadline = began + span_ns
    while True:
        query = take()
        start = clock()
        call(query)
        end = clock()
        samples[done] = end - start
        done += 1
        items += len(query)
        if end >= deadline or done == MOST_SAMPLES:
            break
    return _block(samples[:done].tolist(), items, clock() - began)


def warm_up(
    call: Call, take: Take, once: int = 0, clock: Clock = time.perf_counter_ns
) -> dict[str, Any]:
    """Queries until they take as long as before; or, where *once* is given, so many queries.

    Returns:
        ``usual_ns``: median of the last block; ``queries``; ``stable``: whether the last two
        blocks agreed, or all queries were seen, before the time was over.
    """
    limit = ONCE_LIMIT_NS if once else WARM_LIMIT_NS
    began, queries, before = clock(), 0, 0.0
    while True:
        block = one_after_another(call, take, WARM_BLOCK_NS, clock)
        queries += len(block.latency_ns)
        middle = statistics.median(block.latency_ns)
        stable = queries >= once if once else abs(middle - before) <= STABLE * before
        if stable or clock() - began >= limit:
            return {"usual_ns": int(middle), "queries": queries, "stable": stable}
        before = middle


def arrivals(qps: float, seconds: float, rng: np.random.Generator, least: int = 20) -> list[int]:
    """Poisson arrivals: nanoseconds from the start, for about *seconds*, at least *least*."""
    number = max(least, round(qps * seconds))
    due: list[int] = (rng.exponential(1e9 / qps, number).cumsum()).astype(np.int64).tolist()
    return due


def served(
    call: Call,
    take: Take,
    due_ns: Sequence[int],
    streams: int = 1,
    clock: Clock = time.perf_counter_ns,
    sleep: Callable[[float], None] = time.sleep,
) -> Block:
    """One queue, first come first served by *streams* threads; latencies count from *due_ns*.

    The time that the system takes to wake a thread is in them, as it is on a server. Where the
    queue grows for too long, what still waits is given up, and counts as late as it is by then.
    """
    queries = [take() for _ in due_ns]
    samples = array("q", bytes(8 * len(queries)))
    numbers = count()  # next() is one step for all threads
    began = clock() + _SOON_NS
    enough = began + due_ns[-1] * (1 + _PATIENCE)

    def serve() -> int:
        items = 0
        while (number := next(numbers)) < len(queries):
            due = began + due_ns[number]
            wait = due - clock()
            if wait > 0:
                sleep(wait / 1e9)
            if clock() < enough:
                call(queries[number])
                items += len(queries[number])
            samples[number] = clock() - due
        return items

    if streams == 1:
        items = serve()
    else:
        with ThreadPoolExecutor(streams) as pool:
            items = sum(job.result() for job in [pool.submit(serve) for _ in range(streams)])
    ended = clock()
    latencies, span = samples.tolist(), due_ns[-1]
    late = ended - began - span  # how long the queue took to drain
    quarter = max(1, len(latencies) // 4)
    growing = statistics.fmean(latencies[-quarter:]) > 2 * statistics.fmean(latencies[:quarter])
    overloaded = late > 0.5 * span or (growing and late > 0.1 * span)
    return _block(latencies, items, ended - began, overloaded)


def _block(latencies: list[int], items: int, busy_ns: int, overloaded: bool = False) -> Block:
    if busy_ns <= 0 or min(latencies) < 0:
        raise EdgesslError(
            "the clock went backwards or stood still while measuring: nothing that was timed can "
            "be trusted. Measure again."
        )
    return Block(latencies, items, busy_ns, overloaded)


def overhead_ns() -> float:
    """What the timing loop takes for a query beside the query itself, in nanoseconds."""
    block = one_after_another(_nothing, repeat([None]).__next__, 5_000_000)
    return block.busy_ns / len(block.latency_ns)


def _nothing(_query: Any) -> None: ...
