"""Blocks of items through a backend: encoded ahead, several batches at once, results in order."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edgessl.backend import Arrays, Backend
from edgessl.errors import EdgesslError, Refused
from edgessl.runtimes.batches import Feeder, Items

if TYPE_CHECKING:  # imported when threads start: who embeds one text at a time needs none
    from concurrent.futures import Future, ThreadPoolExecutor


@dataclass(frozen=True)
class Window:
    """Items that are encoded together: a stretch of a block.

    ``start``: of its first item within the block; ``index``: within all blocks. ``last``: it ends
    its block, which has ``size`` items.
    """

    items: Items
    block: int
    start: int
    index: int
    size: int
    last: bool


@dataclass(frozen=True)
class Encoded:
    """A window as its feeder made it, without the items that were refused."""

    window: Window
    items: Any
    refusals: dict[int, EdgesslError] = field(default_factory=dict)

    @property
    def places(self) -> list[int]:
        """Rows of the block that the items which are left belong to."""
        window = self.window
        rows = range(len(window.items))
        return [window.start + row for row in rows if window.index + row not in self.refusals]


@dataclass(frozen=True)
class Batch:
    """What one run gave: ``inputs`` and ``outputs`` of the encoded items ``rows``; all three are
    empty for a window without items. ``last``: of its window."""

    encoded: Encoded
    rows: list[int]
    inputs: Arrays
    outputs: Arrays
    last: bool


class Threads:
    """The threads of a session, started when first needed: one that encodes ahead, and one for
    each of the backend's streams."""

    def __init__(self, streams: int) -> None:
        self.streams = streams
        self._lock = threading.Lock()
        self._pools: dict[str, ThreadPoolExecutor] = {}

    def submit(self, kind: str, work: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Run *work* on a thread of the kind ``"encode"``, ``"run"`` or ``"call"``."""
        with self._lock:
            pool = self._pools.get(kind)
            if pool is None:
                from concurrent.futures import ThreadPoolExecutor

                size = 1 if kind == "encode" else self.streams
                pool = ThreadPoolExecutor(size, thread_name_prefix=f"edgessl-{kind}")
                self._pools[kind] = pool
            return pool.submit(work, *arguments)

    def close(self) -> None:
        with self._lock:
            for pool in self._pools.values():
                pool.shutdown(wait=True, cancel_futures=True)
            self._pools = {}


def windows(blocks: Iterable[Items], size: int) -> Iterator[Window]:
    """Cut each block into stretches of at most *size* items; an empty block is one empty window."""
    index = 0
    for number, block in enumerate(blocks):
        for start in range(0, max(len(block), 1), size):
            items = block[start : start + size]
            last = start + size >= len(block)
            yield Window(items, number, start, index + start, len(block), last)
        index += len(block)


def batches(feeder: Feeder, items: Items) -> Iterator[tuple[list[int], Arrays]]:
    """(rows of *items*, the graph's inputs for them) until every row was there once."""
    for window in windows([items], feeder.ahead):
        encoded = feeder.encode(window.items, window.index)
        for rows in feeder.deal(encoded):
            yield [window.start + row for row in rows], feeder.batch(encoded, rows)


def through(
    feeder: Feeder,
    backend: Backend,
    threads: Threads,
    parts: Iterable[Window],
    refused: Refused | None = None,
) -> Generator[Batch]:
    """Run every window, batch by batch: windows in their order, the batches of each as dealt.

    While some batches run on the backend's streams, the next are padded, and the next window is
    encoded. At most two windows are in memory as encoded items.

    Args:
        refused: is told the index and the error of each item that cannot be encoded, which is
            then left out; None: the error is raised.
    """
    parallel = threads.streams > 1
    waiting: deque[tuple[Encoded, list[int], bool, Future[Any] | None]] = deque()

    def run(encoded: Encoded, rows: list[int]) -> tuple[Arrays, Arrays]:
        inputs = feeder.batch(encoded.items, rows)
        return inputs, backend.run(inputs)

    def finished(encoded: Encoded, rows: list[int], last: bool, future: Any) -> Batch:
        inputs, outputs = future.result() if future else ({}, {})
        return Batch(encoded, rows, inputs, outputs, last)

    try:
        for encoded in _encoded(feeder, threads if parallel else None, parts, refused is not None):
            if refused is not None:
                for index, error in encoded.refusals.items():
                    refused(index, error)
            hands = feeder.deal(encoded.items) or [[]]
            for number, rows in enumerate(hands, 1):
                last = number == len(hands)
                if not parallel:
                    inputs, outputs = run(encoded, rows) if rows else ({}, {})
                    yield Batch(encoded, rows, inputs, outputs, last)
                    continue
                future = threads.submit("run", run, encoded, rows) if rows else None
                waiting.append((encoded, rows, last, future))
                while len(waiting) > 2 * threads.streams:
                    yield finished(*waiting.popleft())
        while waiting:
            yield finished(*waiting.popleft())
    finally:
        for *_, future in waiting:
            if future:
                future.cancel()


def _encoded(
    feeder: Feeder, threads: Threads | None, parts: Iterable[Window], tolerant: bool
) -> Iterator[Encoded]:
    """The windows' items encoded, each while its predecessor is on its way."""
    if threads is None:
        for window in parts:
            yield _encode(feeder, window, tolerant)
        return
    ahead: Future[Encoded] | None = None
    try:
        for window in parts:
            following = threads.submit("encode", _encode, feeder, window, tolerant)
            if ahead is not None:
                ready, ahead = ahead, following
                yield ready.result()
            else:
                ahead = following
        if ahead is not None:
            yield ahead.result()
    finally:
        if ahead is not None:
            ahead.cancel()


def _encode(feeder: Feeder, window: Window, tolerant: bool) -> Encoded:
    refusals: dict[int, EdgesslError] = {}
    listen = refusals.__setitem__ if tolerant else None
    return Encoded(window, feeder.encode(window.items, window.index, listen), refusals)
