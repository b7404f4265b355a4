"""Items without labels: what tells compression which parts of an encoder matter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgessl.encoder import Encoder
from edgessl.errors import RecipeError


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
