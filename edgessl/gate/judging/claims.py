"""Which limit is about which measured subject: what there is to judge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgessl.errors import RecipeError
from edgessl.gate import budget as budgeting
from edgessl.gate import conditions, quantities
from edgessl.gate.budget import Budget, Budgets, Known, Limit
from edgessl.gate.report import Report, Run, Score, Subject


@dataclass(frozen=True)
class Baseline:
    """What relative limits compare with.

    ``subject``: one that is in the judged report too, interleaved with the others; or
    ``reports`` of earlier jobs on the same machine.
    """

    subject: str = ""
    reports: tuple[Report, ...] = ()


@dataclass(frozen=True)
class Claim:
    """One limit on one subject: what a verdict is about."""

    budget: Budget
    limit: Limit
    known: Known
    subject: Subject
    run: Run | None = None
    score: Score | None = None

    @property
    def key(self) -> tuple[str, ...]:
        run = (self.run.scenario, self.run.shape) if self.run else ("", "")
        score = (self.score.metric, self.score.data) if self.score else ("", "")
        return (self.budget.name, self.limit.called, self.subject.name, *run, *score)

    @property
    def certain(self) -> bool:
        """Not drawn by chance: nothing to correct for."""
        return self.known.quantity in ("size", "cosine_min")


def for_device(budgets: Budgets, environment: Mapping[str, Any]) -> list[Budget]:
    """The budgets for the machine of this environment."""
    return [row for row in budgets.budgets if budgeting.for_device(row, environment)]


def of(budgets: Budgets, report: Report, baseline: Baseline | None) -> list[Claim]:
    """What there is to judge, of all budgets that are for this machine."""
    against = baseline.subject if baseline else ""
    judged = [subject for subject in report.subjects if subject.name != against]
    here = for_device(budgets, report.environment)
    if not here:
        devices = ", ".join(sorted({row.device for row in budgets.budgets}))
        raise RecipeError(
            f"{budgets.path}: no budget is for this device "
            f"({report.environment.get('device', 'unknown')!r}); they are for: {devices}."
        )
    claims: list[Claim] = []
    for row in here:
        for limit in row.limits:
            found = _claims(row, limit, judged, report)
            if not found:
                raise RecipeError(_nothing(budgets, row, limit, report))
            if limit.kind == "relative" and baseline is None:
                raise RecipeError(
                    f"{budgets.path}: {row.name!r} has {limit.called}, which needs something to "
                    "compare with: --baseline BUNDLE (measured together, best) or REPORT."
                )
            claims += found
    return claims


def _claims(row: Budget, limit: Limit, judged: Sequence[Subject], report: Report) -> list[Claim]:
    known = budgeting.known(limit)
    by_name = {s.name: s for s in judged if budgeting.matches(row.subject, s.name)}
    if limit.kind == "accuracy":
        references = {score.reference for score in report.scores}
        return [
            Claim(row, limit, known, by_name[score.subject], score=score)
            for score in report.scores
            if score.subject in by_name
            and not _is_reference(score, limit, references)
            and budgeting.matches(limit.metric or known.quantity, score.metric)
            and budgeting.matches(row.data, score.data)
        ]
    if known.quantity == "size":
        sized = [subject for subject in by_name.values() if subject.size_bytes is not None]
        return [Claim(row, limit, known, subject) for subject in sized]
    return [
        Claim(row, limit, known, by_name[run.subject], run=run)
        for run in report.runs
        if run.subject in by_name
        and budgeting.matches(row.scenario, run.scenario)
        and budgeting.matches(row.shape, run.shape)
        and quantities.by_round(run, known.quantity)
    ]


def _is_reference(score: Score, limit: Limit, references: set[str]) -> bool:
    """What the others are compared with has itself lost nothing."""
    alone = limit.name == "max_drop" and score.difference is None
    return alone and score.subject in references


def _nothing(budgets: Budgets, row: Budget, limit: Limit, report: Report) -> str:
    """A limit that nothing was held against is no pass."""
    if limit.kind == "accuracy":
        there = sorted({f"{score.metric} of {score.subject}" for score in report.scores})
        hint = "Measure it: edgessl eval, or give --data"
    else:
        there = sorted({f"{run.subject} {run.scenario} {run.shape}" for run in report.runs})
        hint = "Measure it: edgessl bench, or change the budget"
    return (
        f"{budgets.path}: {row.name!r}: {limit.called} matches nothing that was measured "
        f"(there is: {', '.join(there) or 'nothing'}). {hint}."
    )


def refuse_differences(report: Report, earlier: Report) -> None:
    """Raise where figures of the two cannot be compared.

    Raises:
        RecipeError: says what differs.
    """
    differing = conditions.differences(earlier.environment, report.environment)
    if differing:
        raise RecipeError(
            "the baseline was measured under other conditions, so a difference would say nothing: "
            f"{'; '.join(differing)}. Measure the baseline again here, or give its bundle as "
            "--baseline and both are measured together."
        )
