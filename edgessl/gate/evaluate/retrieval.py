"""Retrieval: queries look among the documents, exactly; trec_eval judges, as for BEIR."""

from __future__ import annotations

import numpy as np

from edgessl.errors import require
from edgessl.gate.evaluate import bootstrap, spaces
from edgessl.gate.evaluate.bootstrap import Measured
from edgessl.gate.evaluate.data import Data
from edgessl.gate.evaluate.spaces import Space


def ndcg(data: Data, own: Space, k: int, seed: int) -> Measured:
    """nDCG at *k* (Järvelin and Kekäläinen, 2002), gains as judged: trec_eval's ``ndcg_cut``."""
    return _judged(data, own, k, "ndcg_cut")


def recall(data: Data, own: Space, k: int, seed: int) -> Measured:
    """Share of a query's relevant documents among the first *k*: trec_eval's ``recall``."""
    return _judged(data, own, k, "recall")


def _judged(data: Data, own: Space, k: int, measure: str) -> Measured:
    library = require("pytrec_eval", "gate", "judging retrieval")
    queries, documents = own.unit[: data.queries], own.unit[data.queries :]
    names = data.ids[data.queries :]
    # one more: a query that is a document itself would find that first
    places, near = spaces.nearest(queries, documents, min(k + 1, len(documents)))
    run = {}
    for query, found, scores in zip(data.ids, places, near, strict=False):
        judged = data.qrels[query]
        kept = [
            (names[place], float(score))
            for place, score in zip(found, scores, strict=True)
            if names[place] != query or query in judged
        ]
        run[query] = dict(kept[:k])
    evaluator = library.RelevanceEvaluator(data.qrels, {f"{measure}.{k}"})
    by_query = evaluator.evaluate(run)  # without queries that found nothing
    values = np.array(
        [by_query.get(query, {}).get(f"{measure}_{k}", 0) for query in data.ids[: data.queries]]
    )
    facts = {"unit": "queries", "k": k, "documents": len(documents)}
    return Measured(bootstrap.mean(values), (len(values),), discrete=True, facts=facts)
