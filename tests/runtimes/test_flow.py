"""Blocks through a backend: order, overlap, refusals, errors; a fake backend with real threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgessl.backend import Arrays
from edgessl.errors import EdgesslError, ItemError, Refused, refuse
from edgessl.runtimes.batches import Items, token_batches
from edgessl.runtimes.flow import Threads, through, windows
from edgessl.runtimes.options import InputOptions

Blocks = list[list[int]]


class Numbers:
    """Items are numbers, their length is their value; negative ones are refused."""

    def __init__(self, ahead: int = 5, limit: int = 12) -> None:
        self.ahead = ahead
        self.limit = limit
        self.encoded = 0

    def using(self, options: InputOptions) -> Numbers:
        return self

    def encode(self, items: Items, first: int = 0, refused: Refused | None = None) -> list[int]:
        self.encoded += len(items)
        for index, item in enumerate(items, first):
            if item < 0:
                refuse(ItemError(f"item {index} is negative", index), refused)
        return [item for item in items if item >= 0]

    def count(self, encoded: list[int]) -> int:
        return len(encoded)

    def deal(self, encoded: list[int]) -> list[list[int]]:
        return token_batches(encoded, items=3, tokens=self.limit)

    def batch(self, encoded: list[int], rows: Sequence[int]) -> Arrays:
        return {"numbers": np.array([encoded[row] for row in rows])}

    def join(self, encoded: list[int], vectors: Any) -> Any:
        return vectors


class Slow:
    """Squares numbers, the larger the quicker, and counts how many runs there are at once."""

    def __init__(self, streams: int, delay_s: float = 0.0) -> None:
        self.streams = streams
        self.delay_s = delay_s
        self.running = 0
        self.most = 0
        self.runs = 0
        self._lock = threading.Lock()

    def run(self, inputs: Mapping[str, npt.NDArray[Any]]) -> Arrays:
        numbers = inputs["numbers"]
        if (numbers == 13).any():
            raise ValueError("13")
        with self._lock:
            self.running += 1
            self.runs += 1
            self.most = max(self.most, self.running)
        time.sleep(self.delay_s / (1 + numbers.max()))
        with self._lock:
            self.running -= 1
        return {"square": numbers**2}

    def describe(self) -> dict[str, Any]:
        return {}

    def close(self) -> None:
        """Nothing to give back."""


def squares(
    blocks: Blocks, streams: int, delay_s: float = 0.0, refusals: list[int] | None = None
) -> list[list[int]]:
    """The squares of each block, put together as a session does; -1 where there is none."""
    threads = Threads(streams)
    refused = None if refusals is None else lambda index, error: refusals.append(index)
    found: list[list[int]] = []
    current: list[int] | None = None
    try:
        feeder, backend = Numbers(), Slow(streams, delay_s)
        for batch in through(feeder, backend, threads, windows(blocks, feeder.ahead), refused):
            window = batch.encoded.window
            if current is None:
                assert window.start == 0
                current = [-1] * window.size
            for row, square in zip(batch.rows, batch.outputs.get("square", ()), strict=True):
                place = batch.encoded.places[row]
                assert current[place] == -1  # once
                current[place] = int(square)
            if batch.last and window.last:
                found.append(current)
                current = None
    finally:
        threads.close()
    assert current is None
    return found


numbers = st.integers(-3, 12)


@given(st.lists(st.lists(numbers, max_size=14), max_size=6), st.sampled_from([1, 2, 3]))
def test_every_item_comes_out_once_in_its_place(blocks: Blocks, streams: int) -> None:
    refusals: list[int] = []

    found = squares(blocks, streams, refusals=refusals)

    flat = [number for block in blocks for number in block]
    assert found == [[n * n if n >= 0 else -1 for n in block] for block in blocks]
    assert refusals == [index for index, number in enumerate(flat) if number < 0]


def test_order_does_not_depend_on_which_run_ends_first() -> None:
    blocks = [[1, 12, 2, 11, 3], [4], [], [10, 5, 9, 6, 8, 7, 0]]
    assert squares(blocks, 3, delay_s=0.05) == [[n * n for n in block] for block in blocks]


@pytest.mark.parametrize("streams", [1, 3])
def test_as_many_runs_at_once_as_streams(streams: int) -> None:
    backend, threads = Slow(streams, delay_s=0.1), Threads(streams)
    parts = windows([[1] * 60], 5)
    assert len(list(through(Numbers(), backend, threads, parts))) == backend.runs > 10
    assert backend.most == streams
    threads.close()


@pytest.mark.parametrize("streams", [1, 2])
def test_an_error_is_raised_and_the_threads_go_on(streams: int) -> None:
    threads = Threads(streams)
    for bad, kind in (([1, 13, 2], ValueError), ([1, -1], EdgesslError)):
        with pytest.raises(kind, match="13|item 7 is negative"):
            parts = windows([[0] * 6, bad, [3] * 50], 5)
            list(through(Numbers(limit=1), Slow(streams), threads, parts))
        good = through(Numbers(), Slow(streams), threads, windows([[2]], 5))
        assert [batch.outputs["square"].tolist() for batch in good] == [[4]]
    threads.close()


@pytest.mark.parametrize("streams", [1, 2])
def test_a_long_stream_is_not_taken_ahead_of_its_results(streams: int) -> None:
    feeder, backend, threads = Numbers(), Slow(streams), Threads(streams)
    given = 0

    def blocks() -> Iterator[list[int]]:
        nonlocal given
        for _ in range(1000):
            given += 5
            yield [1] * 5

    flow = through(feeder, backend, threads, windows(blocks(), feeder.ahead))
    for taken in range(1, 200):
        next(flow)
        waiting = 3 * taken  # no batch has more items
        assert given <= waiting + 5 * (2 + 2 * streams + 1)
    flow.close()
    threads.close()
    assert feeder.encoded <= given < 1000 * 5
