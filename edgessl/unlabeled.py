"""Items, mostly without labels: what tells compression which parts of an encoder matter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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


def labelled(
    data: Sequence[str],
    column: str | None,
    label_column: str | None,
    encoder: Encoder,
    names: Mapping[int, str],
    count: int,
    seed: int,
) -> list[tuple[Any, int]]:
    """*count* items of *data* at most, drawn at random (files are often sorted by class), each with
    its class: labels are found as ``edgessl eval`` finds them.

    Args:
        label_column: of a table.
        names: class -> name, as the classifier has them.

    Raises:
        RecipeError: no labels, or one that *names* does not have, neither as a name nor as a class.
    """
    from edgessl.gate.evaluate import data as kinds
    from edgessl.gate.evaluate import reading
    from edgessl.gate.evaluate.columns import Columns

    found: list[tuple[Any, str]] = []
    for where in data:
        asked = Columns(item=column, label=label_column)
        part = reading.read(where, encoder.spec.task, asked)
        if part.kind != kinds.LABELLED or part.labels is None:
            raise RecipeError(
                f"data {where!r} has no labels; give a table of items and labels, or a folder of "
                "images with a folder a class. --label-column names it."
            )
        if not len(part.labels):
            raise RecipeError(f"data {where!r}: none of its items has a label.")
        found += zip(part.items, part.labels.tolist(), strict=True)
    order = np.random.default_rng(seed).permutation(len(found))[:count]
    classes = _classes({label for _, label in found}, names, data[0])
    return [(found[n][0], classes[found[n][1]]) for n in order]


def _classes(labels: set[str], names: Mapping[int, str], where: str) -> dict[str, int]:
    """Label -> class: all of them by name, or all by number."""
    by_name = {name.casefold(): number for number, name in names.items()}
    by_number = {str(number): number for number in names}
    for known in (by_name, by_number):
        if all(label.casefold() in known for label in labels):
            return {label: known[label.casefold()] for label in labels}
    unknown = {label for label in labels if label.casefold() not in {*by_name, *by_number}}
    strange = min(unknown or {label for label in labels if label.casefold() not in by_name})
    raise RecipeError(
        f"data {where!r}: the label {strange!r} is none of the classifier's: "
        f"{', '.join(list(names.values())[:10])}{', ...' * (len(names) > 10)}, or their numbers."
    )


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
