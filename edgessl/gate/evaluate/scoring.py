"""From vectors to scores: one metric, every subject, the same resamples for all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib import import_module

import numpy as np

from edgessl.errors import RecipeError
from edgessl.gate.evaluate import bootstrap
from edgessl.gate.evaluate.bootstrap import Floats, Measured
from edgessl.gate.evaluate.data import Data
from edgessl.gate.evaluate.metrics import FIDELITY, Asked
from edgessl.gate.evaluate.spaces import Space
from edgessl.gate.report import Score

IDENTICAL = "identical"  # a fact: every number of every vector is the reference's


def scores(
    one: Asked, data: Data, spaces: Mapping[str, Space], reference: str | None, seed: int
) -> list[Score]:
    """One metric of every subject; of the reference itself only what needs no reference.

    Raises:
        RecipeError: too few items, or labels that cannot be told apart.
        MissingDependency: a library of the extra ``gate``.
    """
    module, _, name = one.metric.function.partition(":")
    function = getattr(import_module(f"edgessl.gate.evaluate.{module}"), name)
    if one.metric.group == FIDELITY:
        return _near(one, function, data, spaces, str(reference), seed)
    return _judged(one, function, data, spaces, reference, seed)


def differ_in_width(spaces: Mapping[str, Space], reference: str) -> list[str]:
    """Which subjects have no dimensions in common with the reference, a line each."""
    want = spaces[reference].rows.shape[1]
    return [
        f"{name} has {space.rows.shape[1]} dimensions and {reference} {want}: neither cosines nor "
        "an old index can be compared"
        for name, space in spaces.items()
        if space.rows.shape[1] != want
    ]


def _near(
    one: Asked,
    function: Callable[..., Measured],
    data: Data,
    spaces: Mapping[str, Space],
    reference: str,
    seed: int,
) -> list[Score]:
    """How near each subject is to the reference."""
    base = spaces[reference]
    rows = []
    for name, own in spaces.items():
        if name == reference:
            continue
        if one.metric.across and own.rows.shape[1] != base.rows.shape[1]:
            if one.named:
                raise RecipeError(f"{one.called}: {differ_in_width(spaces, reference)[0]}.")
            continue
        measured = function(data, own, base, one.k)
        score = _score(one, name, measured, bootstrap.resampled(measured, seed))
        score.facts[IDENTICAL] = own.equals(base)
        rows.append(replace(score, reference=reference, reference_value=1.0))
    return rows


def _judged(
    one: Asked,
    function: Callable[..., Measured],
    data: Data,
    spaces: Mapping[str, Space],
    reference: str | None,
    seed: int,
) -> list[Score]:
    """How good each subject is, and the difference to the reference, which saw the same resamples."""
    if reference is None:
        alone = {name: function(data, own, one.k, seed) for name, own in spaces.items()}
        return [_score(one, name, m, bootstrap.resampled(m, seed)) for name, m in alone.items()]
    base = spaces[reference]
    against = function(data, base, one.k, seed)
    others = bootstrap.resampled(against, seed)
    rows = []
    for name, own in spaces.items():
        if name == reference:
            rows.append(_score(one, name, against, others))
            continue
        same = own.equals(base)
        measured = against if same else function(data, own, one.k, seed)
        change = measured.value - against.value
        values = np.zeros_like(others)
        if not same:
            drawn = bootstrap.resampled(measured, seed)
            values = bootstrap.differences(drawn, others, measured, seed)
        score = _score(one, name, measured, values, change)
        score.facts[IDENTICAL] = same
        rows.append(
            replace(score, reference=reference, reference_value=against.value, difference=change)
        )
    return rows


def _score(
    one: Asked, name: str, measured: Measured, values: Floats, change: float | None = None
) -> Score:
    """*values*: resampled, of the figure or, where there is one, of its *change*."""
    if measured.biased:
        values = bootstrap.centred(values, measured.value if change is None else change)
    interval, facts = bootstrap.spread(values)
    return Score(
        subject=name,
        metric=one.called,
        value=measured.value,
        items=measured.sizes[0],
        interval=interval,
        facts={**measured.facts, **facts},
    )
