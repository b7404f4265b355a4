"""Classification of vectors that stay as they are: a linear probe, and nearest neighbours."""

from __future__ import annotations

import warnings
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from edgessl.errors import RecipeError, require
from edgessl.gate.evaluate import bootstrap
from edgessl.gate.evaluate.bootstrap import Measured
from edgessl.gate.evaluate.data import Data, vary
from edgessl.gate.evaluate.spaces import Space
from edgessl.rows.base import MOST_UNUSABLE

_ITERATIONS = 1000


def probe(data: Data, own: Space, k: int, seed: int) -> Measured:
    """Accuracy of a logistic regression on the training vectors, each dimension standardised."""
    purpose = "a linear probe"
    linear = require("sklearn.linear_model", "gate", purpose)
    scaler = require("sklearn.preprocessing", "gate", purpose).StandardScaler()
    model = linear.LogisticRegression(max_iter=_ITERATIONS, random_state=seed)
    pipeline = require("sklearn.pipeline", "gate", purpose).make_pipeline(scaler, model)
    with warnings.catch_warnings():
        ended = require("sklearn.exceptions", "gate", purpose).ConvergenceWarning
        warnings.simplefilter("ignore", ended)  # said below, in a fact
        measured = _accuracy(pipeline, data, own)
    if int(np.max(model.n_iter_)) >= _ITERATIONS:
        measured.facts["converged"] = False
    return measured


def knn(data: Data, own: Space, k: int, seed: int) -> Measured:
    """Accuracy of the majority among the *k* nearest training vectors by cosine."""
    neighbours = require("sklearn.neighbors", "gate", "classifying by neighbours")
    train = int((~_held_out(data)).sum())
    if k > train:
        raise RecipeError(f"classify.knn@{k}: {data.name} has {train} items to learn from.")
    model = neighbours.KNeighborsClassifier(n_neighbors=k, metric="cosine", algorithm="brute")
    measured = _accuracy(model, data, own)
    measured.facts["k"] = k
    return measured


def split(data: Data, seed: int) -> Data:
    """*data* with a test half: the one it has, or one drawn with the classes in proportion.

    Classes of one item, which cannot be on both sides, are left out of a drawn split.

    Raises:
        RecipeError: one class, or too many classes of one item.
    """
    labels = np.asarray(data.labels)
    if not len(labels):
        raise RecipeError(f"data {data.name!r} has no labelled items.")
    vary(labels, "label", data.name)
    if data.held_out is None:
        return _drawn(data, labels, seed)
    held_out = data.held_out
    unknown = sorted(set(labels[held_out]) - set(labels[~held_out]))
    if unknown:
        note = f"labels that only the test has, and nobody can learn: {', '.join(unknown[:5])}"
        return replace(data, notes=(*data.notes, note))
    return data


def _drawn(data: Data, labels: npt.NDArray[Any], seed: int) -> Data:
    sizes = Counter(labels.tolist())
    single = sorted(label for label, size in sizes.items() if size == 1)
    if len(single) > MOST_UNUSABLE * len(labels):
        raise RecipeError(
            f"data {data.name!r}: {len(single):,} of {len(labels):,} items have a label that no "
            f"other has ({single[0]!r} is one): are these classes? --label-column names another."
        )
    notes = list(data.notes)
    if single:
        notes.append(f"labels of a single item, left out: {', '.join(single[:5])}")
        data = data.where(~np.isin(labels, single))
        labels = np.asarray(data.labels)
        vary(labels, "label", data.name)
    selection = require("sklearn.model_selection", "gate", "splitting into train and test")
    test = len(labels) // 2
    _, chosen = selection.train_test_split(
        np.arange(len(labels)), test_size=test, stratify=labels, random_state=seed
    )
    held_out = np.zeros(len(labels), bool)
    held_out[chosen] = True
    notes.append(
        f"split at random, classes in proportion, seed {seed}: {test:,} items are the test"
    )
    return replace(data, held_out=held_out, notes=tuple(notes))


def _held_out(data: Data) -> npt.NDArray[np.bool_]:
    return np.asarray(data.held_out)


def _accuracy(model: Any, data: Data, own: Space) -> Measured:
    test, labels = _held_out(data), np.asarray(data.labels)
    if test.all() or not test.any():
        raise RecipeError(
            f"data {data.name!r}: no item is left to {'train' if test.all() else 'test'} with."
        )
    vary(labels[~test], "label to train with", data.name)
    rows = own.rows.astype(np.float64)
    model.fit(rows[~test], labels[~test])
    right = model.predict(rows[test]) == labels[test]
    facts = {"unit": "test items", "train": int((~test).sum()), "classes": len(set(labels[~test]))}
    return Measured(bootstrap.mean(right), (len(right),), discrete=True, facts=facts)
