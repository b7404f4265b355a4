"""Interleaved timing with a clock that the jobs themselves move."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from edgessl.gate import latency


class Clock:
    """Seconds pass only when a job runs; ``visits`` is who ran, in order."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.visits: list[str] = []

    def job(self, name: str, seconds: float) -> Callable[[], object]:
        def run() -> None:
            self.visits.append(name)
            self.now += seconds

        return run


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    fake = Clock()
    monkeypatch.setattr("time.perf_counter", lambda: fake.now)
    return fake


def test_order_is_reversed_every_other_round(clock: Clock) -> None:
    jobs = {name: clock.job(name, 1) for name in "abc"}
    latency.interleave(jobs, rounds=4, warm_up=0)
    assert "".join(clock.visits) == "abc" + "cba" + "abc" + "cba"


def test_calls_of_a_visit_and_warm_up(clock: Clock) -> None:
    jobs = {name: clock.job(name, 1) for name in "ab"}
    latency.interleave(jobs, rounds=2, calls=3, warm_up=2)
    assert "".join(clock.visits) == "aabb" + "aaabbb" + "bbbaaa"


def test_samples_are_raw_in_order_and_without_the_warm_up(clock: Clock) -> None:
    seconds = iter([9.0, 1.0, 2.0, 4.0, 8.0])

    def slower_each_time() -> None:
        clock.now += next(seconds)

    jobs = {"slower": slower_each_time, "steady": clock.job("steady", 0.5)}
    samples = latency.interleave(jobs, rounds=2, calls=2, warm_up=1)
    assert samples == {"slower": [1.0, 2.0, 4.0, 8.0], "steady": [0.5] * 4}
    assert list(samples) == ["slower", "steady"]


@pytest.mark.parametrize(("rounds", "calls"), [(0, 1), (1, 0), (3, 4)])
def test_counts(clock: Clock, rounds: int, calls: int) -> None:
    samples = latency.interleave({"a": clock.job("a", 1)}, rounds, calls, warm_up=2)
    assert len(samples["a"]) == rounds * calls
    assert len(clock.visits) == rounds * calls + 2


def test_an_error_in_a_job_is_not_swallowed(clock: Clock) -> None:
    def fail() -> None:
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        latency.interleave({"a": clock.job("a", 1), "b": fail}, rounds=1, warm_up=0)
    assert clock.visits == ["a"]


def test_the_interval_holds_the_ratio_of_medians_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    truth, rounds, calls, held = 0.8, 15, 4, 0
    for _ in range(100):
        # rounds drift together, calls vary within them: as a shared machine behaves
        drift = np.repeat(rng.lognormal(0, 0.1, rounds), calls)
        left = truth * drift * rng.lognormal(0, 0.05, rounds * calls)
        right = drift * rng.lognormal(0, 0.05, rounds * calls)
        rounded = [times.reshape(rounds, calls).tolist() for times in (left, right)]
        _, (low, high) = latency.ratio(*rounded)
        held += low <= truth <= high
    assert held >= 90


def test_equal_samples_give_a_ratio_of_one() -> None:
    assert latency.ratio([[1.0, 2.0]] * 5, [[1.0, 2.0]] * 5) == (1.0, (1.0, 1.0))


def test_a_ratio_is_one_of_medians_with_its_spread() -> None:
    steady = [[2.0, 2.0, 9.0]] * 8  # one hiccup a round
    assert latency.ratio(steady, [[1.0, 1.0, 1.0]] * 8) == (2.0, (2.0, 2.0))
    ratio, (low, high) = latency.ratio(steady, [[1.0], [2.0], [1.0], [2.0], [1.0]] + [[1.0]] * 3)
    assert low < ratio == 2.0 <= high
