"""Ranges against numpy, against a search of all candidates, and against loops written out."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edgessl.calibrate import ranges

Floats = npt.NDArray[Any]


def samples(kind: str) -> Floats:
    rng = np.random.default_rng(len(kind))
    values = {
        "normal": rng.normal(0, 1, 20_000),
        "one-sided": rng.exponential(1, 20_000),
        "outliers": np.append(rng.normal(0, 1, 20_000), [40.0, -25.0, 38.0]),
        "heavy": rng.standard_t(3, 20_000),
        "negative": -rng.exponential(1, 20_000) - 0.5,
    }[kind]
    return values.astype(np.float32)


KINDS = ["normal", "one-sided", "outliers", "heavy", "negative"]


@pytest.mark.parametrize("kind", KINDS)
def test_minmax_and_percentile(kind: str) -> None:
    values = samples(kind)
    assert ranges.minmax(values) == (min(values.min(), 0), max(values.max(), 0))
    low, high = np.percentile(values.astype(float), [0.01, 99.99])
    expected = pytest.approx((min(low, 0), max(high, 0)), rel=1e-4)
    assert ranges.percentile(values) == expected
    ordered = np.sort(values)
    assert ranges.percentile(values, 0.5)[1] == pytest.approx(
        max(0, (ordered[(len(values) - 1) // 2] + ordered[len(values) // 2]) / 2)
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("levels", [15, 255])
def test_mse_is_the_best_share_of_the_range(kind: str, levels: int) -> None:
    values = samples(kind).astype(float)
    low, high = ranges.minmax(values)

    def error(low: float, high: float) -> float:
        step = (high - low) / levels
        clipped = np.clip(np.rint(values / step), round(low / step), round(high / step))
        return float(np.square(clipped * step - values).mean())

    best = min(error(low * share, high * share) for share in np.linspace(0.2, 1, 161))
    ours = ranges.mse(values, levels)
    assert ours[0] * high == pytest.approx(ours[1] * low)  # one share for both ends
    assert error(*ours) <= 1.1 * best
    if kind == "outliers" and levels == 15:
        assert error(*ours) < 0.8 * error(low, high)


def written_out(values: Floats) -> float:
    """TensorRT's search for the threshold, a histogram bar at a time."""
    top = float(np.abs(values).max())
    bars = [0] * ranges.BINS
    for value in np.abs(values).tolist():
        bars[min(int(value / top * ranges.BINS), ranges.BINS - 1)] += 1
    best, threshold = math.inf, top
    for kept in range(128, ranges.BINS + 1, 16):
        inside = bars[:kept]
        reference = [*inside[:-1], inside[-1] + sum(bars[kept:])]
        spread = [0.0] * kept
        edges = [int(kept * level / 128) for level in range(129)]
        for left, right in zip(edges, edges[1:], strict=False):
            full = [bar for bar in range(left, right) if inside[bar]]
            for bar in full:
                spread[bar] = sum(inside[left:right]) / len(full)
        whole, known = sum(reference), sum(spread)
        divergence = 0.0
        for left_bar, right_bar in zip(reference, spread, strict=True):
            if left_bar:
                p, q = left_bar / whole, max(right_bar / known, 1e-12)
                divergence += p * math.log(p / q)
        if divergence < best:
            best, threshold = divergence, top * kept / ranges.BINS
    return threshold


@pytest.mark.parametrize("kind", ["normal", "outliers"])
def test_entropy_equals_the_method_written_out(kind: str) -> None:
    values = samples(kind)
    low, high = ranges.minmax(values)
    threshold = written_out(values.astype(float))
    found = ranges.entropy(values)
    expected = (max(low, -threshold), min(high, threshold))
    assert found == pytest.approx(expected, abs=2 * 16 * max(high, -low) / ranges.BINS)
    if kind == "outliers":
        assert found[1] < 0.5 * high


_VALUES = arrays(np.float32, st.integers(1, 60), elements=st.floats(-100, 100, width=32))


@settings(max_examples=30, deadline=None)
@given(_VALUES, st.sampled_from(sorted(ranges.METHODS)))
def test_zero_is_inside_and_nothing_is_made_up(values: Floats, method: str) -> None:
    low, high = ranges.METHODS[method](values)
    assert low <= 0 <= high
    assert ranges.minmax(values)[0] <= low + 1e-6 and high <= ranges.minmax(values)[1] + 1e-6
    larger = ranges.METHODS[method](values * np.float32(4))
    assert larger == pytest.approx((4 * low, 4 * high), rel=1e-5, abs=1e-5)
