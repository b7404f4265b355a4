"""Queries: a clock of our own, and queueing theory."""

from __future__ import annotations

from itertools import cycle, repeat
from typing import Any

import numpy as np
import pytest

from edgessl.errors import EdgesslError
from edgessl.gate.measuring import scenarios

MS = 1_000_000


class Machine:
    """A clock that only work and sleep move."""

    def __init__(self, work_ns: list[int]) -> None:
        self.now = 0
        self.work = cycle(work_ns)
        self.seen: list[Any] = []

    def clock(self) -> int:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += round(seconds * 1e9)

    def call(self, query: Any) -> None:
        self.seen.append(query)
        self.now += next(self.work)


def test_one_after_another() -> None:
    machine = Machine([3 * MS, 5 * MS])
    take = cycle([["a"], ["b", "c"]]).__next__
    block = scenarios.one_after_another(machine.call, take, 10 * MS, machine.clock)
    assert block.latency_ns == [3 * MS, 5 * MS, 3 * MS]
    assert (block.items, block.busy_ns) == (4, 11 * MS)
    again = scenarios.one_after_another(machine.call, take, 1, machine.clock)
    assert machine.seen == [["a"], ["b", "c"], ["a"], ["b", "c"]] and again.items == 2


def test_a_block_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scenarios, "MOST_SAMPLES", 10)
    machine = Machine([1])
    block = scenarios.one_after_another(machine.call, repeat(["a"]).__next__, MS, machine.clock)
    assert len(block.latency_ns) == 10


@pytest.mark.parametrize("work", [[5 * MS, -3 * MS, 9 * MS], [0]])
def test_a_clock_that_goes_backwards_or_stands(
    work: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scenarios, "MOST_SAMPLES", 10)
    machine = Machine(work)
    with pytest.raises(EdgesslError, match="clock went backwards or stood"):
        scenarios.one_after_another(machine.call, repeat(["a"]).__next__, 9 * MS, machine.clock)


def test_warm_up_ends_when_queries_take_as_long_as_before() -> None:
    falling = [10 * MS] * 2 + [6 * MS] * 4 + [4 * MS] * 1000
    machine = Machine(falling)
    found = scenarios.warm_up(machine.call, repeat(["a"]).__next__, 0, machine.clock)
    assert found["stable"] and found["usual_ns"] == 4 * MS
    assert machine.now < 100 * MS


def test_warm_up_gives_up() -> None:
    machine = Machine([MS] * 20 + [2 * MS] * 10)
    found = scenarios.warm_up(machine.call, repeat(["a"]).__next__, 0, machine.clock)
    assert not found["stable"]
    assert scenarios.WARM_LIMIT_NS <= machine.now < 1.1 * scenarios.WARM_LIMIT_NS


def test_items_of_all_lengths_are_seen_once() -> None:
    machine = Machine([MS, 9 * MS])
    take = cycle([[n] for n in range(100)]).__next__
    found = scenarios.warm_up(machine.call, take, 100, machine.clock)
    assert found["stable"] and {n for (n,) in machine.seen} == set(range(100))
    slow = Machine([200 * MS])
    found = scenarios.warm_up(slow.call, take, 100, slow.clock)
    assert not found["stable"] and slow.now == scenarios.ONCE_LIMIT_NS


def test_a_slow_query_is_warm_soon() -> None:
    machine = Machine([3_000 * MS])
    found = scenarios.warm_up(machine.call, repeat(["a"]).__next__, 0, machine.clock)
    assert found["queries"] == 1


def test_arrivals_are_a_poisson_process() -> None:
    due = np.array(scenarios.arrivals(1000, 100, np.random.default_rng(0)))
    gaps = np.diff(due)
    assert len(due) == 100_000 and gaps.min() >= 0
    assert gaps.mean() == pytest.approx(MS, rel=0.01)
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.02)  # exponential
    assert len(scenarios.arrivals(1, 0.5, np.random.default_rng(0))) == 20


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_waiting_is_what_queueing_theory_says(load: float) -> None:
    """M/D/1: the mean wait is load / (1 - load) / 2 services (Pollaczek and Khinchine)."""
    machine = Machine([MS])
    due = scenarios.arrivals(1000 * load, 60 / load, np.random.default_rng(1))
    take = repeat(["a"]).__next__
    block = scenarios.served(machine.call, take, due, 1, machine.clock, machine.sleep)
    wait = np.mean(block.latency_ns) / MS - 1
    assert wait == pytest.approx(load / (1 - load) / 2, rel=0.06)
    assert min(block.latency_ns) == MS and not block.overloaded
    assert block.items == len(due)


def test_a_slow_query_delays_those_behind_it() -> None:
    """No coordinated omission: latency counts from when a query was due."""
    machine = Machine([50 * MS] + [MS] * 99)
    due = [n * 2 * MS for n in range(20)]
    take = repeat(["a"]).__next__
    block = scenarios.served(machine.call, take, due, 1, machine.clock, machine.sleep)
    # the k-th waits for the first one's 50 ms and those between, less the 2 ms k it came later
    assert block.latency_ns == [(50 + k - 2 * k) * MS for k in range(20)]


@pytest.mark.parametrize(("times", "given_up"), [(1.3, False), (10, True), (100, True)])
def test_an_overloaded_server(times: float, given_up: bool) -> None:
    machine = Machine([round(times * MS)])
    due = scenarios.arrivals(1000, 1, np.random.default_rng(0))
    take = repeat(["a"]).__next__
    block = scenarios.served(machine.call, take, due, 1, machine.clock, machine.sleep)
    assert block.overloaded and len(block.latency_ns) == len(due)
    assert (block.items < len(due)) is given_up
    if given_up:  # what still waited counts as late as it was by then
        assert 5e9 < machine.now < 6e9 and block.latency_ns[-1] > 3.9e9


def test_several_streams_serve_every_query_once() -> None:
    seen: list[int] = []
    queries = iter([[n] for n in range(300)])
    due = scenarios.arrivals(20_000, 0.015, np.random.default_rng(0))
    block = scenarios.served(lambda q: seen.append(q[0]), lambda: next(queries), due, 4)
    assert sorted(seen) == list(range(len(due)))
    assert block.items == len(block.latency_ns) == len(due) and min(block.latency_ns) > 0


def test_an_error_of_a_stream_is_not_lost() -> None:
    def call(query: Any) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        scenarios.served(call, repeat(["a"]).__next__, [0, 10 * MS], 2)


def test_the_loop_costs_less_than_two_microseconds() -> None:
    assert min(scenarios.overhead_ns() for _ in range(5)) < 2000
