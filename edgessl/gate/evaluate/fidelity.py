"""Fidelity, with no labels: a subject's vectors against a reference's of the same items."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgessl.errors import RecipeError, require
from edgessl.gate.evaluate import bootstrap, spaces
from edgessl.gate.evaluate.bootstrap import Measured
from edgessl.gate.evaluate.data import RETRIEVAL, Data
from edgessl.gate.evaluate.spaces import Places, Rows, Space

QUERIES = 1000  # that look for neighbours; of more, so many evenly spaced
_RANKED = 1000  # items whose similarities to a query are ranked
FITS, ALMOST = 0.95, 0.80  # of index.recall: see docs/eval.md


def cosine_mean(data: Data, own: Space, reference: Space, k: int) -> Measured:
    found = spaces.cosines(own, reference)
    return Measured(bootstrap.mean(found), (len(found),), facts={"unit": "items"})


def cosine_p1(data: Data, own: Space, reference: Space, k: int) -> Measured:
    found = spaces.cosines(own, reference)
    return Measured(bootstrap.quantile(found, 0.01), (len(found),), facts={"unit": "items"})


def cosine_min(data: Data, own: Space, reference: Space, k: int) -> Measured:
    """Of these very items: a resample knows of no worse one."""
    found = spaces.cosines(own, reference)
    worst = int(found.argmin())
    facts = {"unit": "items", "id": str(data.ids[worst])}
    return Measured(lambda counts: np.full(len(counts), found[worst]), (len(found),), facts=facts)


def neighbours(data: Data, own: Space, reference: Space, k: int) -> Measured:
    """Share of the k nearest neighbours that stay, each side looking in its own space."""
    search = _Search.of(data, k, f"neighbours@{k}")
    found, _ = search.nearest(own, own)
    return search.measured(found, reference)


def index_recall(data: Data, own: Space, reference: Space, k: int) -> Measured:
    """The same with the subject's queries among the reference's vectors: an index of old."""
    search = _Search.of(data, k, f"index.recall@{k}")
    found, _ = search.nearest(own, reference)
    measured = search.measured(found, reference)
    measured.facts["verdict"] = verdict(measured.value, k)
    return measured


def similarities(data: Data, own: Space, reference: Space, k: int) -> Measured:
    """Spearman's correlation of each query's similarities to the items, averaged over queries."""
    stats = require("scipy.stats", "gate", "ranking similarities")
    search = _Search.of(data, 1, "similarities.spearman")
    among = search.among[_spaced(len(search.among), _RANKED)]
    others = search.queries[:, None] != among[None, :]
    ranked = []
    for space in (own, reference):
        near = np.round(space.unit[search.queries] @ space.unit[among].T, 5)
        # a query itself comes first in both, and is left out
        ranks = stats.rankdata(np.where(others, near, -2), axis=1)
        mean = ranks.mean(axis=1, keepdims=True, where=others)
        ranked.append(np.where(others, ranks - mean, 0))
    a, b = ranked
    lengths = np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))
    found = (a * b).sum(axis=1) / np.where(lengths > 0, lengths, 1)
    found = np.where((a == b).all(axis=1), 1.0, found)
    return Measured(
        bootstrap.mean(found), (len(found),), facts={"unit": "queries", "among": len(among)}
    )


def verdict(recall: float, k: int) -> str:
    """Can these vectors live in the old index? In a line."""
    changed = f"{(1 - recall) * k:.1f} of the {k} nearest differ"
    if recall >= FITS:
        return f"yes, they can live in the old index: {changed}"
    if recall >= ALMOST:
        return f"only for a while in the old index: {changed}; embed it anew"
    return f"no, they cannot live in the old index: {changed}; embed it anew"


@dataclass(frozen=True)
class _Search:
    """Places of the items that look for neighbours, and of those among which they look."""

    queries: Places
    among: Places
    k: int
    own: Places | None  # of each query among them

    @staticmethod
    def of(data: Data, k: int, what: str) -> _Search:
        """Queries among the documents; where there are none, items among all the others.

        Raises:
            RecipeError: so few items that any neighbours would be half of them.
        """
        places = np.arange(len(data.items))
        among = places[data.queries :]
        if len(among) <= 2 * k:
            raise RecipeError(
                f"{what} needs more than {2 * k} items to look among, and {data.name} has "
                f"{len(among)}."
            )
        if data.kind == RETRIEVAL:
            chosen = _spaced(data.queries, QUERIES)
            return _Search(chosen, among, k, None)
        chosen = _spaced(len(places), QUERIES)
        return _Search(chosen, among, k, chosen)

    def nearest(self, looking: Space, index: Space) -> tuple[Places, Rows]:
        queries, among = looking.unit[self.queries], index.unit[self.among]
        return spaces.nearest(queries, among, self.k, self.own)

    def measured(self, found: Places, reference: Space) -> Measured:
        unit = reference.unit
        share = spaces.shared(found, unit[self.queries], unit[self.among], self.own)
        facts = {"unit": "queries", "k": self.k, "among": len(self.among)}
        return Measured(bootstrap.mean(share), (len(share),), facts=facts)


def _spaced(size: int, most: int) -> Places:
    return np.linspace(0, size - 1, min(size, most)).round().astype(np.int64)
