"""Long documents in pieces: cut as transformers cuts them, whole words kept, pooled by weight."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edgessl.errors import ItemError, RecipeError
from edgessl.runtimes.chunks import cuts, pool, split
from edgessl.runtimes.options import InputOptions
from edgessl.runtimes.text import TextPreprocessor
from tests.text_models import HARD_TEXTS, KINDS, Pair

CHUNKING = InputOptions(long="chunk")
EMPTY = np.empty(0, np.int64)


def documents(sentences: list[str]) -> list[str]:
    return [" ".join(sentences[start : start + 1 + start % 17]) for start in range(0, 400, 10)]


@pytest.mark.parametrize("kind", ["minilm", "bpe", "unigram"])
@pytest.mark.parametrize("overlap", [0, 1, 7, 19])
def test_token_by_token_as_transformers(
    pairs: dict[str, Pair], sentences: list[str], kind: str, overlap: int
) -> None:
    reference, ours = pairs[kind]
    for text in documents(sentences):
        expected = reference(
            text, truncation=True, max_length=40, stride=overlap, return_overflowing_tokens=True
        )["input_ids"]
        content = np.array(reference(text, add_special_tokens=False)["input_ids"], dtype=np.int64)
        pieces, _ = split(content, ours.before, ours.after, 40, overlap=overlap)
        assert [piece.tolist() for piece in pieces] == expected


def plain_cuts(length: int, room: int, words: list[int], overlap: int) -> list[tuple[int, int]]:
    """The rule of ``cuts``, said the slow way."""
    starts_word = [i == 0 or i == length or words[i] != words[i - 1] for i in range(length + 1)]
    pieces, start = [], 0
    while length - start > room:
        stop = start + room
        while stop > start + room // 2 and not starts_word[stop]:
            stop -= 1
        if stop == start + room // 2:  # a word longer than half a piece
            stop = start + room
        pieces.append((start, stop))
        start = stop - overlap
        while start < stop and not starts_word[start]:
            start += 1
    return [*pieces, (start, length)]


@given(data=st.data(), length=st.integers(0, 200), room=st.integers(1, 30))
@settings(max_examples=300, deadline=None)
def test_cuts_at_words(data: st.DataObject, length: int, room: int) -> None:
    sizes = data.draw(st.lists(st.integers(1, 40), max_size=length))
    words = [number for number, size in enumerate(sizes) for _ in range(size)]
    words = (words + [-1] * length)[:length]
    overlap = data.draw(st.integers(0, room // 2))
    found = list(cuts(length, room, words, overlap))
    assert found == plain_cuts(length, room, words, overlap)
    assert found[0][0] == 0 and found[-1][1] == length
    for (start, stop), (following, end) in zip(found, found[1:], strict=False):
        assert start < following <= stop < end <= following + room
        assert stop - following <= overlap


@pytest.mark.parametrize(("room", "overlap"), [(0, 0), (-3, 0), (10, 6), (10, -1), (1, 1)])
def test_cuts_that_make_no_sense(room: int, overlap: int) -> None:
    with pytest.raises(RecipeError, match=f"pieces of {room} tokens that share {overlap}"):
        list(cuts(100, room, overlap=overlap))


@pytest.mark.parametrize("kind", KINDS)
def test_texts_that_fit_are_untouched(
    pairs: dict[str, Pair], sentences: list[str], kind: str
) -> None:
    ours = pairs[kind][1]
    short = [text for text in sentences[:200] if len(text) < 40]
    chunks = ours.using(CHUNKING).chunks(short)
    for piece, tokens in zip(chunks.encodings, ours.encode(short), strict=True):
        np.testing.assert_array_equal(piece, tokens, strict=True)
    assert chunks.owners.tolist() == list(range(len(short)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("prompt", ["", "query: ", "ask:"])
def test_pieces_of_documents(
    pairs: dict[str, Pair], sentences: list[str], kind: str, prompt: str
) -> None:
    reference, ours = pairs[kind]
    texts = [*documents(sentences), *HARD_TEXTS]
    chunks = ours.using(InputOptions(long="chunk", prompt=prompt)).chunks(texts)
    before, after = len(ours.before), len(ours.after)
    for row, text in enumerate(texts):
        pieces = [chunks.encodings[i].tolist() for i in np.flatnonzero(chunks.owners == row)]
        weights = chunks.weights[chunks.owners == row]
        whole = reference(prompt + text, return_offsets_mapping=True)
        content = whole["input_ids"][before : len(whole["input_ids"]) - after]
        if len(whole["input_ids"]) <= 40:
            assert pieces == [whole["input_ids"]]
            continue
        ends = [end for _, end in whole["offset_mapping"][before:]]
        lead = next(i for i, end in enumerate(ends) if end > len(prompt)) if prompt else 0
        head, tail = whole["input_ids"][: before + lead], whole["input_ids"][-after:]
        words = whole.word_ids()[before + lead : len(whole["input_ids"]) - after]
        expected = plain_cuts(len(content) - lead, 40 - len(head) - after, words, 0)
        body = content[lead:]
        assert pieces == [head + body[start:stop] + tail for start, stop in expected]
        assert weights.tolist() == [stop - start for start, stop in expected]
        assert len(pieces) > 1 and max(map(len, pieces)) <= 40


def test_pieces_end_with_words(pairs: dict[str, Pair], sentences: list[str]) -> None:
    reference, ours = pairs["minilm"]
    (text,) = [" ".join(sentences[:40])]
    pieces = ours.using(CHUNKING).chunks([text]).encodings
    starts = [reference.convert_ids_to_tokens(int(piece[1])) for piece in pieces]
    assert len(starts) > 10 and not any(token.startswith("##") for token in starts)


def test_overlap(pairs: dict[str, Pair], sentences: list[str]) -> None:
    ours = pairs["minilm"][1].using(CHUNKING)
    text = " ".join(sentences[:40])
    chunks = ours.chunks([text], overlap=10)
    bodies = [piece[1:-1].tolist() for piece in chunks.encodings]
    shared = [
        max(n for n in range(11) if n == 0 or body[:n] == previous[-n:])
        for previous, body in zip(bodies, bodies[1:], strict=False)
    ]
    assert min(shared) >= 5 and max(shared) == 10
    with pytest.raises(RecipeError, match="that share 30"):
        ours.chunks([text], overlap=30)


def test_refused_texts_have_no_pieces(pairs: dict[str, Pair], sentences: list[str]) -> None:
    ours = pairs["minilm"][1].using(CHUNKING)
    told: list[int] = []
    mixed: list[Any] = ["first", None, " ".join(sentences[:9]), "half \ud800", "last"]
    chunks = ours.chunks(mixed, 10, lambda index, error: told.append(index))
    expected = ours.chunks([mixed[0], mixed[2], mixed[4]])
    assert told == [11, 13]
    assert chunks.owners.tolist() == expected.owners.tolist()
    for piece, tokens in zip(chunks.encodings, expected.encodings, strict=True):
        np.testing.assert_array_equal(piece, tokens)
    with pytest.raises(ItemError, match="text 1 is None"):
        ours.chunks(mixed)


def test_encode_gives_one_input_for_each_text(pairs: dict[str, Pair]) -> None:
    with pytest.raises(RecipeError, match="several inputs of one text"):
        pairs["minilm"][1].using(CHUNKING).encode(["a"])


def test_no_texts(pairs: dict[str, Pair]) -> None:
    chunks = pairs["minilm"][1].using(CHUNKING).chunks([])
    assert chunks.encodings == [] and len(chunks.owners) == len(chunks.weights) == 0
    assert pool(np.empty((0, 3), np.float32), chunks.owners, chunks.weights, 0, True).shape == (
        0,
        3,
    )


def test_a_megabyte(pairs: dict[str, Pair], sentences: list[str]) -> None:
    ours: TextPreprocessor = pairs["minilm"][1].using(CHUNKING)
    text = " ".join(sentences * 5)
    assert len(text) > 900_000
    chunks = ours.chunks([text])
    body = np.concatenate([piece[1:-1] for piece in chunks.encodings])
    assert body.tolist() == ours.tokenizer.encode(text, add_special_tokens=False).ids
    assert chunks.weights.sum() == len(body)


FLOATS = st.integers(-100, 100).map(lambda hundredths: hundredths / 100)


@given(data=st.data(), counts=st.lists(st.integers(0, 5), max_size=8), normalize=st.booleans())
@settings(max_examples=200, deadline=None)
def test_pool(data: st.DataObject, counts: list[int], normalize: bool) -> None:
    pieces = sum(counts)
    vectors = data.draw(arrays(np.float32, (pieces, 3), elements=FLOATS))
    weights = data.draw(arrays(np.float64, (pieces,), elements=st.integers(1, 500)))
    owners = np.repeat(np.arange(len(counts)), counts)
    pooled = pool(vectors, owners, weights, len(counts), normalize)
    assert pooled.dtype == np.float32 and pooled.shape == (len(counts), 3)
    for row, count in enumerate(counts):
        own, share = vectors[owners == row], weights[owners == row]
        if count == 0:
            assert np.isnan(pooled[row]).all()
        elif count == 1:
            np.testing.assert_array_equal(pooled[row], own[0])
        else:
            mean = np.average(own.astype(np.float64), axis=0, weights=share)
            if normalize:  # what sums to nothing has no direction, and stays nearly nothing
                mean /= max(np.linalg.norm(mean), 1e-9)
            np.testing.assert_allclose(pooled[row], mean, rtol=1e-5, atol=1e-4)


def test_a_short_document_split_by_hand() -> None:
    content = np.arange(10, 17)
    pieces, sizes = split(content, np.array([1, 5]), np.array([2]), 6, [0, 0, 1, 2, 2, 3, 4])
    assert [piece.tolist() for piece in pieces] == [
        [1, 5, 10, 11, 12, 2],
        [1, 5, 13, 14, 15, 2],
        [1, 5, 16, 2],
    ]
    assert sizes == [3, 3, 1]
    assert [piece.tolist() for piece in split(EMPTY, EMPTY, np.array([2]), 6)[0]] == [[2]]
