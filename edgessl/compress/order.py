"""In which order items are learnt from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler

_WINDOW = 50  # batches, among which items of a length find each other


class ByLength(Sampler[int]):
    """All items, those of a batch of similar length, in an order that seed and epoch decide: a run
    that goes on finds the same one.

    Args:
        lengths: of each item, in any unit.
    """

    def __init__(self, lengths: Sequence[int], batch: int, seed: int) -> None:
        self.lengths = np.asarray(lengths)
        self.batch = batch
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        draw = np.random.default_rng((self.seed, self.epoch))
        order = draw.permutation(len(self))
        size = self.batch * _WINDOW
        batches = []
        for start in range(0, len(order), size):
            window = order[start : start + size]
            window = window[np.argsort(self.lengths[window], kind="stable")]
            batches += [window[n : n + self.batch] for n in range(0, len(window), self.batch)]
        *others, smallest = sorted(batches, key=len, reverse=True)
        for n in draw.permutation(len(others)):
            yield from others[n].tolist()
        yield from smallest.tolist()  # last: after it batches would begin elsewhere
