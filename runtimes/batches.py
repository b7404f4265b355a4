"""How a list of items becomes batches of the graph's inputs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from edgessl.backend import Arrays

BATCH_ITEMS = 32
BATCH_TOKENS = 4096  # padding included: long texts go in smaller batches
BATCH_SAMPLES = 480_000  # of audio, padding included: 30 seconds at 16 kHz
BATCH_CLIPS = 4
READ_AHEAD = 256  # recordings that are in memory at once


class Feeder(Protocol):
    """A bundle's preprocessor as a session uses it."""

    def __call__(self, items: Sequence[Any]) -> Arrays:
        """One batch of the graph's inputs."""

    def batches(self, items: Sequence[Any]) -> Iterator[tuple[list[int], Arrays]]:
        """(rows of *items*, the inputs made from them) until every row was there once."""


@dataclass(frozen=True)
class ByLength:
    """Texts and audio: items of similar length go together and are padded.

    ``limit``: tokens or samples in a batch. ``ahead``: items that are encoded before they are
    dealt; None: all.
    """

    preprocessor: Any  # encode, lengths and batch, as TextPreprocessor and AudioPreprocessor
    limit: int
    ahead: int | None = None

    def __call__(self, items: Sequence[Any]) -> Arrays:
        inputs: Arrays = self.preprocessor(items)
        return inputs

    def batches(self, items: Sequence[Any]) -> Iterator[tuple[list[int], Arrays]]:
        for start, encodings in self._encoded(items):
            lengths = self.preprocessor.lengths(encodings).tolist()
            for rows in token_batches(lengths, tokens=self.limit):
                inputs = self.preprocessor.batch([encodings[row] for row in rows])
                yield [start + row for row in rows], inputs

    def _encoded(self, items: Sequence[Any]) -> Iterator[tuple[int, list[Any]]]:
        if self.ahead is None:
            yield 0, self.preprocessor.encode(list(items))
            return
        for start in range(0, len(items), self.ahead):
            yield start, self.preprocessor.encode(items[start : start + self.ahead], first=start)


@dataclass(frozen=True)
class InOrder:
    """Images and videos: all of one size, ``items`` of them in a batch, as input ``name``."""

    preprocessor: Any  # ImagePreprocessor or VideoPreprocessor
    name: str
    items: int = BATCH_ITEMS

    def __call__(self, items: Sequence[Any]) -> Arrays:
        return {self.name: self.preprocessor(items)}

    def batches(self, items: Sequence[Any]) -> Iterator[tuple[list[int], Arrays]]:
        for start in range(0, len(items), self.items):
            chosen = items[start : start + self.items]
            rows = list(range(start, start + len(chosen)))
            yield rows, {self.name: self.preprocessor(chosen, first=start)}


def token_batches(
    lengths: Sequence[int], items: int = BATCH_ITEMS, tokens: int = BATCH_TOKENS
) -> list[list[int]]:
    """Deal rows into batches of similar length, the longest first.

    No batch has more than *items* rows or, once padded, more than *tokens* tokens (a single row
    may). Every row is in exactly one batch.
    """
    batches: list[list[int]] = []
    widest = 0
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        full = not batches or len(batches[-1]) == items
        if full or (len(batches[-1]) + 1) * widest > tokens:
            batches.append([])
            widest = max(lengths[row], 1)
        batches[-1].append(row)
    return batches
