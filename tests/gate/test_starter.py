"""A first budgets.toml: it reads, and what it was drawn from keeps it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgessl.errors import RecipeError
from edgessl.gate import budget, quantities
from edgessl.gate.budget import Budgets
from edgessl.gate.judging import judge
from edgessl.gate.report import Report, Round, Run, Score, Subject
from edgessl.gate.starter import starter


def rounds(count: int = 12) -> tuple[Round, ...]:
    """Calls of 1.0 to 1.99 ms, rounds 1 % apart."""
    latencies = [
        tuple(int((1e6 + 1e4 * (i % 100)) * (1 + (number % 2) / 100)) for i in range(600))
        for number in range(count)
    ]
    return tuple(
        Round(number, each, 600, sum(each), 900_000_000 + number, 120.5, 64.0, 2.5)
        for number, each in enumerate(latencies)
    )


REPORT = Report(
    environment={"device": 'Jetson [Orin] "Nano"', "host": "nano"},
    subjects=(Subject("ours", "ours/", 25_000_000),),
    runs=(
        Run("ours", "single-stream", "1x32", rounds()),
        Run("ours", "offline", "corpus", rounds()),
    ),
    scores=(
        Score("ours", "cosine_mean", 0.998, 500, "reviews", interval=(0.9979, 0.9981)),
        Score("ours", "neighbours@1", 0.9, 500, "reviews", interval=(0.89, 0.91)),
        Score("ours", "neighbours@10", 0.95, 500, "reviews", interval=(0.94, 0.96)),
        Score(
            "ours",
            "sts.spearman",
            82.0,
            500,
            "sts",
            interval=(-0.4, 0.2),
            reference_value=82.1,
            difference=-0.1,
        ),
        Score("ours", "accuracy", 0.5, 500, "sts"),  # measured alone: nothing was lost
    ),
)


def read(folder: Path, text: str) -> Budgets:
    path = folder / "budgets.toml"
    path.write_text(text, encoding="utf-8")
    return budget.read(path)


def test_what_was_measured_keeps_it(tmp_path: Path) -> None:
    found = read(tmp_path, starter(REPORT))
    bounds = {
        row.name: {limit.called: limit.bound for limit in row.limits} for row in found.budgets
    }
    single, bulk = bounds["single-stream 1x32"], bounds["offline corpus"]
    p50, p99 = (quantities.value(REPORT.runs[0], name) or 0 for name in ("p50", "p99"))
    assert single == {
        "p50_ms": pytest.approx(1.2 * p50, rel=0.01),
        "p99_ms": pytest.approx(1.2 * p99, rel=0.01),
        "cold_start_ms": 1080,
        "memory_mb": 145,
        "device_memory_mb": 76.8,
        "size_mb": 30,
        "energy_mj": 3,
    }
    throughput = quantities.value(REPORT.runs[1], "throughput") or 0
    assert bulk["throughput"] == pytest.approx(throughput / 1.2, rel=0.01)
    assert bulk.keys() == {"throughput", "memory_mb", "device_memory_mb", "energy_mj"}
    assert bounds["accuracy reviews"] == {"min_cosine": 0.9976, "min_neighbours": 0.88}
    assert bounds["accuracy sts"] == {"max_drop.sts.spearman": pytest.approx(0.821)}
    judgement = judge.judge(found, REPORT)
    assert {verdict.outcome for verdict in judgement.verdicts} == {"pass"}
    assert len(judgement.verdicts) == sum(map(len, bounds.values())) + 1  # both neighbours@


def test_and_what_is_slower_breaks_it(tmp_path: Path) -> None:
    found = read(tmp_path, starter(REPORT))
    slow = tuple(
        replace(visit, latency_ns=tuple(int(1.3 * x) for x in visit.latency_ns), memory_mb=200.0)
        for visit in REPORT.runs[0].rounds
    )
    worse = replace(REPORT, runs=(replace(REPORT.runs[0], rounds=slow), REPORT.runs[1]))
    broken = {v.limit for v in judge.judge(found, worse).verdicts if v.outcome == "fail"}
    assert broken == {"p50_ms", "p99_ms", "memory_mb"}


def test_relative_limits_wait_for_a_baseline(tmp_path: Path) -> None:
    text = starter(REPORT)
    assert not any(
        limit.kind == "relative" for row in read(tmp_path, text).budgets for limit in row.limits
    )
    single = read(tmp_path, text.replace("# relative", "relative")).budgets[0]
    assert {limit.name: limit.bound for limit in single.limits if limit.kind == "relative"} == {
        name: 0.05
        for name in ("p50", "p99", "cold_start", "memory", "device_memory", "size", "energy")
    }


def test_several_subjects_have_budgets_of_their_own(tmp_path: Path) -> None:
    other = replace(REPORT.runs[0], subject="[theirs]*")
    both = replace(
        REPORT, subjects=(*REPORT.subjects, Subject("[theirs]*", "x.py:f")), runs=(REPORT.runs[0], other)
    )  # fmt: skip
    mine, theirs, *_ = read(tmp_path, starter(both)).budgets
    assert mine.name == "ours: single-stream 1x32"
    assert budget.matches(mine.subject, "ours") and not budget.matches(mine.subject, "[theirs]*")
    assert budget.matches(theirs.subject, "[theirs]*") and not budget.matches(theirs.subject, "t")


@pytest.mark.parametrize("headroom", [0, -0.1, float("nan"), float("inf")])
def test_headroom_that_is_none(headroom: float) -> None:
    with pytest.raises(RecipeError, match="headroom"):
        starter(REPORT, headroom)


def test_a_report_without_figures() -> None:
    with pytest.raises(RecipeError, match="no figures"):
        starter(replace(REPORT, runs=(), scores=REPORT.scores[-1:]))


_NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    device=_NAMES,
    shape=_NAMES,
    data=_NAMES,
    metric=_NAMES,
    latency=st.integers(0, 2**62),
    busy=st.integers(1, 2**62),
    value=st.floats(-1, 1),
    drop=st.floats(-1e9, 1e9),
    headroom=st.floats(0.01, 10),
)
def test_whatever_was_measured_the_text_reads(tmp_path: Path, **drawn: Any) -> None:
    visit = Round(0, (drawn["latency"],), 1, drawn["busy"])
    metric, value, drop = drawn["metric"] or "m", drawn["value"], drawn["drop"]
    report = Report(
        {"device": drawn["device"]},
        (Subject("ours", "ours/"),),
        (Run("ours", "server", drawn["shape"], (visit,)), Run("ours", "offline", "8", (visit,))),
        (
            Score("ours", "cosine_p1", value, 9, drawn["data"]),
            Score("ours", metric, value, 9, drawn["data"], difference=drop),
        ),
    )
    found = read(tmp_path, starter(report, drawn["headroom"]))
    assert all(budget.for_device(row, report.environment) for row in found.budgets)
    assert any(budget.matches(row.shape, "8") for row in found.budgets)
