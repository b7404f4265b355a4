"""Scores for a person: a table, and what each difference means."""

from __future__ import annotations

from edgessl import tables
from edgessl.gate.evaluate.scoring import IDENTICAL
from edgessl.gate.report import Report, Score

_FINE = ("cosine_", "similarities.")  # lie so near to 1 that they need more digits


def lines(report: Report) -> list[str]:
    """What ``edgessl eval`` prints."""
    rows: list[list[str]] = []
    named = ""
    for score in report.scores:
        metric, named = "" if score.metric == named else score.metric, score.metric
        counted = f"{score.items:,} {score.facts['unit']}"
        said = verdict(score) if score.reference else _between(score)
        rows.append([metric, score.subject, _figure(score, score.value), counted, said])
    references = dict.fromkeys(score.reference for score in report.scores if score.reference)
    last = f"against {' or '.join(references)}" if references else "95 % interval"
    found = [*report.notes, ""]
    found += tables.plain(["metric", "subject", "value", "of", last], rows, left=5).splitlines()
    indexed = [score for score in report.scores if "verdict" in score.facts]
    found += [""] * bool(indexed)
    return found + [
        f"{score.subject} in an index of {score.reference}: {score.facts['verdict']}"
        for score in indexed
    ]


def verdict(score: Score) -> str:
    """In words, how a subject does against its reference."""
    if score.facts.get(IDENTICAL):
        return "the same vectors"
    if score.difference is None or score.interval is None:
        return _between(score)
    low, high = score.interval
    if low <= 0 <= high:
        return f"no difference seen ({low:+.4f} to {high:+.4f})"
    worse = (high < 0) == score.higher_is_better
    near, far = sorted((abs(low), abs(high)))
    size = f"{abs(score.difference):.4f} ({near:.4f} to {far:.4f})"
    return f"{'worse' if worse else 'better'} by {size}"


def _between(score: Score) -> str:
    if score.interval is None:
        return ""
    low, high = score.interval
    return f"{_figure(score, low)} to {_figure(score, high)}"


def _figure(score: Score, value: float) -> str:
    fine = score.metric.startswith(_FINE)
    return f"{value:.{6 if fine else 4}f}"
