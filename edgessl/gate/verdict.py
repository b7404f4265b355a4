"""What a gate says: pass, fail or inconclusive, for every limit and in all."""

from __future__ import annotations

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
