"""Long documents: cut into pieces that fit, and the pieces' vectors made one again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgessl.errors import RecipeError

TokenIds = npt.NDArray[np.int64]
Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Chunks:
    """Texts as pieces, in order.

    ``encodings``: the ids of each piece, special tokens and prompt included. ``owners``: int64,
    ascending: the text that each piece is of. ``weights``: float64: how many tokens of the text
    itself it has, and 1 where there are none.
    """

    encodings: list[TokenIds]
    owners: TokenIds
    weights: npt.NDArray[np.float64]


def cuts(
    length: int, room: int, words: Sequence[int | None] | None = None, overlap: int = 0
) -> Iterator[tuple[int, int]]:
    """Where each piece of so many tokens starts and stops.

    Args:
        room: tokens that a piece may have.
        words: the word that each token is of, as ``tokenizers`` numbers them: no word is cut
            that fits into half a piece. None: every piece but the last is full.
        overlap: tokens that a piece has in common with its predecessor, at most; exactly so many
            without *words*.

    Raises:
        RecipeError: *room* below 1, or *overlap* not within 0 and half of it.
    """
    if room < 1 or not 0 <= overlap <= room // 2:
        raise RecipeError(
            f"pieces of {room} tokens that share {overlap}: the room must be at least 1, the "
            "overlap between 0 and half of it."
        )
    starts = _word_starts(length, words)
    start = 0
    while start + room < length:
        stop = start + room
        before = int(starts[np.searchsorted(starts, stop, "right") - 1])
        if before > start + room // 2:
            stop = before
        yield start, stop
        start = min(int(starts[np.searchsorted(starts, stop - overlap)]), stop)
    yield start, length


def _word_starts(length: int, words: Sequence[int | None] | None) -> TokenIds:
    """Places at which a text may be cut, its beginning and its end among them, ascending."""
    if words is None:
        return np.arange(length + 1)
    numbers = np.asarray([-1 if word is None else word for word in words], dtype=np.int64)
    inner = np.flatnonzero(np.diff(numbers)) + 1
    return np.concatenate([[0], inner, [length]]).astype(np.int64)


def split(
    content: TokenIds,
    before: TokenIds,
    after: TokenIds,
    max_length: int,
    words: Sequence[int | None] | None = None,
    overlap: int = 0,
) -> tuple[list[TokenIds], list[int]]:
    """Pieces of at most *max_length* ids, and the tokens of *content* in each.

    Args:
        content: the ids of a text, without special tokens and prompt.
        before, after: ids that go around every piece: special tokens, a prompt.
        words, overlap: as ``cuts`` takes them.
    """
    room = max_length - len(before) - len(after)
    places = list(cuts(len(content), room, words, overlap))
    pieces = [np.concatenate([before, content[start:stop], after]) for start, stop in places]
    return pieces, [stop - start for start, stop in places]


def pool(
    vectors: Vectors,
    owners: TokenIds,
    weights: npt.NDArray[np.float64],
    texts: int,
    normalize: bool,
) -> Vectors:
    """One vector for each text: the mean of its pieces' vectors by weight, ``(texts, d)`` float32.

    The vector of a text in one piece is taken over bit for bit; a text without pieces has NaN.

    Args:
        vectors: ``(pieces, d)``, in the order of *owners*, which ascend.
        texts: how many there are.
        normalize: give means the length 1, as the encoder's own vectors have it.
    """
    pooled = np.full((texts, vectors.shape[1]), np.nan, np.float32)
    pieces = np.bincount(owners, minlength=texts)
    firsts = np.cumsum(pieces) - pieces
    whole = pieces == 1
    pooled[whole] = vectors[firsts[whole]]
    for text in np.flatnonzero(pieces > 1):
        own = slice(firsts[text], firsts[text] + pieces[text])
        share = weights[own] / weights[own].sum()
        mean = share @ vectors[own].astype(np.float64)
        if normalize:
            mean /= max(float(np.linalg.norm(mean)), 1e-12)
        pooled[text] = mean
    return pooled
