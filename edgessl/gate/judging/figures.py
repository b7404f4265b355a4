"""What was measured of a claim, and its interval: of a run or score, or of the change since the
baseline."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from edgessl.errors import RecipeError
from edgessl.gate import quantities
from edgessl.gate.budget import Budgets, Limit
from edgessl.gate.judging import statistics
from edgessl.gate.judging.claims import Baseline, Claim
from edgessl.gate.judging.statistics import Interval
from edgessl.gate.report import Report, Run, Score, Subject

FEW_JOBS = 3  # baseline reports from which their own spread is taken
_Logs = tuple[float, Interval]  # middle and bounds of the logarithm of a ratio


def absolute(claim: Claim, confidence: float) -> dict[str, Any]:
    quantity, unit = claim.known.quantity, claim.known.unit
    if claim.run is None:
        size = quantities.size_mb(claim.subject) or 0.0
        return {"value": size, "interval": (size, size), "unit": unit, "samples": 1}
    value = quantities.value(claim.run, quantity)
    found = list(quantities.by_round(claim.run, quantity).values())
    if quantity in quantities.PERCENTILES:
        rounds = [np.asarray(visit.latency_ns) / 1e6 for visit in claim.run.rounds]
        fraction = quantities.PERCENTILES[quantity]
        interval = statistics.percentile_interval(rounds, fraction, confidence)
        samples = sum(map(len, rounds))
    elif quantity.endswith("memory"):  # no round may be above
        interval, samples = (min(found), max(found)), len(found)
    else:  # of the median: a value a round
        interval = statistics.percentile_interval([[x] for x in found], 0.5, confidence)
        samples = len(found)
    return {"value": value, "interval": interval, "unit": unit, "samples": samples}


def accuracy(score: Score, limit: Limit, confidence: float) -> dict[str, Any]:
    """Of a loss (``max_drop``) the difference to the reference; else the value itself."""
    value = score.value
    if limit.name == "max_drop":
        if score.difference is None:
            raise RecipeError(
                f"{limit.called} needs a reference: {score.subject} / {score.metric} was measured "
                "alone. Give --reference to edgessl eval, or --baseline to edgessl gate."
            )
        sign = 1 if score.higher_is_better else -1
        value = sign * score.difference
    interval = _score_interval(score, confidence, value)
    return {"value": value, "interval": interval, "samples": score.items}


def _score_interval(score: Score, confidence: float, value: float) -> Interval:
    """From the bootstrap's quantiles: those next to the wanted ones, to the outside."""
    if score.metric == "cosine_min":
        return (value, value)
    kept = {float(key): float(x) for key, x in score.facts.get("quantiles", {}).items()}
    if not kept:
        return score.interval or (value, value)
    tail = (1 - confidence) / 2
    bounds = (_outside(kept, tail), _outside(kept, 1 - tail))
    flipped = value != score.value and not score.higher_is_better
    return (-bounds[1], -bounds[0]) if flipped else bounds


def _outside(kept: Mapping[float, float], wanted: float) -> float:
    """The quantile at *wanted*, or the next kept one that is further out; beyond those that are
    kept, as the normal law goes on."""
    low = wanted < 0.5
    side = [key for key in kept if 0 < key < 1 and (key < 0.5) == low and key != 0.5]
    further = [key for key in side if (key <= wanted if low else key >= wanted)]
    if further:
        return kept[max(further) if low else min(further)]
    if not side:
        return -math.inf if low else math.inf
    outermost = min(side) if low else max(side)
    middle = kept.get(0.5, (min(kept.values()) + max(kept.values())) / 2)
    scale = statistics.normal_quantile(wanted) / statistics.normal_quantile(outermost)
    return middle + (kept[outermost] - middle) * scale


def change(
    claim: Claim, report: Report, baseline: Baseline, budgets: Budgets, confidence: float
) -> dict[str, Any]:
    """How much worse than the baseline, as a fraction."""
    quantity, unit = claim.known.quantity, claim.known.unit
    if baseline.subject:
        logs, measured, before, samples, facts = _paired(
            claim, report, baseline.subject, confidence
        )
    else:
        logs, measured, before, samples, facts = _earlier(claim, baseline, budgets, confidence)
    middle, (low, high) = logs
    if claim.known.higher_is_better:
        value, interval = -math.expm1(middle), (-_grown(high), -_grown(low))
    else:
        value, interval = math.expm1(middle), (_grown(low), _grown(high))
    return {
        "value": value,
        "interval": interval,
        "unit": unit,
        "measured": measured,
        "baseline": before,
        "samples": samples,
        "facts": {"quantity": quantity, **facts},
    }


def _grown(log: float) -> float:
    return math.inf if log > 700 else math.expm1(log)


def _paired(
    claim: Claim, report: Report, against: str, confidence: float
) -> tuple[_Logs, float, float, int, dict[str, Any]]:
    """Rounds of the same number saw the same weather: their differences are what counts."""
    if claim.run is None:
        return _sizes(claim, report.subject(against))
    run = _run_like(claim.run, report, against)
    left = quantities.by_round(claim.run, claim.known.quantity)
    right = quantities.by_round(run, claim.known.quantity)
    shared = sorted(left.keys() & right.keys())
    if not shared:
        raise RecipeError(
            f"{' / '.join(claim.run.key)} and {against!r} have no rounds in common: measure them "
            "in one command, or give the baseline as a report of its own."
        )
    logs_of = (_logs(claim, {n: side[n] for n in shared}) for side in (left, right))
    differences = [mine - other for mine, other in zip(*logs_of, strict=True)]
    logs = statistics.shift_interval(differences, confidence)
    mine, other = (float(np.median([side[n] for n in shared])) for side in (left, right))
    return logs, mine, other, len(shared), {"rounds": len(shared)}


def _earlier(
    claim: Claim, baseline: Baseline, budgets: Budgets, confidence: float
) -> tuple[_Logs, float, float, int, dict[str, Any]]:
    """Two jobs differ by more than their samples show: by as much as earlier jobs did among
    themselves, or, where there are too few of those, by what the budgets take for granted."""
    reports = baseline.reports
    if claim.run is None:
        return _sizes(claim, _subject_like(claim.subject, reports[-1]))
    quantity = claim.known.quantity
    runs = [_run_like(claim.run, r, _subject_like(claim.subject, r).name) for r in reports]
    rounds = [_logs(claim, quantities.by_round(run, quantity)) for run in (claim.run, *runs)]
    latencies = [earlier.latencies for earlier in runs]
    if any(one in latencies[:place] for place, one in enumerate(latencies)):
        raise RecipeError(
            "two baseline reports are the same: give each job's once, or they would seem to agree."
        )
    if not all(map(len, rounds)):
        raise RecipeError(
            f"{claim.limit.called}: the baseline has no {quantity}; measure it again."
        )
    mine, *before = (float(np.median(values)) for values in rounds)
    center = float(np.mean(before))
    if len(before) >= FEW_JOBS:
        _, (low, high) = statistics.prediction_interval(before, confidence)
        half, noise = (high - low) / 2, float(np.std(before, ddof=1))
        said = f"{len(before)} baseline reports differ by {noise:.1%} among themselves"
    else:
        within = sum(
            np.var(values, ddof=1) / len(values) if len(values) > 1 else math.inf
            for values in rounds
        )
        between = budgets.job_noise**2 * (1 + 1 / len(before))
        half = statistics.normal_quantile((1 + confidence) / 2) * math.sqrt(between + within)
        said = (
            f"jobs are taken to differ by {budgets.job_noise:.0%}: give {FEW_JOBS} baseline reports"
        )
    middle = mine - center
    logs = (middle, (middle - half, middle + half))
    return logs, math.exp(mine), math.exp(center), len(rounds[0]), {"noise": said}


def _logs(claim: Claim, by_round: Mapping[int, float]) -> list[float]:
    zero = [number for number, value in by_round.items() if value <= 0]
    if zero:
        raise RecipeError(
            f"{claim.limit.called}: {claim.subject.name!r} or its baseline has a {claim.known.quantity} "
            f"of 0 in round {zero[0]}: nothing is so many percent worse than that. Use an absolute "
            "limit."
        )
    return [math.log(value) for value in by_round.values()]


def _sizes(claim: Claim, other: Subject) -> tuple[_Logs, float, float, int, dict[str, Any]]:
    mine, theirs = quantities.size_mb(claim.subject), quantities.size_mb(other)
    if not mine or not theirs:
        raise RecipeError(f"{claim.limit.called}: {other.name!r} is no bundle: it has no size.")
    change = math.log(mine / theirs)
    return (change, (change, change)), mine, theirs, 1, {}


def _subject_like(subject: Subject, report: Report) -> Subject:
    """Of the same name; or the only one there is."""
    same = [other for other in report.subjects if other.name == subject.name]
    if not same and len(report.subjects) > 1:
        names = ", ".join(other.name for other in report.subjects)
        raise RecipeError(
            f"the baseline report has no {subject.name!r} (it has: {names}). Name one side with "
            "NAME=PATH when measuring."
        )
    return (same or list(report.subjects))[0]


def _run_like(run: Run, report: Report, subject: str) -> Run:
    key = (subject, run.scenario, run.shape)
    found = [other for other in report.runs if other.key == key]
    if not found:
        raise RecipeError(f"the baseline has no {' / '.join(key)}: measure it with the same flags.")
    names = run.settings.keys() | found[0].settings.keys()
    mine, theirs = (side.settings for side in (run, found[0]))
    differing = [
        f"{name} {theirs.get(name)} then, {mine.get(name)} now"
        for name in sorted(names)
        if mine.get(name) != theirs.get(name)
    ]
    if differing:
        raise RecipeError(
            f"{' / '.join(key)} was measured with other settings: {'; '.join(differing)}. Measure "
            "both with the same flags."
        )
    return found[0]
