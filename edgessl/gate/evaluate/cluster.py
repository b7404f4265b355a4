"""Clustering: do clusters of vectors agree with the labels?"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt

from edgessl.errors import RecipeError, require
from edgessl.gate.evaluate.bootstrap import Floats, Measured
from edgessl.gate.evaluate.data import Data, vary
from edgessl.gate.evaluate.spaces import Space

_STARTS = 10  # k-means from other random centres each time: their mean says more than one


def vmeasure(data: Data, own: Space, k: int, seed: int) -> Measured:
    """V-measure (Rosenberg and Hirschberg, 2007) of mini-batch k-means with as many clusters as
    there are labels (MTEB), averaged over several starts.

    Items are resampled as they were clustered, and so are the starts. Of fewer different items a
    V-measure is higher, so what is resampled is moved back to the figure.
    """
    clustering = require("sklearn.cluster", "gate", "clustering")
    labels = np.asarray(data.labels)
    vary(labels, "label", data.name)
    classes = len(set(labels.tolist()))
    if len(labels) <= classes:
        raise RecipeError(f"data {data.name!r}: every item has a label of its own.")
    rows = own.rows.astype(np.float64)
    threads = require("threadpoolctl", "gate", "clustering")
    # one thread: many are slower on what is so small, and other work may hold the other cores
    with threads.threadpool_limits(1), warnings.catch_warnings():
        few = require("sklearn.exceptions", "gate", "clustering").ConvergenceWarning
        warnings.simplefilter("ignore", few)  # fewer different vectors than clusters
        assigned = [
            clustering.MiniBatchKMeans(
                classes, batch_size=1024, n_init=1, random_state=seed + start
            ).fit_predict(rows)
            for start in range(_STARTS)
        ]
    facts = {"unit": "items", "clusters": classes, "starts": _STARTS}
    sizes = (len(labels), _STARTS)
    return Measured(statistic(labels, assigned), sizes, biased=True, facts=facts)


def statistic(labels: npt.NDArray[Any], assigned: list[npt.NDArray[Any]]) -> Any:
    """The mean V-measure over starts, of counts of items and, after them, of starts."""
    sparse = require("scipy.sparse", "gate", "clustering")
    _, classes = np.unique(labels, return_inverse=True)
    size = len(labels)

    def table(groups: npt.NDArray[Any]) -> Any:
        """Item by group, 1 where it belongs."""
        _, places = np.unique(groups, return_inverse=True)
        return sparse.csr_array((np.ones(size), (np.arange(size), places)))

    # h and c are I/H(labels) and I/H(clusters); their harmonic mean is 2 I / (their sum)
    by_class = table(classes)
    by_start = [(table(own), table(classes * size + own)) for own in assigned]

    def counted(counts: Floats) -> Floats:
        items, starts = counts[:, :size], counts[:, size:]
        own = _entropy(items @ by_class)
        found = []
        for clusters, cells in by_start:
            other = _entropy(items @ clusters)
            both = own + other
            mutual = np.maximum(both - _entropy(items @ cells), 0)
            found.append(np.where(both > 0, 2 * mutual / np.where(both > 0, both, 1), 1.0))
        average: Floats = (np.stack(found, axis=1) * starts).sum(axis=1) / starts.sum(axis=1)
        return average

    return counted


def _entropy(table: Floats) -> Floats:
    """Of each row of counts, in nats."""
    share = table / table.sum(axis=1, keepdims=True)
    found: Floats = -(share * np.log(np.where(share > 0, share, 1))).sum(axis=1)
    return found
