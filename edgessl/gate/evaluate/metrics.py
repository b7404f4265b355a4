"""The metrics, a row each, and which of them are for which data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgessl.errors import RecipeError, nearest
from edgessl.gate.evaluate.data import LABELLED, PAIRS, RETRIEVAL, Data

FIDELITY = "fidelity"


@dataclass(frozen=True)
class Metric:
    """``name`` without its ``@k``. ``group``: fidelity compares with a reference; the others judge
    vectors by themselves, each on data of one ``kind``.

    ``function``: where it is, ``module:name``. ``at_k``: it counts the first *k*.
    ``across``: it looks from one space into the other, which needs equally many dimensions.
    ``asked_for``: not measured unless it is named.
    """

    name: str
    group: str
    function: str
    kind: str = ""
    at_k: bool = False
    across: bool = False
    asked_for: bool = False


_ROWS = (
    Metric("cosine_mean", FIDELITY, "fidelity:cosine_mean", across=True),
    Metric("cosine_p1", FIDELITY, "fidelity:cosine_p1", across=True),
    Metric("cosine_min", FIDELITY, "fidelity:cosine_min", across=True),
    Metric("neighbours", FIDELITY, "fidelity:neighbours", at_k=True),
    Metric("index.recall", FIDELITY, "fidelity:index_recall", at_k=True, across=True),
    Metric("similarities.spearman", FIDELITY, "fidelity:similarities"),
    Metric("sts.spearman", "sts", "sts:spearman", PAIRS),
    Metric("sts.pearson", "sts", "sts:pearson", PAIRS),
    Metric("retrieval.ndcg", "retrieval", "retrieval:ndcg", RETRIEVAL, at_k=True),
    Metric("retrieval.recall", "retrieval", "retrieval:recall", RETRIEVAL, at_k=True),
    Metric("classify.probe", "classify", "classify:probe", LABELLED),
    Metric("classify.knn", "classify", "classify:knn", LABELLED, at_k=True),
    Metric("cluster.vmeasure", "cluster", "cluster:vmeasure", LABELLED, asked_for=True),
)
METRICS = {row.name: row for row in _ROWS}
_GROUPS = dict.fromkeys(row.group for row in _ROWS)
_NEEDS = {
    PAIRS: "pairs of texts with scores",
    RETRIEVAL: "a folder in BEIR's layout",
    LABELLED: "labelled items",
}


@dataclass(frozen=True)
class Asked:
    """A metric and its *k*. ``named``: the user wants it, and not only what can be had."""

    metric: Metric
    k: int
    named: bool

    @property
    def called(self) -> str:
        return f"{self.metric.name}@{self.k}" if self.metric.at_k else self.metric.name


def choose(names: Sequence[str], data: Data, k: int, compared: bool) -> list[Asked]:
    """The metrics that *names* name (``sts.spearman``, ``retrieval.recall@100``, or a group:
    ``classify``); of no names all that are for *data*, fidelity among them where something is
    *compared* with a reference.

    Raises:
        RecipeError: no such metric, or one that is not for these data.
    """
    if not names:
        rows = [row for row in _ROWS if _fits(row, data, compared) and not row.asked_for]
        if not rows:
            raise RecipeError(
                f"{data.name} has no labels, so there is nothing to evaluate but how near vectors "
                "are to others: give a second bundle, or --reference."
            )
        return [Asked(row, k, False) for row in rows]
    found = [asked for name in names for asked in _named(name, k)]
    for asked in found:
        if _fits(asked.metric, data, compared):
            continue
        if asked.metric.group == FIDELITY:
            raise RecipeError(
                f"{asked.called} compares with a reference: give a second bundle, or --reference."
            )
        raise RecipeError(
            f"{asked.called} needs {_NEEDS[asked.metric.kind]}; {data.name} was "
            f"{data.notes[0] if data.notes else 'read as items without labels'}."
        )
    return list({asked.called: asked for asked in found}.values())


def check(names: Sequence[str]) -> None:
    """Raise a ``RecipeError`` for a name that is no metric's, before anything is read."""
    for name in names:
        _named(name, 1)


def _fits(row: Metric, data: Data, compared: bool) -> bool:
    return compared if row.group == FIDELITY else row.kind == data.kind


def _named(name: str, k: int) -> list[Asked]:
    if name in _GROUPS:
        return [Asked(row, k, True) for row in _ROWS if row.group == name]
    stem, at, cut = name.partition("@")
    row = METRICS.get(stem)
    if row is None:
        known = [*METRICS, *_GROUPS]
        raise RecipeError(
            f"there is no metric {name!r}.{nearest(stem, known)} Metrics: {', '.join(METRICS)}; or "
            f"all of a kind: {', '.join(_GROUPS)}."
        )
    if at and not (row.at_k and cut.isdecimal() and int(cut) > 0):
        wanted = f"{stem}@10" if row.at_k else stem
        raise RecipeError(f"there is no metric {name!r}. Did you mean {wanted!r}?")
    return [Asked(row, int(cut) if at else k, True)]
