"""int8 weights against their objective, and against the method written out without its shortcuts."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edgessl.calibrate import gptq

Floats = npt.NDArray[np.float32]


def weights(inputs: int, outputs: int, seed: int) -> Floats:
    return np.random.default_rng(seed).normal(size=(inputs, outputs)).astype(np.float32)


def activations(inputs: int, seed: int) -> npt.NDArray[Any]:
    """Correlated channels of several sizes, as an encoder's are."""
    rng = np.random.default_rng(seed)
    mixed = rng.normal(size=(3 * inputs, inputs // 2)) @ rng.normal(size=(inputs // 2, inputs))
    return (mixed + 0.3 * rng.normal(size=mixed.shape)) * rng.uniform(0.1, 2, inputs)


def error(x: npt.NDArray[Any], exact: Floats, codes: npt.NDArray[Any], scale: Floats) -> float:
    return float(np.square(x @ (codes * scale - exact)).sum())


def written_out(exact: Floats, gram: npt.NDArray[Any], scale: Floats) -> npt.NDArray[Any]:
    """Optimal brain quantization in GPTQ's order, with the inverse of what is left at each step."""
    left = exact.astype(float) / scale
    hessian = gram + 0.01 * np.diag(gram).mean() * np.eye(len(gram))
    order = list(np.argsort(-np.diag(gram), kind="stable"))
    codes = np.zeros_like(left)
    while order:
        inverse = np.linalg.inv(hessian[np.ix_(order, order)])
        row, *rest = order
        codes[row] = np.clip(np.rint(left[row]), -127, 127)
        wrong = (left[row] - codes[row]) / inverse[0, 0]
        left[rest] -= np.outer(inverse[1:, 0], wrong)
        order = rest
    return codes


@pytest.mark.parametrize("seed", range(6))
def test_never_worse_than_the_nearest(seed: int) -> None:
    exact, x = weights(48, 24, seed), activations(48, seed)
    scale = gptq.scales(exact, False)
    nearest = gptq.quantize(exact, None, scale)
    np.testing.assert_array_equal(nearest, np.rint(exact / scale))
    ours = gptq.quantize(exact, x.T @ x, scale)
    assert error(x, exact, ours, scale) < 0.5 * error(x, exact, nearest, scale)
    assert np.abs(ours.astype(int)).max() <= 127


def test_equals_the_method_written_out() -> None:
    exact, x = weights(150, 6, 3), activations(150, 3)  # more than one block of inputs
    gram = x.T @ x
    scale = gptq.scales(exact, False) * 16  # few levels, so that much is handed on
    ours, theirs = gptq.quantize(exact, gram, scale), written_out(exact, gram, scale)
    assert (ours == theirs).mean() > 0.99  # float32 may round a tie the other way
    assert error(x, exact, ours, scale) == pytest.approx(error(x, exact, theirs, scale), rel=0.02)


def test_inputs_that_have_nothing_in_common_are_rounded_to_nearest() -> None:
    exact = weights(32, 8, 1)
    scale = gptq.scales(exact, False)
    sizes = np.random.default_rng(0).uniform(0.1, 9, 32)
    for gram in (np.eye(32), np.diag(sizes)):
        np.testing.assert_array_equal(
            gptq.quantize(exact, gram, scale), gptq.quantize(exact, None, scale)
        )


def test_inputs_that_were_never_seen() -> None:
    exact, gram = weights(8, 4, 1), np.zeros((8, 8))
    scale = gptq.scales(exact, False)
    np.testing.assert_array_equal(gptq.quantize(exact, gram, scale), np.rint(exact / scale))
    assert not gptq.quantize(np.zeros((8, 4), np.float32), np.eye(8), scale).any()


def test_scales() -> None:
    exact = np.array([[1.0, -3.0, 0.0], [2.0, -1.0, 0.0], [-4.0, 3.0, 0.0]], np.float32)
    np.testing.assert_allclose(gptq.scales(exact, False), [4 / 127, 3 / 127, 1])
    # Neighbours of one sign count together: 1 + 2 < 4, and -3 - 1.
    np.testing.assert_allclose(gptq.scales(exact, True), [4 / 127, 4 / 127, 1])


def largest_pair(codes: npt.NDArray[Any]) -> int:
    """What two neighbours of one sign come to together."""
    padded = np.pad(codes.astype(int), [(0, len(codes) % 2), (0, 0)])
    pairs = [np.maximum(sign * padded, 0).reshape(-1, 2, codes.shape[1]) for sign in (1, -1)]
    return max(int(pair.sum(axis=1).max()) for pair in pairs)


_SIZES = st.floats(-4, 4, width=32)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_neighbours_never_saturate_together(given_data: st.DataObject) -> None:
    inputs = given_data.draw(st.integers(1, 9))
    exact = given_data.draw(arrays(np.float32, (inputs, 3), elements=_SIZES))
    x = given_data.draw(arrays(np.float64, (12, inputs), elements=_SIZES))
    scale = gptq.scales(exact, True)
    for gram in (None, x.T @ x):
        codes = gptq.quantize(exact, gram, scale, True)
        assert largest_pair(codes) <= 128  # 128 * 255 fits into 16 bits
        assert np.abs(codes.astype(int)).max() <= 127


@pytest.mark.parametrize("inputs", [64, 95])
def test_neighbours_would_saturate_where_that_is_allowed(inputs: int) -> None:
    rng = np.random.default_rng(4)
    exact = rng.uniform(-1, 1, (inputs, 200)).astype(np.float32)
    x = activations(inputs, 4)
    scale, gram = gptq.scales(exact, True), x.T @ x
    assert largest_pair(gptq.quantize(exact, gram, scale)) > 128
    assert largest_pair(gptq.quantize(exact, gram, scale, True)) <= 128


def test_what_saturating_processors_allow_costs_little() -> None:
    exact, x = weights(64, 32, 5), activations(64, 5)
    wide, narrow = gptq.scales(exact, False), gptq.scales(exact, True)
    gram = x.T @ x
    plain = error(x, exact, gptq.quantize(exact, gram, wide), wide)
    careful = error(x, exact, gptq.quantize(exact, gram, narrow, True), narrow)
    seven_bits = error(x, exact, gptq.quantize(exact, gram, wide * 2), wide * 2)
    assert plain < careful < seven_bits
