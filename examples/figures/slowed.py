"""The bundle of ``EDGESSL_SLOWED_BUNDLE``, made slower by what a regression might cost: subjects
for ``edgessl bench`` and ``edgessl gate``."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import edgessl


def slower_5() -> Callable[[Sequence[Any]], object]:
    return _slowed(0.05)


def slower_10() -> Callable[[Sequence[Any]], object]:
    return _slowed(0.10)


def _slowed(share: float) -> Callable[[Sequence[Any]], object]:
    """Every call is followed by *share* of its own time in a busy loop."""
    session = edgessl.load(os.environ["EDGESSL_SLOWED_BUNDLE"])

    def embed(items: Sequence[Any]) -> object:
        began = time.perf_counter_ns()
        vectors = session.embed(items)
        ends = began + (time.perf_counter_ns() - began) * (1 + share)
        while time.perf_counter_ns() < ends:
            pass
        return vectors

    return embed
