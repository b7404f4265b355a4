"""Smoothing factors: the slope of what they minimize, and the error of real int8 products."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from edgessl.calibrate import smoothing

Floats = npt.NDArray[np.float32]
Problem = tuple[Floats, Floats, Floats, Floats]


def problem(seed: int, channels: int = 24, outputs: int = 12) -> tuple[Floats, Floats]:
    """Rows with a few channels that are far larger, and weights."""
    rng = np.random.default_rng(seed)
    sizes = np.exp(rng.normal(0, 0.7, channels))
    sizes[rng.choice(channels, 2, replace=False)] *= 40
    rows = rng.normal(rng.normal(0, 0.5, channels), 1, (256, channels)) * sizes
    return rows.astype(np.float32), rng.normal(size=(channels, outputs)).astype(np.float32)


def arguments(rows: Floats, weights: Floats) -> Problem:
    return weights, rows.min(axis=0), rows.max(axis=0), np.square(rows).mean(axis=0)


def product_error(rows: Floats, weights: Floats, factors: Floats) -> float:
    """Of the int8 product, the activations with one scale and the weights with one a column."""
    x, w = rows / factors, weights * factors[:, None]
    low, high = min(float(x.min()), 0.0), max(float(x.max()), 0.0)
    step, steps = (high - low) / 255, np.abs(w).max(axis=0) / 127
    rounded = (np.rint(x / step) * step) @ (np.rint(w / steps) * steps)
    return float(np.square(rounded - rows @ weights).mean())


@pytest.mark.parametrize("signed", [False, True])
def test_slope(signed: bool) -> None:
    rows, weights = problem(1)
    error, _ = smoothing.objective(*arguments(rows, weights), signed)
    at: npt.NDArray[np.float64] = np.random.default_rng(2).normal(0, 0.5, (rows.shape[1],))
    _, slope = error(at)
    size, step = np.abs(slope).max(), 1e-3
    for channel in range(len(at)):
        move = np.zeros_like(at)
        move[channel] = step
        difference = (error(at + move)[0] - error(at - move)[0]) / (2 * step)
        assert difference == pytest.approx(slope[channel], rel=0.01, abs=0.002 * size)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_factors_make_products_better(seed: int, signed: bool) -> None:
    rows, weights = problem(seed)
    factors, error, plain = smoothing.factors(*arguments(rows, weights), signed)
    assert factors.dtype == np.float32 and (factors > 0).all()
    assert np.log(factors).mean() == pytest.approx(0, abs=1e-4)
    assert error < plain
    ones = np.ones(rows.shape[1], np.float32)
    assert product_error(rows, weights, factors) < 0.3 * product_error(rows, weights, ones)


def test_better_than_a_power_of_the_range() -> None:
    """SmoothQuant takes the square root of range over largest weight."""
    ours, theirs = [], []
    for seed in range(8):
        rows, weights = problem(seed)
        power = np.sqrt(np.abs(rows).max(axis=0) / np.abs(weights).max(axis=1))
        factors, _, _ = smoothing.factors(*arguments(rows, weights), False)
        ours.append(product_error(rows, weights, factors))
        theirs.append(product_error(rows, weights, power))
    assert np.mean(np.array(ours) / theirs) < 0.95


def test_nothing_is_gained_where_all_channels_are_alike() -> None:
    rng = np.random.default_rng(3)
    rows = rng.uniform(-1, 1, (4096, 16)).astype(np.float32)
    weights = rng.choice([-1.0, 1.0], (16, 8)).astype(np.float32)
    factors, error, plain = smoothing.factors(*arguments(rows, weights), False)
    assert 0.95 * plain < error <= plain
    np.testing.assert_allclose(factors, 1, atol=0.1)


def test_scale_and_order_do_not_matter() -> None:
    rows, weights = problem(5)
    factors, error, plain = smoothing.factors(*arguments(rows, weights), False)
    larger = smoothing.factors(*arguments(rows * 8, weights * 4), False)
    np.testing.assert_allclose(larger[0], factors, rtol=1e-3)
    np.testing.assert_allclose(larger[1:], np.array([error, plain]) * 32**2, rtol=1e-3)
    turned = smoothing.factors(*arguments(rows[:, ::-1], weights[::-1]), False)
    np.testing.assert_allclose(turned[0][::-1], factors, rtol=1e-2)


def test_channels_without_values_or_weights() -> None:
    rows, weights = problem(6)
    rows[:, 3], weights[5] = 0, 0
    factors, error, plain = smoothing.factors(*arguments(rows, weights), False)
    assert np.isfinite(factors).all() and (factors > 0).all() and error <= plain
    nothing = smoothing.factors(*arguments(rows * 0, weights * 0), True)
    assert np.isfinite(nothing[0]).all() and nothing[1] <= nothing[2]
