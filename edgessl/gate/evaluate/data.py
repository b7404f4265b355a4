"""What is evaluated: items, and what is known about them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgessl.errors import RecipeError

PLAIN, PAIRS, LABELLED, RETRIEVAL = "plain", "pairs", "labelled", "retrieval"
QUERY, DOCUMENT = "query", "document"
_UNITS = {PLAIN: "items", PAIRS: "pairs", LABELLED: "items", RETRIEVAL: "queries"}


@dataclass(frozen=True)
class Data:
    """Items in order, and what their kind of data knows about them.

    ``ids``: of each item, as ``edgessl embed`` would name it.
    ``scores``: of pairs, ``(pairs,)``; pair *i* is the items ``2 i`` and ``2 i + 1``.
    ``labels``: ``(items,)`` of str; ``held_out``: which of them are for testing, None: not said.
    ``queries``: of retrieval, the first so many items, the others are the documents; ``qrels``:
    id of a query -> id of a document -> relevance.
    ``unreadable``: of each item that was there and could not be read, why. ``notes``: for a reader.
    """

    name: str
    kind: str
    items: list[Any]
    ids: list[Any]
    scores: npt.NDArray[np.float64] | None = None
    labels: npt.NDArray[Any] | None = None
    held_out: npt.NDArray[np.bool_] | None = None
    queries: int = 0
    qrels: dict[str, dict[str, int]] = field(default_factory=dict)
    unreadable: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """How many units there are: pairs, queries, else items."""
        return {PAIRS: len(self.items) // 2, RETRIEVAL: self.queries}.get(
            self.kind, len(self.items)
        )

    @property
    def unit(self) -> str:
        return _UNITS[self.kind]

    @property
    def roles(self) -> list[tuple[str, range]]:
        """Which items are embedded alike: a model may have prompts of its own for each role."""
        if self.kind != RETRIEVAL:
            return [("", range(len(self.items)))]
        return [
            (QUERY, range(self.queries)),
            (DOCUMENT, range(self.queries, len(self.items))),
        ]

    def drawn(self, count: int | None, seed: int) -> Data:
        """*count* pairs, queries or items of these, drawn at random and left in order."""
        if count is None or count >= self.size:
            return self
        chosen = np.sort(np.random.default_rng(seed).choice(self.size, count, replace=False))
        kept = np.zeros(len(self.items), bool)
        if self.kind == PAIRS:
            kept[2 * chosen] = kept[2 * chosen + 1] = True
        else:
            kept[chosen] = True
            kept[self.size :] = True  # the documents
        note = f"{count:,} of {self.size:,} {self.unit} drawn, seed {seed}"
        return replace(self.where(kept), notes=(*self.notes, note))

    def where(self, kept: npt.NDArray[np.bool_]) -> Data:
        """Those items alone; ``kept`` has both or neither of a pair."""
        rows = np.flatnonzero(kept)
        return replace(
            self,
            items=[self.items[row] for row in rows],
            ids=[self.ids[row] for row in rows],
            scores=None if self.scores is None else self.scores[kept[::2]],
            labels=None if self.labels is None else self.labels[rows],
            held_out=None if self.held_out is None else self.held_out[rows],
            queries=int(kept[: self.queries].sum()),
        )

    def usable(self, refused: Iterable[int]) -> npt.NDArray[np.bool_]:
        """Which items are left without the *refused* ones; of a pair both go."""
        kept = np.ones(len(self.items), bool)
        kept[list(refused)] = False
        if self.kind == PAIRS:
            kept = np.repeat(kept[::2] & kept[1::2], 2)
        return kept

    def sha256(self) -> str:
        """Of the items and all that is known about them, wherever and however they are stored."""
        digest = hashlib.sha256()
        for item in self.items:
            _add(digest, _content(item))
        known = (self.scores, self.labels, self.held_out, sorted(self.qrels.items()), self.queries)
        for part in known:
            _add(digest, repr(part.tolist() if isinstance(part, np.ndarray) else part).encode())
        return digest.hexdigest()


def vary(values: npt.NDArray[Any], what: str, name: str) -> None:
    """Raise a ``RecipeError`` where all of *values* are the same."""
    if len(values) and (values == values[0]).all():
        raise RecipeError(
            f"data {name!r}: every {what} is {values[0].item()!r}: nothing to tell apart."
        )


def _content(item: Any) -> bytes:
    if isinstance(item, str):
        return item.encode()
    if isinstance(item, Path):
        try:
            if item.is_dir():  # the frames of a video
                return b"".join(_content(frame) for frame in sorted(item.iterdir()))
            return item.read_bytes()
        except OSError:  # the session will refuse it
            return b""
    if isinstance(item, bytes):
        return item
    array = np.asarray(item)
    return str((array.dtype, array.shape)).encode() + np.ascontiguousarray(array).tobytes()


def _add(digest: Any, content: bytes) -> None:
    digest.update(len(content).to_bytes(8, "little"))
    digest.update(content)
