"""Stored vectors against formulas, and recall against a search spelled out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgessl.embed import dtypes
from edgessl.errors import RecipeError


def unit(count: int, dimensions: int, seed: int = 0) -> dtypes.Vectors:
    found = np.random.default_rng(seed).standard_normal((count, dimensions))
    lengths = np.linalg.norm(found, axis=1, keepdims=True)
    unit: dtypes.Vectors = (found / lengths).astype(np.float32)
    return unit


@given(st.integers(1, 40), st.integers(1, 30), st.integers(0, 99))
@settings(deadline=None, max_examples=50)
def test_int8_is_within_half_a_step(count: int, dimensions: int, seed: int) -> None:
    vectors = unit(count, dimensions, seed)
    scales = dtypes.fit_scales(vectors)

    stored = dtypes.encode(vectors, "int8", scales)
    read = dtypes.decode(stored, "int8", dimensions, scales)

    assert stored.dtype == np.int8 and stored.min() >= -127
    assert (np.abs(read - vectors) <= 0.5001 * scales).all()
    assert (np.abs(stored).max(axis=0) == 127).all()  # the whole range is used
    far = dtypes.encode(10 * vectors, "int8", scales)  # beyond the range: cut, not wrapped
    assert np.array_equal(np.sign(far), np.sign(np.rint(10 * vectors / scales)))


@given(st.integers(1, 9), st.integers(1, 30), st.integers(0, 99))
@settings(deadline=None, max_examples=50)
def test_bits_one_by_one(count: int, dimensions: int, seed: int) -> None:
    vectors = unit(count, dimensions, seed)

    stored = dtypes.encode(vectors, "binary")
    read = dtypes.decode(stored, "binary", dimensions)

    assert stored.shape == (count, dtypes.width("binary", dimensions))
    for row in range(count):
        for place in range(dimensions):
            bit = stored[row, place // 8] >> (7 - place % 8) & 1
            assert bit == (vectors[row, place] > 0)
            assert np.isclose(read[row, place], (1 if bit else -1) / np.sqrt(dimensions))


def test_a_dimension_that_is_always_zero() -> None:
    vectors = np.array([[0, 1], [0, -1]], np.float32)
    scales = dtypes.fit_scales(vectors)

    assert np.array_equal(dtypes.decode(dtypes.encode(vectors, "int8", scales), "int8", 2, scales),
                          vectors)  # fmt: skip


@pytest.mark.parametrize("dtype", ["float16", "int8", "binary"])
def test_recall_is_that_of_a_plain_search(dtype: str) -> None:
    vectors = unit(80, 16, seed=3)
    scales = dtypes.fit_scales(vectors)
    stored = dtypes.decode(dtypes.encode(vectors, dtype, scales), dtype, 16, scales)

    found = dtypes.recall(vectors, dtype, scales)

    hits = 0
    for query in range(80):
        others = [row for row in range(80) if row != query]
        lengths = np.linalg.norm(stored, axis=1)
        near = sorted(others, key=lambda row: -float(stored[row] @ vectors[query] / lengths[row]))
        true = sorted(others, key=lambda row: -float(vectors[row] @ vectors[query]))
        hits += len({*near[:10]} & {*true[:10]})
    assert found["recall_at_10"] == pytest.approx(hits / 800, abs=0.003)  # ties of rounding
    assert (found["vectors"], found["queries"]) == (80, 80)
    floors = {"float16": 0.99, "int8": 0.95, "binary": 0.5}
    assert found["recall_at_10"] > floors[dtype]
    assert ("recall_at_10_bits" in found) == (dtype == "binary")


def test_too_few_for_recall() -> None:
    assert dtypes.recall(unit(10, 4), "binary")["recall_at_10"] is None
    assert dtypes.recall(unit(11, 4), "float16")["recall_at_10"] == 1


def test_an_unknown_dtype() -> None:
    with pytest.raises(RecipeError, match="--dtype 'flot16' is none of .*Did you mean 'float16'"):
        dtypes.check("flot16")
