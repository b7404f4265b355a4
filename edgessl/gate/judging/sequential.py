"""Measure, look, and measure on while the answer is open and there is time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from edgessl.gate.budget import Budgets
from edgessl.gate.judging import claims, judge, statistics
from edgessl.gate.judging.claims import Baseline
from edgessl.gate.plan import Plan
from edgessl.gate.report import Report, Run, merge
from edgessl.gate.verdict import INCONCLUSIVE, Judgement, Verdict
from edgessl.progress import Steps

_TRIAL_ROUNDS = 2  # to learn how long a round takes
_FIRST_ROUNDS = 10  # before the first look, or as many as the confidence needs
_GROWTH = 1.5  # of the rounds from one look to the next
_SPARE = 1.2  # rounds may take so much longer than those before


def until_clear(
    rules: Budgets,
    against: Baseline | None,
    plans: Sequence[Plan],
    measure: Callable[[Plan], Report],
    limit_s: float,
    known: Sequence[Report] = (),
    steps: Steps | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> tuple[Judgement, Report]:
    """Carry out *plans*, some rounds at a time, until every limit is clear, one is broken, or
    *limit_s* seconds are over.

    Every look has its share of the confidence (``statistics.look_confidence``), so that looking
    again and again does not make a wrong answer more likely. A verdict that was reached stands,
    and plans of which nothing is open are not measured on.

    Args:
        measure: carries out a plan. known: reports that bring scores.
        clock: seconds.
    """
    began = clock()

    def measured(so_far: Sequence[Report], rounds: int, more: int) -> tuple[Report, float]:
        """What is known after *more* rounds of every plan, and the seconds that each took."""
        started = clock()
        found = [measure(replace(plan, rounds=more, first_round=rounds)) for plan in plans]
        return merge([*so_far, *found]), (clock() - started) / more

    report, pace = measured((), 0, _TRIAL_ROUNDS)
    plans = [replace(plan, qps=_load(plan, report)) for plan in plans]
    report, rounds, look = merge([report, *known]), _TRIAL_ROUNDS, 0
    settled: dict[tuple[str, ...], Verdict] = {}
    while True:
        look += 1
        found = claims.of(rules, report, against)
        wanted = rounds_at(look, judge.confidence_at(rules, found, look))
        left = limit_s - (clock() - began)
        fit = math.floor(left / (_SPARE * pace)) if pace else wanted
        more = max(0, min(wanted - rounds, fit))
        if more:
            report, pace = measured((report,), rounds, more)
            rounds += more
            found = claims.of(rules, report, against)
        judgement = judge.judge(rules, report, against, look, settled, clock() - began)
        for claim, verdict in zip(found, judgement.verdicts, strict=True):
            if verdict.outcome != INCONCLUSIVE:
                settled[claim.key] = verdict
        unclear = [claim.run for claim in found if claim.run and claim.key not in settled]
        plans = [plan for plan in plans if any(_is_of(run, plan) for run in unclear)]
        if judgement.outcome != INCONCLUSIVE or not plans or rounds < wanted:
            return judgement, report
        if steps is not None:
            steps(f"{len(settled)} of {len(found)} limits are clear after {rounds} rounds")


def _is_of(run: Run, plan: Plan) -> bool:
    return run.scenario in plan.scenarios and run.shape in (plan.shapes or (run.shape,))


def _load(plan: Plan, trial: Report) -> float | None:
    """Queries a second of the server scenario: those of the trial in all later rounds, too."""
    found = [run.settings.get("qps") for run in trial.runs if _is_of(run, plan)]
    return plan.qps or next((qps for qps in found if qps), None)


def rounds_at(look: int, confidence: float) -> int:
    """How many rounds there are at a look (from 1) that needs this confidence."""
    growing = math.ceil(_FIRST_ROUNDS * _GROWTH ** (look - 1))
    return max(growing, statistics.fewest_rounds(confidence))
