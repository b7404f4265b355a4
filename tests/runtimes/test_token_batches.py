"""How texts are dealt into batches, whatever their lengths."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edgessl.runtimes.batches import BATCH_ITEMS, BATCH_TOKENS, token_batches

LENGTHS = st.lists(st.integers(0, 600), max_size=200)


@given(LENGTHS, st.integers(1, 40), st.integers(1, 2000))
def test_batches(lengths: list[int], items: int, tokens: int) -> None:
    batches = token_batches(lengths, items, tokens)
    dealt = [row for batch in batches for row in batch]
    assert sorted(dealt) == list(range(len(lengths)))  # every row once
    assert [lengths[row] for row in dealt] == sorted(lengths, reverse=True)
    for batch in batches:
        padded = len(batch) * max(lengths[row] for row in batch)
        assert 1 <= len(batch) <= items
        assert padded <= tokens or len(batch) == 1


@given(LENGTHS, st.integers(1, 40), st.integers(1, 2000))
def test_no_batch_is_closed_early(lengths: list[int], items: int, tokens: int) -> None:
    batches = token_batches(lengths, items, tokens)
    for batch in batches[:-1]:
        assert len(batch) == items or (len(batch) + 1) * max(lengths[batch[0]], 1) > tokens


@given(LENGTHS)
def test_default_limits(lengths: list[int]) -> None:
    assert token_batches(lengths) == token_batches(lengths, BATCH_ITEMS, BATCH_TOKENS)


def test_equal_lengths_keep_their_order() -> None:
    assert token_batches([3, 5, 3, 5, 3], items=2, tokens=99) == [[1, 3], [0, 2], [4]]
    assert token_batches([]) == []
