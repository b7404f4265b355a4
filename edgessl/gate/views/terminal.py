"""A report and its verdicts on a terminal."""

from __future__ import annotations

from edgessl import tables
from edgessl.gate import words
from edgessl.gate.report import Report
from edgessl.gate.verdict import PASS, Judgement
from edgessl.gate.views import rows


def table(report: Report, judgement: Judgement | None = None) -> str:
    """Verdicts, timings, scores and notes in aligned columns."""
    parts = []
    if judgement is not None:
        parts += [
            words.headline(judgement),
            tables.plain(rows.LIMITS_HEAD, rows.limits(judgement), 4),
        ]
        reasons = [
            f"{verdict.outcome}: {verdict.reason}"
            for verdict in words.ordered(judgement)
            if verdict.outcome != PASS and verdict.reason
        ]
        parts.append("\n".join(reasons))
    if report.runs:
        parts.append(tables.plain(*rows.runs(report), rows.RUNS_LEFT))
    if report.scores:
        parts.append(tables.plain(*rows.scores(report), rows.SCORES_LEFT))
    about = [f"on    {words.origin(report)}", *(f"note  {note}" for note in report.notes)]
    parts.append("\n".join(about))
    return "\n\n".join(part for part in parts if part)
