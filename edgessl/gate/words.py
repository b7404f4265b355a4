"""Figures, limits and outcomes as a person reads them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from edgessl.gate.budget import LIMITS, Known
from edgessl.gate.report import Report, Score
from edgessl.gate.verdict import FAIL, INCONCLUSIVE, PASS, Judgement, Verdict

OUTCOMES = (FAIL, INCONCLUSIVE, PASS)  # in the order of interest


def figure(value: float) -> str:
    """Three digits, as far as they say something: 0.613, 12.4, 1,370."""
    if not math.isfinite(value):
        return "?"
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:.{min(digits, 6)}f}"


def with_unit(value: float, unit: str) -> str:
    return f"{figure(value)} {unit}".rstrip()


def score(value: float) -> str:
    """Accuracy: what matters is how far it is from 1."""
    return f"{value:.4f}" if abs(1 - value) >= 0.001 else f"{value:.6f}"


def between(interval: tuple[float, float] | None, show: Callable[[float], str] = figure) -> str:
    """``1.20 to 1.31``; an open end is said so."""
    if interval is None:
        return ""
    low, high = interval
    if low == high:
        return ""  # not drawn by chance
    if math.isinf(low) and math.isinf(high):
        return "too few samples"
    if math.isinf(low):
        return f"up to {show(high)}"
    return f"{show(low)} or more" if math.isinf(high) else f"{show(low)} to {show(high)}"


def change(worse: float) -> str:
    """``11.0% worse`` of 0.11, ``0.18% better`` of -0.0018."""
    share = abs(worse)
    digits = 1 if share >= 0.01 or share == 0 else 2
    return f"{share:.{digits}%} {'worse' if worse >= 0 else 'better'}"


def known(verdict: Verdict) -> Known:
    """The row of a verdict's limit."""
    name = verdict.limit
    return LIMITS["max_drop" if name.startswith("max_drop.") else name]


def measured(verdict: Verdict) -> str:
    """What was measured, in the limit's own terms: ``1.23 ms``, ``3.1 % worse``, ``-0.0120``."""
    if verdict.value is None:
        return "-"
    kind = known(verdict)
    if kind.kind == "relative":
        return change(verdict.value)
    if kind.name == "max_drop":
        return f"{verdict.value:+.4f}"
    return with_unit(verdict.value, kind.unit) if kind.unit else score(verdict.value)


def interval(verdict: Verdict) -> str:
    """The interval of ``measured``."""
    kind = known(verdict)
    if kind.kind == "relative":
        low, high = verdict.interval or (0.0, 0.0)
        if high <= 0:
            better = between((-high, -low), lambda value: f"{value:.1%}")
            return f"{better} better" if better else ""
        return between(verdict.interval, lambda value: f"{value:+.1%}")
    if kind.name == "max_drop":
        return between(verdict.interval, lambda value: f"{value:+.4f}")
    return between(verdict.interval, figure if kind.unit else score)


def bound(verdict: Verdict) -> str:
    """``at most 2 ms``, ``at least 0.99``, ``at most 5% worse``."""
    kind = known(verdict)
    if kind.kind == "relative":
        return f"at most {100 * verdict.bound:.3g}% worse"
    if kind.name == "max_drop":
        return f"drop at most {verdict.bound:g}"
    side = "at least" if kind.higher_is_better else "at most"
    return f"{side} {verdict.bound:,g} {kind.unit}".rstrip()


def reason(verdict: Verdict) -> str:
    """Why: ``2.31 ms (2.20 to 2.44); limit: at most 2 ms``."""
    around = interval(verdict)
    said = f"{measured(verdict)}{f' ({around})' if around else ''}; limit: {bound(verdict)}"
    if verdict.measured is not None and verdict.baseline is not None:
        sides = (with_unit(x, verdict.unit) for x in (verdict.measured, verdict.baseline))
        said += f"; {' against '.join(sides)}"
    if verdict.outcome == INCONCLUSIVE:
        few = verdict.interval is None or not any(map(math.isfinite, verdict.interval))
        open_end = "too few samples" if few else "the limit is within what chance explains"
        said += f"; {verdict.facts.get('noise') or open_end}"
    return said


def where(verdict: Verdict) -> str:
    """What the limit is for: ``single-stream 1x32``, or the data set of a score."""
    return " ".join(filter(None, (verdict.scenario, verdict.shape, verdict.data)))


def counted(judgement: Judgement) -> dict[str, int]:
    """Outcome -> how many limits."""
    return {
        outcome: sum(verdict.outcome == outcome for verdict in judgement.verdicts)
        for outcome in OUTCOMES
    }


def headline(judgement: Judgement) -> str:
    """``fail: 1 of 6 limits broken, 2 inconclusive, 3 kept, ...``"""
    counts = counted(judgement)
    total = len(judgement.verdicts)
    said = {FAIL: "broken", INCONCLUSIVE: "inconclusive", PASS: "kept"}
    parts = [f"{counts[outcome]} {said[outcome]}" for outcome in OUTCOMES if counts[outcome]]
    limits = "limit" if total == 1 else "limits"
    took = f", measured for {judgement.seconds:.0f} s" if judgement.seconds else ""
    return (
        f"{judgement.outcome}: of {total} {limits} {', '.join(parts)} "
        f"(confidence {judgement.confidence:.4g}{took})"
    )


def ordered(judgement: Judgement) -> list[Verdict]:
    """What needs a look first."""
    return sorted(judgement.verdicts, key=lambda verdict: OUTCOMES.index(verdict.outcome))


def flat(facts: Mapping[str, Any], lead: str = "") -> Iterator[tuple[str, str]]:
    """Nested facts as ``("machine model", "AMD EPYC")``, those that are unknown left out."""
    for name, value in facts.items():
        label = f"{lead} {name}".strip().replace("_", " ")
        if isinstance(value, Mapping):
            yield from flat(value, label)
        elif isinstance(value, (list, tuple)):
            if value:
                yield label, " ".join(map(str, value))
        elif value not in (None, ""):
            yield label, str(value)


def environment(report: Report) -> list[tuple[str, str]]:
    """Facts about where *report* was measured; what is unknown stands in its notes."""
    return [(name, value) for name, value in flat(report.environment) if name != "unknown"]


def score_interval(row: Score) -> tuple[float, float] | None:
    """Interval of a score's value: that of its difference lies around the reference's value."""
    if row.interval is None or row.difference is None or row.reference_value is None:
        return row.interval
    low, high = row.interval
    return (row.reference_value + low, row.reference_value + high)


def origin(report: Report) -> str:
    """Where and when: ``AMD EPYC, runner-1, 2026-11-20T17:02:11Z, commit 1a2b3c4``."""
    commit = f"commit {report.commit[:12]}" if report.commit else ""
    device, host = (str(report.environment.get(name) or "") for name in ("device", "host"))
    return joined((device, host, report.created, commit))


def joined(parts: Iterable[str]) -> str:
    return ", ".join(part for part in parts if part)
