"""The tables that the views share: heads and rows of text."""

from __future__ import annotations

import math
from collections.abc import Sequence

from edgessl.gate import quantities, words
from edgessl.gate.budget import LIMITS
from edgessl.gate.report import Report, Run
from edgessl.gate.verdict import Judgement, Verdict

LIMITS_HEAD = ("outcome", "limit", "subject", "for", "measured", "interval", "limit is")
LIMITS_LEFT = 4
RUNS_LEFT = 3
SCORES_LEFT = 3

Table = tuple[list[str], list[list[str]]]


def of_verdict(verdict: Verdict) -> list[str]:
    return [
        verdict.outcome,
        verdict.limit,
        verdict.subject,
        words.where(verdict),
        words.measured(verdict),
        words.interval(verdict),
        words.bound(verdict),
    ]


def limits(judgement: Judgement) -> list[list[str]]:
    return [of_verdict(verdict) for verdict in words.ordered(judgement)]


def runs(report: Report) -> Table:
    """A row a run; a column that no run has a figure for is left out."""
    found = [
        {name: quantities.value(run, name) for name in quantities.QUANTITIES if name != "size"}
        | {"size": quantities.size_mb(report.subject(run.subject))}
        for run in report.runs
    ]
    shown = [name for name in quantities.QUANTITIES if any(_is(row[name]) for row in found)]
    peaks = [peak_share(run) for run in report.runs]
    head = ["subject", "scenario", "shape", "rounds", "queries", *map(_heading, shown)]
    rows = []
    for run, row in zip(report.runs, found, strict=True):
        counts = [str(len(run.rounds)), f"{len(run.latencies):,}"]
        rows.append([*run.key, *counts, *(_cell(row[name]) for name in shown)])
    if any(peaks):
        head.append("of peak")
        rows = [[*row, peak] for row, peak in zip(rows, peaks, strict=True)]
    return head, rows


def scores(report: Report) -> Table:
    """A row a score."""
    head = ["subject", "metric", "data", "items", "value", "interval", "difference", "reference"]
    rows = []
    for row in report.scores:
        change = "" if row.difference is None else f"{row.difference:+.4f}"
        rows.append(
            [
                row.subject,
                row.metric,
                row.data,
                f"{row.items:,}",
                words.score(row.value),
                words.between(words.score_interval(row), words.score),
                change,
                row.reference,
            ]
        )
    return _without_empty(head, rows)


def peak_share(run: Run) -> str:
    """Share of the machine's measured matrix-multiply peak; empty where it was not measured."""
    share = run.facts.get("peak_share")
    return f"{share:.1%}" if isinstance(share, (int, float)) and math.isfinite(share) else ""


def _heading(name: str) -> str:
    unit = LIMITS[f"relative.{name}"].unit
    return f"{name.replace('_', ' ')}, {unit}"


def _is(value: float | None) -> bool:
    return value is not None


def _cell(value: float | None) -> str:
    return "" if value is None else words.figure(value)


def _without_empty(head: list[str], rows: Sequence[Sequence[str]]) -> Table:
    kept = [column for column in range(len(head)) if any(row[column] for row in rows)]
    return [head[column] for column in kept], [[row[column] for column in kept] for row in rows]
