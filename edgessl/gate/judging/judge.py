"""Budgets against reports: every limit is kept, broken, or not to be told from these samples.

One rule for all: the interval of what was measured lies on the good side of the limit (pass), on
the bad side (fail), or the limit is inside it (inconclusive). So a limit is broken only by a
difference that is both beyond chance and larger than what the limit allows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from edgessl.gate.budget import Budgets
from edgessl.gate.judging import claims, figures, statistics
from edgessl.gate.judging.claims import Baseline, Claim
from edgessl.gate.judging.statistics import Interval
from edgessl.gate.report import Report
from edgessl.gate.verdict import FAIL, INCONCLUSIVE, PASS, Judgement, Verdict
from edgessl.gate.words import reason


def judge(
    budgets: Budgets,
    report: Report,
    baseline: Baseline | None = None,
    look: int | None = None,
    settled: Mapping[tuple[str, ...], Verdict] | None = None,
    seconds: float = 0.0,
) -> Judgement:
    """Verdicts on every limit of *budgets* that is for this machine.

    Args:
        look: how often these growing samples have been judged, this time included; None: they
            are all there will be.
        settled: verdicts of earlier looks that stand, by ``Claim.key``.

    Raises:
        RecipeError: no budget is for this machine; a budget finds nothing in the report; a limit's
            figure was not measured; a relative limit has no baseline, or one from another machine
            or with other settings (says what differs).
    """
    found = claims.of(budgets, report, baseline)
    for earlier in baseline.reports if baseline else ():
        claims.refuse_differences(report, earlier)
    confidence = confidence_at(budgets, found, look)
    stand = settled or {}
    verdicts = [
        stand.get(claim.key) or _verdict(claim, report, baseline, budgets, confidence)
        for claim in found
    ]
    return Judgement(tuple(verdicts), budgets.confidence, seconds)


def confidence_at(budgets: Budgets, found: Sequence[Claim], look: int | None) -> float:
    """What each interval needs so that all hold together; *look* as for ``judge``."""
    uncertain = max(1, sum(not claim.certain for claim in found))
    if look is None:
        return 1 - (1 - budgets.confidence) / uncertain
    return statistics.look_confidence(budgets.confidence, uncertain, look)


def _verdict(
    claim: Claim, report: Report, baseline: Baseline | None, budgets: Budgets, confidence: float
) -> Verdict:
    measured: dict[str, Any]
    if claim.limit.kind == "relative":
        measured = figures.change(claim, report, baseline or Baseline(), budgets, confidence)
    elif claim.score is not None:
        measured = figures.accuracy(claim.score, claim.limit, confidence)
    else:
        measured = figures.absolute(claim, confidence)
    higher = claim.limit.kind != "relative" and claim.known.higher_is_better
    bound = -claim.limit.bound if claim.limit.name == "max_drop" else claim.limit.bound
    verdict = Verdict(
        budget=claim.budget.name,
        limit=claim.limit.called,
        bound=claim.limit.bound,
        subject=claim.subject.name,
        outcome=_outcome(measured["interval"], bound, higher),
        reason="",
        scenario=claim.run.scenario if claim.run else "",
        shape=claim.run.shape if claim.run else "",
        data=claim.score.data if claim.score else "",
        **measured,
    )
    return replace(verdict, reason=reason(verdict))


def _outcome(interval: Interval, bound: float, higher_is_better: bool) -> str:
    low, high = interval
    if higher_is_better:
        low, high, bound = -high, -low, -bound
    if high <= bound:
        return PASS
    return FAIL if low > bound else INCONCLUSIVE
