"""How a list of items becomes batches of the graph's inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from edgessl.backend import Arrays
from edgessl.errors import Refused
from edgessl.runtimes import patches
from edgessl.runtimes.chunks import Chunks, pool
from edgessl.runtimes.options import InputOptions
from edgessl.runtimes.patches import PatchChoice
from edgessl.spec import EncoderSpec

BATCH_ITEMS = 32
# Padding included: long texts go in smaller batches. Of 512 to 4096 the quickest on the CPUs that
# were measured; on accelerators nothing was.
BATCH_TOKENS = 1024
BATCH_TOKENS_ELSEWHERE = 4096
BATCH_SAMPLES = 480_000  # of audio, padding included: 30 seconds at 16 kHz
BATCH_CLIPS = 4
TEXTS_AHEAD = 4096  # that are sorted by length together
RECORDINGS_AHEAD = 256

Vectors = npt.NDArray[np.float32]
Items = Sequence[Any] | npt.NDArray[Any]  # a list, or one array of images or waveforms


class Feeder(Protocol):
    """A bundle's preprocessor as a session uses it: items are encoded, dealt, and batched.

    ``ahead``: items that are encoded together; so many are in memory, twice.
    """

    @property
    def ahead(self) -> int: ...

    def using(self, options: InputOptions) -> Feeder:
        """The same with other options."""

    def encode(self, items: Items, first: int = 0, refused: Refused | None = None) -> Any:
        """The rows that the graph will see, whatever form they have: one an item, or more.

        ``first``: the index of the first item. ``refused``: is told of items that cannot be used,
        which are left out; None: the error is raised.
        """

    def count(self, encoded: Any) -> int:
        """How many rows there are."""

    def deal(self, encoded: Any) -> list[list[int]]:
        """Which rows go together: every one is in exactly one batch."""

    def batch(self, encoded: Any, rows: Sequence[int]) -> Arrays:
        """The graph's inputs for some of the rows."""

    def join(self, encoded: Any, vectors: Vectors) -> Vectors:
        """The items' vectors from those of the rows."""


def one_batch(feeder: Feeder, items: Items) -> Arrays:
    """The graph's inputs for all of *items* together."""
    encoded = feeder.encode(items)
    return feeder.batch(encoded, range(feeder.count(encoded)))


@dataclass(frozen=True)
class ByLength:
    """Texts and audio: items of similar length go together and are padded.

    ``limit``: tokens or samples in a batch. ``normalize``: vectors have length 1.
    """

    preprocessor: Any  # encode, lengths and batch, as TextPreprocessor and AudioPreprocessor
    limit: int
    ahead: int
    normalize: bool = False

    def using(self, options: InputOptions) -> ByLength:
        if not hasattr(self.preprocessor, "using"):
            return self
        chosen = self.preprocessor.using(options)
        return replace(self, preprocessor=chosen, limit=options.batch_tokens or BATCH_TOKENS)

    def encode(self, items: Items, first: int = 0, refused: Refused | None = None) -> Any:
        if getattr(self.preprocessor, "long", "") == "chunk":
            return self.preprocessor.chunks(items, first, refused)
        return self.preprocessor.encode(items, first, refused)

    def count(self, encoded: Any) -> int:
        return len(_pieces(encoded))

    def deal(self, encoded: Any) -> list[list[int]]:
        lengths = self.preprocessor.lengths(_pieces(encoded)).tolist()
        return token_batches(lengths, tokens=self.limit)

    def batch(self, encoded: Any, rows: Sequence[int]) -> Arrays:
        pieces = _pieces(encoded)
        inputs: Arrays = self.preprocessor.batch([pieces[row] for row in rows])
        return inputs

    def join(self, encoded: Any, vectors: Vectors) -> Vectors:
        if not isinstance(encoded, Chunks):
            return vectors
        texts = int(encoded.owners.max(initial=-1)) + 1
        return pool(vectors, encoded.owners, encoded.weights, texts, self.normalize)


def _pieces(encoded: Any) -> Any:
    return encoded.encodings if isinstance(encoded, Chunks) else encoded


@dataclass(frozen=True)
class InOrder:
    """Images and videos: all of one size, ``ahead`` of them in a batch, as input ``name``.

    ``spec``: of an encoder that may take ``patch_indices`` besides, which ``choose`` makes.
    """

    preprocessor: Any  # ImagePreprocessor or VideoPreprocessor
    name: str
    ahead: int = BATCH_ITEMS
    spec: EncoderSpec | None = None
    choose: PatchChoice | None = None

    def using(self, options: InputOptions) -> InOrder:
        if self.spec is None:
            return self
        chosen = patches.choice(self.spec, options.keep_patches, options.patches, options.seed)
        return replace(self, choose=chosen)

    def encode(self, items: Items, first: int = 0, refused: Refused | None = None) -> Any:
        return self.preprocessor(items, first=first, refused=refused)

    def count(self, encoded: Any) -> int:
        return len(encoded)

    def deal(self, encoded: Any) -> list[list[int]]:
        return [list(range(len(encoded)))] if len(encoded) else []

    def batch(self, encoded: Any, rows: Sequence[int]) -> Arrays:
        chosen = encoded if len(rows) == len(encoded) else encoded[list(rows)]
        inputs = {self.name: chosen}
        return inputs if self.spec is None else patches.complete(self.spec, inputs, self.choose)

    def join(self, encoded: Any, vectors: Vectors) -> Vectors:
        return vectors


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
