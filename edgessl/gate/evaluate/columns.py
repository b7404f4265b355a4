"""Which columns of a table are items, labels, or pairs with scores."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from edgessl.errors import RecipeError, nearest
from edgessl.rows import tables
from edgessl.rows.base import TEXT
from edgessl.spec import Task

_LABELS = "label labels class category target sentiment intent label_text".split()
_SCORES = "score scores similarity similarity_score relatedness relatedness_score".split()
_IDS = ("id", "_id", "idx", "index", "number", "row")
_STEM = re.compile(r"[\W_]*[12ab]$", re.I)


@dataclass(frozen=True)
class Columns:
    """Columns of a table as the user names them; None: found by their names.

    ``item``: what is embedded; ``label``; ``pair`` and ``score``: two texts and how alike they
    are; ``id``: what names a row.
    """

    item: str | None = None
    label: str | None = None
    score: str | None = None
    pair: tuple[str, str] | None = None
    id: str | None = None

    @property
    def given(self) -> dict[str, str]:
        """Option -> what it names, of those that a user gave."""
        pair = ",".join(self.pair) if self.pair else None
        named = {
            "--column": self.item,
            "--label-column": self.label,
            "--score-column": self.score,
            "--pair": pair,
            "--id-column": self.id,
        }
        return {option: name for option, name in named.items() if name is not None}


def chosen(kinds: Mapping[str, str], task: Task, asked: Columns, path: Path) -> Columns:
    """*asked*, completed: ``pair`` and ``score``, or ``label``, or neither."""
    for option, named in asked.given.items():
        for name in asked.pair or () if option == "--pair" else (named,):
            if name not in kinds:
                raise RecipeError(
                    f"data {str(path)!r} has no column {name!r}, which {option} names."
                    f"{nearest(name, kinds)} It has: {', '.join(kinds)}."
                )
    texts = [name for name, kind in kinds.items() if kind == TEXT]
    numbers = [name for name, kind in kinds.items() if _numeric(kind)]
    scores = [name for name in _SCORES if name in numbers] or numbers
    if (asked.pair or asked.score) and (asked.item or asked.label):
        raise RecipeError(
            "--pair and --score-column are for pairs, --column and --label-column not."
        )
    if asked.pair or asked.score:
        pair = asked.pair or ((texts[0], texts[1]) if len(texts) == 2 else None)
        score = asked.score or (scores[0] if len(scores) == 1 else None)
        if pair is None or score is None:
            missing = "--pair A,B" if pair is None else "--score-column NAME"
            raise RecipeError(
                f"data {str(path)!r}: which columns are the texts of a pair and their score? "
                f"Give {missing}. It has: {', '.join(kinds)}."
            )
        return replace(asked, pair=pair, score=score)
    if task == "text" and not (asked.item or asked.label):
        likely = [name for name in texts if name not in (*_LABELS, asked.id)]
        scores = [name for name in scores if name.lower() not in _IDS and name != asked.id]
        alike = len({_STEM.sub("", name) for name in likely}) == 1  # sentence1, sentence2
        if len(likely) == 2 and len(scores) == 1 and (alike or scores[0] not in _LABELS):
            return replace(asked, pair=(likely[0], likely[1]), score=scores[0])
    label = asked.label or next((name for name in _LABELS if name in kinds), None)
    if label is None or asked.item:
        return replace(asked, label=label)
    others = {name: kind for name, kind in kinds.items() if name not in (label, asked.id)}
    (item,) = tables.choose(others, task, None, path, single=True)
    return replace(asked, item=item, label=label)


def _numeric(kind: str) -> bool:
    """Of ``Rows.columns``: ours for JSON and CSV, Arrow's names of types for the others."""
    return (
        kind == "numbers" or re.match(r"u?int\d|float|double|halffloat|decimal", kind) is not None
    )
