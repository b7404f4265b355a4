"""What a gate says: pass, fail or inconclusive, for every limit and in all."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

PASS, FAIL, INCONCLUSIVE = "pass", "fail", "inconclusive"


@dataclass(frozen=True)
class Verdict:
    """Of one limit on one subject.

    ``limit``: as ``Limit.called``. ``value`` and ``interval``: what was measured, in ``unit``;
    for a relative limit the change as a fraction (0.031: 3.1 % worse), and ``baseline`` the
    baseline's own value in the unit of ``measured``. ``interval`` holds the truth with the
    confidence that the budgets ask for, corrected for how many limits there are.
    """

    budget: str
    limit: str
    bound: float
    subject: str
    outcome: str
    reason: str  # one line for a person, with the figures
    value: float | None = None
    interval: tuple[float, float] | None = None
    unit: str = ""
    scenario: str = ""
    shape: str = ""
    data: str = ""
    measured: float | None = None  # of a relative limit: the subject's own value
    baseline: float | None = None
    samples: int = 0
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Judgement:
    """All verdicts. Empty ones do not exist: budgets that match nothing are an error."""

    verdicts: tuple[Verdict, ...]
    confidence: float
    seconds: float = 0.0  # spent on measuring

    @property
    def outcome(self) -> str:
        outcomes = {verdict.outcome for verdict in self.verdicts}
        return next(word for word in (FAIL, INCONCLUSIVE, PASS) if word in outcomes)

    @property
    def exit_code(self) -> int:
        return {PASS: 0, FAIL: 1, INCONCLUSIVE: 5}[self.outcome]


def reason(verdict: Verdict) -> str:
    """The figures of a verdict in one line: ``p99 2.31 ms (2.20 to 2.44), limit 2 ms``."""
    if verdict.limit.startswith("relative."):
        figures = _relative(verdict)
    else:
        unit = f" {verdict.unit}" if verdict.unit else ""
        value = "?" if verdict.value is None else figure(verdict.value)
        limit = "may be lost" if verdict.limit.startswith("max_drop") else "limit"
        figures = f"{value}{unit}{_between(verdict.interval)}, {limit} {verdict.bound:g}{unit}"
    if verdict.outcome != INCONCLUSIVE:
        return figures
    noise = verdict.facts.get("noise")
    few = verdict.interval is None or not all(map(math.isfinite, verdict.interval))
    why = noise or ("too few samples" if few else "the limit is within what chance explains")
    return f"{figures}: {why}"


def _relative(verdict: Verdict) -> str:
    unit = f" {verdict.unit}"
    low, high = verdict.interval or (-math.inf, math.inf)
    shares = "" if low == high else f" ({low:+.1%} to {high:+.1%})"
    return (
        f"{verdict.value or 0:+.1%} worse{shares}, limit {verdict.bound:+.1%}: "
        f"{figure(verdict.measured or 0)}{unit} against {figure(verdict.baseline or 0)}{unit}"
    )


def _between(interval: tuple[float, float] | None) -> str:
    if interval is None or interval[0] == interval[1]:
        return ""
    return f" ({figure(interval[0])} to {figure(interval[1])})"


def figure(value: float) -> str:
    """Three digits, as far as they say something: 0.613, 12.4, 1,370."""
    if not math.isfinite(value):
        return "?"
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:.{min(digits, 6)}f}"
