"""The gate: budgets against stored reports, or against bundles that it measures until it knows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from edgessl.errors import RecipeError
from edgessl.gate import budget as budgeting
from edgessl.gate import conditions, subjects
from edgessl.gate import report as reports
from edgessl.gate.budget import Budget, Budgets, Limit
from edgessl.gate.judging import claims, judge, sequential
from edgessl.gate.judging.claims import Baseline
from edgessl.gate.plan import SCENARIOS, Plan
from edgessl.gate.report import Report
from edgessl.gate.verdict import Judgement
from edgessl.progress import Steps

BASELINE = "baseline"  # what a bundle to compare with is called, where it has no name of its own
FAST_MINUTES = 1 / 3
_FAST_SECONDS = 0.25  # of measuring a round


@dataclass(frozen=True)
class Outcome:
    """What a gate found. ``report``: all that was measured or read; ``baseline``: the newest of the
    stored reports that it was compared with."""

    judgement: Judgement
    report: Report
    baseline: Report | None = None


def gate(
    budgets: Path,
    things: Sequence[str],
    *,
    baseline: Sequence[str] = (),
    max_minutes: float = 5.0,
    fast: bool = False,
    data: str | None = None,
    column: str | None = None,
    on: str | None = None,
    devices: Path | None = None,
    report: Steps | None = None,
) -> Outcome:
    """Hold *things* against *budgets*.

    Args:
        things: report files, bundles (``PATH`` or ``NAME=PATH``) or ``FILE.py:FACTORY``. Bundles
            are measured here: as long as it takes to tell, at most *max_minutes*. Beside bundles,
            reports may bring scores of ``edgessl eval``.
        baseline: what relative limits compare with: one bundle, which is measured in turn with the
            others; the name of a subject that the reports themselves have; or reports of earlier
            jobs on this machine.
        fast: at most twenty seconds, for every commit.
        data: items for accuracy limits and for the ``corpus`` shape; *column* of a table.
        on: where to measure: ``ssh://...`` or a name in *devices* (None: devices.toml here).

    Raises:
        RecipeError: budgets, reports or a baseline that cannot be used; says which and why.
        EdgesslError: a bundle that cannot be opened or measured.
    """
    steps = report or Steps(quiet=True)
    rules = budgeting.read(budgets)
    files, bundles = _sorted_out(things, "")
    stored = [reports.read(path) for path in files]
    if len(baseline) == 1 and not bundles and _names(baseline[0], stored):
        earlier_files, earlier_bundles = list[Path](), {baseline[0]: ""}
    else:
        earlier_files, earlier_bundles = _sorted_out(baseline, BASELINE)
    if len(earlier_bundles) > 1 or (earlier_bundles and earlier_files):
        raise RecipeError("--baseline takes one bundle, or reports, and not both.")
    if any(earlier_bundles.values()) and not bundles:
        raise RecipeError(
            "stored reports cannot be compared with a bundle that is measured now: give the "
            "baseline's report, or the bundles themselves."
        )
    earlier = tuple(reports.read(path) for path in earlier_files)
    against = Baseline(next(iter(earlier_bundles), ""), earlier) if baseline else None
    if not bundles:
        if not stored:
            raise RecipeError("nothing to judge: name a report or a bundle.")
        _check_comparable(stored)
        merged = reports.merge(stored)
        return Outcome(judge.judge(rules, merged, against), merged, _last(earlier))
    wrong = [path for path, one in zip(files, stored, strict=True) if one.runs]
    if wrong:
        raise RecipeError(
            f"{wrong[0]} holds latencies, and {next(iter(bundles))!r} is to be measured: give "
            "reports or bundles."
        )
    named = {**bundles, **earlier_bundles}
    job = _Job(rules, named, against, data, column, on, devices, fast, steps)
    known = [*stored, *_scores(job, stored)]
    plans = _plans(job)
    if not plans:  # sizes and scores: nothing that another minute would tell
        merged = reports.merge([_only_looked_at(named), *known])
        return Outcome(judge.judge(rules, merged, against), merged, _last(earlier))
    minutes = min(max_minutes, FAST_MINUTES) if fast else max_minutes
    with _measurer(job) as measure:
        judgement, measured = sequential.until_clear(
            rules, against, plans, measure, 60 * minutes, known, steps
        )
    return Outcome(judgement, measured, _last(earlier))


@dataclass(frozen=True)
class _Job:
    rules: Budgets
    named: Mapping[str, str]  # subject -> path, the baseline's among them
    against: Baseline | None
    data: str | None
    column: str | None
    on: str | None
    devices: Path | None
    fast: bool
    steps: Steps


@contextmanager
def _measurer(job: _Job) -> Iterator[Callable[[Plan], Report]]:
    if job.on is None:
        from edgessl.gate.bench import measure

        yield lambda plan: measure(plan, job.steps)
        return
    from edgessl.gate.remote.bench import opened

    with opened(job.on, job.steps, devices=job.devices) as on_device:
        yield on_device


def _plans(job: _Job) -> list[Plan]:
    """What the budgets speak of: a plan for each scenario and shape."""
    cells: dict[tuple[str, str], None] = {}
    for row in _here(job):
        figures = {budgeting.known(limit).quantity for limit in row.limits if _timed(limit)}
        if not figures:
            continue
        usual = "offline" if figures == {"throughput"} else "single-stream"
        named = [name for name in SCENARIOS if budgeting.matches(row.scenario, name)]
        shape = "" if set(row.shape) & set("*?[") else row.shape  # none: the scenario's usual one
        cells |= {(name, shape): None for name in ([usual] if row.scenario == "*" else named)}
    return [
        Plan(
            job.named,
            scenarios=(scenario,),
            shapes=(shape,) if shape else (),
            data=job.data,
            column=job.column,
            seconds=_FAST_SECONDS if job.fast else Plan.seconds,
            peak=False,
        )
        for scenario, shape in cells
    ]


def _timed(limit: Limit) -> bool:
    return limit.kind != "accuracy" and budgeting.known(limit).quantity != "size"


def _here(job: _Job) -> list[Budget]:
    """The budgets for this machine; of another device all, for what it is shows when it answers."""
    if job.on is not None:
        return list(job.rules.budgets)
    return claims.for_device(job.rules, conditions.environment())


def _scores(job: _Job, stored: Sequence[Report]) -> list[Report]:
    """Measure accuracy where budgets limit it and no report has it already."""
    limited = [limit for row in _here(job) for limit in row.limits if limit.kind == "accuracy"]
    if not limited or any(report.scores for report in stored):
        return []
    if job.on is not None:
        raise RecipeError(
            f"{limited[0].called} is not measured on {job.on}: measure it with edgessl eval there, "
            "and give its report beside the bundle."
        )
    from edgessl.gate.evaluate import evaluate
    from edgessl.gate.evaluate.columns import Columns

    reference = (job.against.subject if job.against else "") or None
    columns = Columns(item=job.column)
    return [evaluate(job.named, reference, job.data, columns=columns, report=job.steps)]


def _only_looked_at(named: Mapping[str, str]) -> Report:
    found = tuple(thing.subject for thing in subjects.look(named).values())
    return Report(conditions.environment(), found)


def _sorted_out(things: Sequence[str], name: str) -> tuple[list[Path], dict[str, str]]:
    """Reports, and what is measured by name; *name*: of what has none of its own."""
    files = [Path(thing) for thing in things if Path(thing).is_file()]
    others = [thing for thing in things if not Path(thing).is_file()]
    if name:
        others = [thing if "=" in thing else f"{name}={thing}" for thing in others]
    for thing in others:
        path = thing.rpartition("=")[2]
        if not (Path(path).is_dir() or subjects.is_callable(path)):
            raise RecipeError(f"{path!r} is neither a report nor a bundle: there is no such file.")
    return files, subjects.named(others)


def _names(baseline: str, stored: Sequence[Report]) -> bool:
    """Whether it is the name of a subject, and not a file."""
    subjects_there = {subject.name for report in stored for subject in report.subjects}
    return baseline in subjects_there and not Path(baseline).exists()


def _check_comparable(stored: Sequence[Report]) -> None:
    """Latencies of one judgement are of one machine; scores may come from anywhere."""
    timed = [report for report in stored if report.runs]
    for other in timed[1:]:
        claims.refuse_differences(timed[0], other)


def _last(earlier: Sequence[Report]) -> Report | None:
    return earlier[-1] if earlier else None
