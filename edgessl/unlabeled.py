"""Items without labels: what tells compression which parts of an encoder matter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgessl.encoder import Encoder
from edgessl.errors import RecipeError

FEWEST = 32  # items to fit to
_HELD_OUT = 256  # items, at most; and a fifth of few


def items(data: Sequence[str], column: str | None, encoder: Encoder, count: int) -> list[Any]:
    """The first *count* items of *data*, files of texts or images as docs/embed.md has them.

    Raises:
        RecipeError: there is nothing in them.
    """
    from edgessl.embed import inputs

    source = inputs.Source(tuple(data), encoder.spec.task, column)
    for block in inputs.blocks(source, count):
        if block.items:
            return list(block.items)
    raise RecipeError(f"data {data[0]!r}: nothing in it that can be used.")


def split(items: Sequence[Any], seed: int, where: str) -> tuple[list[Any], list[Any]]:
    """Items to fit to, and items that say what was lost.

    Raises:
        RecipeError: too few; *where* says of what.
    """
    if len(items) < FEWEST:
        raise RecipeError(
            f"data {where!r}: {len(items)} items are too few to fit to; give {FEWEST} at least, "
            "and better 2,000."
        )
    order = np.random.default_rng(seed).permutation(len(items))
    count = min(_HELD_OUT, len(items) // 5)
    return [items[n] for n in order[count:]], [items[n] for n in order[:count]]
