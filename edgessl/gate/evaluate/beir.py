"""Retrieval data as BEIR lays them out (Thakur et al., NeurIPS 2021).

``corpus.jsonl`` (``_id``, ``title``, ``text``), ``queries.jsonl`` (``_id``, ``text``) and
``qrels/SPLIT.tsv`` (``query-id``, ``corpus-id``, ``score``).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from edgessl.errors import RecipeError
from edgessl.gate.evaluate.data import RETRIEVAL, Data
from edgessl.rows import readers
from edgessl.rows.base import TEXT, Bad
from edgessl.rows.encoding import clean_text

_CORPUS, _QUERIES, _QRELS = "corpus.jsonl", "queries.jsonl", "qrels"
_SPLITS = ("test", "dev", "validation", "train")


def is_there(path: Path) -> bool:
    """Whether *path* is such a folder, or means to be one."""
    return any((path / name).is_file() for name in (_CORPUS, _QUERIES))


def read(path: Path) -> Data:
    """Every document, and the queries that the qrels of the split judge: the test split, where
    there is one.

    Raises:
        RecipeError: a part is missing, damaged or empty, or nothing in it belongs together.
    """
    for name in (_CORPUS, _QUERIES, _QRELS):
        if not (path / name).exists():
            raise RecipeError(
                f"data {str(path)!r} has no {name}; BEIR's layout is {_CORPUS}, {_QUERIES} and "
                f"{_QRELS}/test.tsv."
            )
    split = _split(path / _QRELS)
    qrels = _judgements(split)
    documents, bad_documents = _texts(path / _CORPUS, titled=True)
    queries, bad_queries = _texts(path / _QUERIES, titled=False)
    asked = {name: text for name, text in queries.items() if name in qrels}
    if not documents or not asked:
        raise RecipeError(
            f"data {str(path)!r}: {len(documents):,} documents, and {len(asked):,} of "
            f"{len(queries):,} queries are judged in {split.name}: there is nothing to look for. "
            "Ids have to be the same in all three files."
        )
    notes = [
        f"read as BEIR's layout: {len(asked):,} queries of {split.name}, {len(documents):,} "
        "documents"
    ]
    lost = len(qrels) - len(asked)
    strange = {doc for rels in qrels.values() for doc in rels} - set(documents)
    blank = sum(not text for text in asked.values())
    for count, what in (
        (lost, f"queries that {split.name} judges are not in {_QUERIES}: left out"),
        (len(strange), f"documents that {split.name} judges are not in {_CORPUS}: never found"),
        (blank, "queries are empty"),
    ):
        if count:
            notes.append(f"{count:,} {what}")
    return Data(
        name=path.name,
        kind=RETRIEVAL,
        items=[*asked.values(), *documents.values()],
        ids=[*asked, *documents],
        queries=len(asked),
        qrels={name: qrels[name] for name in asked},
        unreadable=(*bad_documents, *bad_queries),
        notes=tuple(notes),
    )


def _split(folder: Path) -> Path:
    found = {file.stem: file for file in folder.glob("*.tsv")}
    known = [name for name in _SPLITS if name in found] or sorted(found)
    if not known:
        raise RecipeError(f"data {str(folder)!r} holds no .tsv of judged queries (test.tsv).")
    return found[known[0]]


def _texts(path: Path, titled: bool) -> tuple[dict[str, str], list[str]]:
    """Id -> text, with a document's title before it as BEIR encodes it; and what is wrong with
    those that have none."""
    rows = readers.json_records(path, lenient=True)
    found: dict[str, str] = {}
    bad: list[str] = []
    titles = rows.take(["title"]) if titled and rows.columns.get("title") == TEXT else None
    for _, values in rows.take(["_id", "text"]):
        title = _title(titles) if titles else ""
        text = values if isinstance(values, Bad) else clean_text(values[1])
        if isinstance(text, Bad) or isinstance(values, Bad):
            bad.append(f"{path.name}: {values if isinstance(values, Bad) else text}")
            continue
        name = str(values[0])
        if name in found:
            raise RecipeError(f"data {str(path)!r}: the id {name!r} is there twice.")
        found[name] = f"{title} {text}".strip()
    return found, bad


def _title(titles: Iterator[tuple[int, object]]) -> str:
    _, values = next(titles)
    title = clean_text(values[0]) if isinstance(values, list) else ""
    return title if isinstance(title, str) else ""


def _judgements(path: Path) -> dict[str, dict[str, int]]:
    table, _ = readers.delimited(path, lenient=True)
    names = list(table.columns)
    if len(names) != 3:
        raise RecipeError(
            f"data {str(path)!r} has {len(names)} columns; it should have three, with tabs between "
            "them: query-id, corpus-id, score."
        )
    found: dict[str, dict[str, int]] = {}
    for number, values in table.take(names):
        try:
            if isinstance(values, Bad):
                raise ValueError
            query, document, relevance = values
            found.setdefault(query, {})[document] = int(relevance)
        except ValueError:
            where = values if isinstance(values, Bad) else f"row {number}: {values}"
            raise RecipeError(
                f"data {str(path)!r}: {where} is not a query's id, a document's id and a whole "
                "number."
            ) from None
    return found
