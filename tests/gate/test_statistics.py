"""Intervals against scipy's tests, against published values, and by how often they hold."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

from edgessl.gate.judging import statistics
from edgessl.gate.judging.statistics import percentile_interval, prediction_interval, shift_interval

Draw = Callable[[np.random.Generator, tuple[int, int]], npt.NDArray[np.float64]]


def _heavy_tailed(rng: np.random.Generator, shape: tuple[int, int]) -> npt.NDArray[np.float64]:
    return 1 + rng.pareto(1.5, shape)


def _bimodal(rng: np.random.Generator, shape: tuple[int, int]) -> npt.NDArray[np.float64]:
    slow = rng.random(shape) > 0.97
    found: npt.NDArray[np.float64] = np.where(
        slow, rng.normal(5, 0.5, shape), rng.normal(1, 0.03, shape)
    )
    return found


@pytest.mark.parametrize("draw", [_heavy_tailed, _bimodal])
@pytest.mark.parametrize("between", [0.0, 0.05])
def test_the_p99_interval_holds_as_often_as_it_says(draw: Draw, between: float) -> None:
    rng = np.random.default_rng(0)

    def rounds(count: int) -> npt.NDArray[np.float64]:
        return draw(rng, (count, 200)) * np.exp(rng.normal(0, between, (count, 1)))

    truth = np.quantile(rounds(10_000), 0.99)
    inside = 0.0
    for _ in range(1500):
        low, high = percentile_interval(list(rounds(20)), 0.99, 0.95)
        inside += low <= truth <= high
    assert 0.93 < inside / 1500 < 0.98


def test_treating_calls_of_a_round_as_independent_would_not_hold() -> None:
    """Why rounds are counted: processes that differ by 5 % make the naive interval far too short."""
    rng = np.random.default_rng(0)
    naive = clustered = 0
    for _ in range(100):
        rounds = rng.normal(1, 0.03, (10, 100)) * np.exp(rng.normal(0, 0.05, (10, 1)))
        low, high = percentile_interval(list(rounds), 0.5, 0.95)
        clustered += low <= 1 <= high
        test = stats.quantile_test(rounds.ravel(), q=1, p=0.5)
        interval = test.confidence_interval(0.95)
        naive += interval.low <= 1 <= interval.high
    assert clustered >= 88 and naive < 60


def test_an_independent_call_a_round_gives_the_classical_order_statistics() -> None:
    """With a call a round nothing is clustered: scipy's exact test brackets the same ranks."""
    values = np.random.default_rng(1).normal(size=400)
    low, high = percentile_interval([[x] for x in values], 0.5, 0.95)
    exact = stats.quantile_test(values, q=0, p=0.5).confidence_interval(0.95)
    ordered = np.sort(values)
    ranks = np.searchsorted(ordered, [low, high, exact.low, exact.high])
    assert abs(ranks[0] - ranks[2]) <= 2 and abs(ranks[1] - ranks[3]) <= 2


def test_too_few_samples_give_no_bound() -> None:
    rounds = np.random.default_rng(0).normal(1, 0.1, (5, 10)).tolist()
    assert percentile_interval(rounds, 0.99, 0.95)[1] == math.inf
    assert percentile_interval(rounds[:1], 0.5, 0.95) == statistics.UNKNOWN
    assert percentile_interval([[3.0] * 50] * 20, 0.5, 0.99) == (3.0, 3.0)


@pytest.mark.parametrize("count", [8, 15, 40])
def test_the_shift_interval_is_what_the_signed_rank_test_does_not_refuse(count: int) -> None:
    differences = np.random.default_rng(count).normal(0.03, 0.02, count)
    _, (low, high) = shift_interval(differences.tolist(), 0.95)
    for inside, outside in ((low + 1e-9, low - 1e-9), (high - 1e-9, high + 1e-9)):
        p = [stats.wilcoxon(differences - at, mode="exact").pvalue for at in (inside, outside)]
        assert p[1] <= 0.05 < p[0]


def test_beyond_two_hundred_pairs_the_normal_law_gives_the_same_ranks() -> None:
    ways = np.ones(1)
    for rank in range(1, 221):
        ways = np.convolve(ways, np.r_[1, np.zeros(rank - 1), 1])
    exact = int(np.searchsorted(np.cumsum(ways / 2.0**220), 0.005, side="right"))
    assert abs(statistics._signed_rank_quantile(220, 0.005) - exact) <= 20  # of 24,310


def test_the_shift_estimate_is_not_moved_by_one_bad_round() -> None:
    calm = [0.010, 0.011, 0.009, 0.012, 0.008, 0.010, 0.011, 0.009, 0.010, 0.010, 0.012]
    middle, (low, high) = shift_interval([*calm, 3.0], 0.99)
    assert middle == pytest.approx(0.010, abs=0.001) and 0.008 <= low < high <= 1.6
    assert shift_interval(calm[:5], 0.99)[1] == statistics.UNKNOWN
    assert statistics.fewest_rounds(0.99) == 8
    assert math.isfinite(shift_interval(calm[:8], 0.99)[1][0])


def test_looking_again_and_again_spends_no_more_than_there_is() -> None:
    looks = range(1, 2000)
    spent = sum(3 * (1 - statistics.look_confidence(0.99, 3, look)) for look in looks)
    assert 0.0099 < spent < 0.01


def test_prediction_interval_against_its_formula() -> None:
    mean, (low, high) = prediction_interval([10.0, 12.0, 11.0], 0.95)
    half = 4.302652729 * 1.0 * math.sqrt(1 + 1 / 3)  # t of 2 degrees of freedom, tables
    assert mean == 11.0
    assert (high - mean, mean - low) == pytest.approx((half, half))
