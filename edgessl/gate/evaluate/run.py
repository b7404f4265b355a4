"""Evaluate: embed the data with every subject, measure, and compare with the reference."""

from __future__ import annotations

import datetime
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from edgessl.errors import RecipeError
from edgessl.gate import conditions
from edgessl.gate import report as reports
from edgessl.gate.bench import commit
from edgessl.gate.evaluate import classify, reading, scoring, vectors
from edgessl.gate.evaluate.columns import Columns
from edgessl.gate.evaluate.data import Data
from edgessl.gate.evaluate.metrics import check, choose
from edgessl.gate.evaluate.spaces import Rows, Space
from edgessl.gate.evaluate.vectors import Vectorizer
from edgessl.gate.report import Report, Score
from edgessl.progress import Steps
from edgessl.rows.base import MOST_UNUSABLE
from edgessl.spec import Task

K = 10
# Their versions decide what comes out.
_LIBRARIES = "onnxruntime openvino tensorrt tensorrt_rtx torch scipy sklearn pytrec_eval".split()


def evaluate(
    subjects: Mapping[str, str | Vectorizer],
    reference: str | None,
    data: str | None,
    metrics: Sequence[str] = (),
    *,
    columns: Columns = Columns(),
    k: int = K,
    items: int | None = None,
    seed: int = 0,
    report: Steps | None = None,
    **options: Any,
) -> Report:
    """Measure the accuracy of *subjects*, and how it differs from the reference's.

    Args:
        subjects: name -> a bundle, a file of vectors that ``edgessl embed`` wrote, or whatever
            else gives vectors.
        reference: which of *subjects* the others are compared with; None: nothing but, where
            there are no *data*, each bundle with the fp32 encoder that it was made of.
        data: see docs/eval.md; None: the golden inputs of the bundles.
        metrics: names of metrics or of groups; none: all that are for such data.
        columns: of a table.
        k: of metrics that count the first *k*. items: how many are drawn of more, with *seed*.
        **options: of ``edgessl.load``.

    Returns:
        a report with ``scores``, and what a reader should know as ``notes``.

    Raises:
        RecipeError: data, columns or metrics that make no sense together, too many items that
            cannot be used, or vectors that are not finite.
        EdgesslError: a bundle that cannot be opened.
    """
    steps = report or Steps(quiet=True)
    check(metrics)
    if items is not None and items < 1 or k < 1:
        raise RecipeError("--items and --k are whole numbers of at least 1.")
    if not subjects:
        raise RecipeError("nothing to evaluate: name a bundle.")
    if data is None and columns.given:
        raise RecipeError(f"{next(iter(columns.given))} is for --data, which is not given.")
    opened = {
        name: vectors.opened(name, given, **options) if isinstance(given, str) else given
        for name, given in subjects.items()
    }
    if reference is not None and reference not in opened:
        raise RecipeError(f"the reference {reference!r} is none of: {', '.join(opened)}.")
    task = _task(opened)
    settings = _Settings(tuple(metrics), k, seed, items, steps)
    if data is None and reference is None:
        return reports.merge([_alone(name, given, settings) for name, given in opened.items()])
    if data is not None:
        if task is None:
            raise RecipeError(
                "stored vectors are compared row by row, by their ids: leave --data out, or give a "
                "bundle too."
            )
        steps(f"reading {data}")
        found = reading.read(data, task, columns)
    else:
        found = _own(opened, str(reference))
    return _compared(opened, reference, found, settings)


@dataclass(frozen=True)
class _Settings:
    metrics: tuple[str, ...]
    k: int
    seed: int
    items: int | None
    steps: Steps


def _task(opened: Mapping[str, Vectorizer]) -> Task | None:
    tasks = {given.task: name for name, given in opened.items() if given.task is not None}
    if len(tasks) > 1:
        kinds = " and ".join(f"{name!r} ({task})" for task, name in tasks.items())
        raise RecipeError(f"{kinds} take different items: they cannot be compared.")
    return next(iter(tasks), None)


def _alone(name: str, given: Vectorizer, settings: _Settings) -> Report:
    """A bundle against what its own fp32 encoder said."""
    if given.task is None or given.own is None:
        raise RecipeError(f"{given.subject.path}: stored vectors need something to compare with.")
    golden = vectors.golden(f"{name} in torch", given.subject.path)
    both = {name: given, golden.subject.name: golden}
    found = _compared(both, golden.subject.name, given.own(), settings)
    return replace(found, subjects=(given.subject,))


def _own(opened: Mapping[str, Vectorizer], reference: str) -> Data:
    """Data that come with what is compared: the reference's, or else those of a subject."""
    kinds = {given.task is None for given in opened.values()}
    if len(kinds) > 1:
        raise RecipeError(
            "bundles and stored vectors are compared on the items of the vectors: give them as "
            "--data."
        )
    order = [opened[reference], *opened.values()]
    return next(given.own() for given in order if given.own is not None)


def _compared(
    opened: Mapping[str, Vectorizer], reference: str | None, data: Data, settings: _Settings
) -> Report:
    asked = choose(settings.metrics, data, settings.k, reference is not None and len(opened) > 1)
    _check_usable(data, [])
    data = data.drawn(settings.items, settings.seed)
    if any(one.metric.group == "classify" for one in asked):
        data = classify.split(data, settings.seed)
    digest = data.sha256()
    kept, spaces = _embedded(opened, data, settings.steps)
    notes = [f"{kept.name}: {note}" for note in kept.notes]
    if reference is not None:
        notes += scoring.differ_in_width(spaces, reference)
    scores: list[Score] = []
    for one in asked:
        settings.steps(f"measuring {one.called}")
        try:
            scores += scoring.scores(one, kept, spaces, reference, settings.seed)
        except RecipeError as err:
            if one.named:
                raise
            notes.append(f"left out: {err}")
    if not scores:
        raise RecipeError(f"nothing could be measured; {notes[-1]}")
    return Report(
        environment=conditions.environment([name for name in _LIBRARIES if name in sys.modules]),
        subjects=tuple(given.subject for given in opened.values()),
        scores=tuple(replace(row, data=kept.name, data_sha256=digest) for row in scores),
        created=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        commit=commit(),
        notes=tuple(notes),
    )


def _embedded(
    opened: Mapping[str, Vectorizer], data: Data, steps: Steps
) -> tuple[Data, dict[str, Space]]:
    """The items that everyone has a vector for, and those vectors.

    Raises:
        RecipeError: too many items that cannot be used, or vectors that are not finite.
    """
    found: dict[str, Rows] = {}
    refused: dict[int, str] = {}
    for name, given in opened.items():
        found[name], reasons = given.embed(data, steps)
        refused = {**reasons, **refused}
    note = _check_usable(data, list(refused.values()))
    usable = data.usable(refused)
    kept = data.where(usable)
    if note:
        kept = replace(kept, notes=(*kept.notes, f"{note}; they were left out"))
    spaces = {name: Space.of(rows[usable]) for name, rows in found.items()}
    for name, space in spaces.items():
        broken = int(space.broken.sum())
        said = f"{name} gives no finite vector for {broken:,} of {len(space.broken):,} items"
        if broken > MOST_UNUSABLE * len(space.broken):
            raise RecipeError(f"{said} (the first: {kept.ids[int(space.broken.argmax())]}).")
        if broken:
            note = f"{said}; they count as cosine -1, and as zeros elsewhere"
            kept = replace(kept, notes=(*kept.notes, note))
    return kept, spaces


def _check_usable(data: Data, refused: Sequence[str]) -> str:
    """How many items cannot be used, for a note; ``""`` where all can.

    Raises:
        RecipeError: too many of them, or no items at all.
    """
    bad = [*data.unreadable, *refused]
    total = len(data.items) + len(data.unreadable)
    if not bad:
        if not data.size:
            raise RecipeError(f"data {data.name!r} has no {data.unit}.")
        return ""
    said = f"{len(bad):,} of {total:,} items cannot be used ({bad[0].rstrip('.')})"
    if len(bad) > MOST_UNUSABLE * total:
        raise RecipeError(f"data {data.name!r}: {said}.")
    return said
