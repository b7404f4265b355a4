"""Verdicts and reports as a table, as Markdown and as JUnit XML."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET
from dataclasses import replace

import numpy as np
import pytest

from edgessl import tables
from edgessl.gate import views, words
from edgessl.gate.report import Report, Score
from edgessl.gate.verdict import FAIL, INCONCLUSIVE, PASS, Judgement, Verdict
from tests import measured

NASTY = "<script>alert(1)</script>|`x`\n@admin *b* [a](http://x)"


def _verdict(outcome: str = PASS, limit: str = "p99_ms", **facts: object) -> Verdict:
    given = dict(
        budget="laptop",
        bound=2.0,
        subject="int8",
        reason="p99 2.31 ms (2.24 to 2.40), limit 2 ms",
        value=2.31,
        interval=(2.24, 2.40),
        unit="ms",
        scenario="single-stream",
        shape="1x32",
        samples=800,
    )
    return Verdict(limit=limit, outcome=outcome, **{**given, **facts})  # type: ignore[arg-type]


def _judgement(*verdicts: Verdict) -> Judgement:
    return Judgement(verdicts, 0.99, 12.5)


@pytest.fixture
def report() -> Report:
    """Two subjects, two rounds; a score for one of them."""
    score = Score("int8", "cosine_mean", 0.9978, 1000, "reviews", interval=(0.9975, 0.9981))
    runs = []
    for name, ms in (("int8", 1.25), ("fp32", 3.5)):
        rounds = (
            measured.visit(0, [ms, ms, ms * 2], cold_start_ns=250_000_000, memory_mb=1234.5),
            measured.visit(1, [ms, ms, ms]),
        )
        runs.append(replace(measured.run(name, np.random.default_rng(0)), rounds=rounds))
    made = measured.report(*runs, scores=(score,), unknown=["clock"])
    return replace(
        made, created="2026-11-20T17:02:11+00:00", commit="1a2b3c4d5e6f7a8b", notes=("hot",)
    )


def test_tables_align_and_markdown_has_a_rule() -> None:
    head, rows = ("name", "ms"), (("a", "1.5"), ("longer", "12.25"))
    assert tables.plain(head, rows).splitlines() == [
        "name       ms",
        "a         1.5",
        "longer  12.25",
    ]
    assert tables.markdown(head, rows).splitlines()[:2] == [
        "| name   |    ms |",
        "| ------ | ----: |",
    ]


def test_measured_and_bound_in_words() -> None:
    told = [
        (_verdict(), "2.31 ms", "2.24 to 2.40", "at most 2 ms"),
        (_verdict(limit="throughput", value=412.0), "412 items/s", None, "at least 2 items/s"),
        (
            _verdict(limit="relative.p50", bound=0.05, value=0.031, interval=(0.012, 0.05)),
            "3.1% worse",
            "+1.2% to +5.0%",
            "at most 5% worse",
        ),
        (
            _verdict(limit="relative.throughput", bound=0.025, value=-0.004, interval=None),
            "0.40% better",
            "",
            "at most 2.5% worse",
        ),
        (
            _verdict(limit="relative.p50", bound=0.05, value=-0.2, interval=(-0.31, -0.125)),
            "20.0% better",
            "12.5% to 31.0% better",
            "at most 5% worse",
        ),
        (
            _verdict(limit="size_mb", value=24.3, interval=(24.3, 24.3)),
            "24.3 MB",
            "",
            "at most 2 MB",
        ),
        (
            _verdict(limit="min_cosine", bound=0.99, value=0.99995, interval=(0.9, math.inf)),
            "0.999950",
            "0.9000 or more",
            "at least 0.99",
        ),
        (
            _verdict(
                limit="max_drop.sts.spearman", bound=0.01, value=-0.012, interval=(-math.inf, 0)
            ),
            "-0.0120",
            "up to +0.0000",
            "drop at most 0.01",
        ),
    ]
    for verdict, value, interval, bound in told:
        assert words.measured(verdict) == value
        assert interval is None or words.interval(verdict) == interval
        assert words.bound(verdict) == bound
    assert words.interval(_verdict(interval=(-math.inf, math.inf))) == "too few samples"


def test_table_shows_verdicts_first_and_leaves_out_what_was_not_measured(report: Report) -> None:
    judgement = _judgement(_verdict(), _verdict(FAIL, "p50_ms"), _verdict(INCONCLUSIVE, "p90_ms"))
    text = views.table(report, judgement)
    lines = text.splitlines()
    assert lines[0].startswith("fail: of 3 limits 1 broken, 1 inconclusive, 1 kept")
    assert [line.split()[0] for line in lines[3:6]] == ["fail", "inconclusive", "pass"]
    assert "energy" not in text and "device memory" not in text
    row = next(line for line in lines if line.startswith("fp32"))
    assert row.split()[:5] == ["fp32", "single-stream", "1x32", "2", "6"]
    assert "3.50" in row and "250" in row and "1,234" in row
    assert "note  hot" in lines and "commit 1a2b3c4d5e6f" in text


def test_table_of_scores_alone(report: Report) -> None:
    text = views.table(replace(report, runs=()))
    assert "cosine_mean" in text and "0.9975 to 0.9981" in text and "p50" not in text


def test_interval_of_a_score_lies_around_the_reference() -> None:
    row = Score("a", "sts", 0.82, 9, interval=(-0.01, 0.02), reference_value=0.83, difference=-0.01)
    assert words.score_interval(row) == pytest.approx((0.82, 0.85))


def test_markdown_begins_with_the_verdict_and_folds_the_rest(report: Report) -> None:
    text = views.markdown(report, _judgement(_verdict(FAIL)), baseline=report)
    first, blank, head, *_ = text.splitlines()
    assert first.startswith("❌ **edgessl gate** fail: of 1 limit 1 broken") and blank == ""
    assert head.startswith("|") and "limit is" in head
    assert text.count("<details>") == text.count("</details>") == 5
    assert "Nothing differs." in text and "unknown" not in text


def test_markdown_says_what_differs_from_the_baseline(report: Report) -> None:
    other = replace(report, environment={**report.environment, "versions": {"numpy": "1.26"}})
    text = views.markdown(report, _judgement(_verdict()), baseline=other)
    assert "versions numpy: 1.26 and 2.0" in text


def test_markdown_makes_no_markup_of_names(report: Report) -> None:
    subject = replace(report.subjects[0], name=NASTY)
    runs = tuple(replace(run, subject=NASTY) for run in report.runs[:1])
    nasty = replace(report, subjects=(subject,), runs=runs, scores=(), notes=(NASTY,))
    text = views.markdown(nasty, _judgement(_verdict(FAIL, subject=NASTY, reason=NASTY)))
    assert "<script" not in text and "@admin" not in text
    cells = text.splitlines()[4]
    assert len(re.findall(r"(?<!\\)\|", cells)) == 8  # seven cells, whatever is in them
    assert "\\[a\\]" in cells and "\\`x\\`" in cells


@pytest.mark.parametrize("count", [900, 3000])
def test_markdown_stays_below_githubs_limit(report: Report, count: int) -> None:
    """Kept limits go first: all that failed are there while there is room for them."""
    failed = [_verdict(FAIL, shape=f"{n}x1") for n in range(count // 9)]
    kept = [_verdict(PASS, shape=f"{n}x2") for n in range(count)]
    text = views.markdown(report, _judgement(*kept, *failed))
    assert 40_000 < len(text) < 65_536
    shown = text.count("❌ fail")
    assert shown == len(failed)
    passed = text.count("✅ pass")
    assert f"Too long for a comment: {count - passed} pass left out" in text


def test_markdown_cuts_failures_when_there_are_too_many(report: Report) -> None:
    failed = [_verdict(FAIL, shape=f"{n}x1", subject="a" * 150) for n in range(2000)]
    text = views.markdown(report, _judgement(*failed))
    assert len(text) < 65_536
    assert re.search(r"\d+ fail left out of this table", text)


def test_junit_keeps_to_the_schema(report: Report) -> None:
    """The rules of the Ant and Jenkins schemas: order, required attributes, counts that add up."""
    judgement = _judgement(
        _verdict(),
        _verdict(FAIL, "p50_ms"),
        _verdict(INCONCLUSIVE, "p90_ms"),
        _verdict(PASS, "p95_ms"),
    )
    top = ET.fromstring(views.junit(report, judgement))
    assert top.tag == "testsuites" and not top.attrib
    (suite,) = top
    assert {"name", "tests", "failures", "errors", "skipped", "time"} < suite.attrib.keys()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", suite.attrib["timestamp"])
    assert suite.attrib["hostname"] == "orin-1"
    tags = [child.tag for child in suite]
    assert tags == ["properties", *["testcase"] * 4, "system-out", "system-err"]
    cases = suite.findall("testcase")
    for case in cases:
        assert (
            case.attrib.keys() == {"name", "classname", "time"} and float(case.attrib["time"]) >= 0
        )
        assert len(case) <= 1
    assert suite.attrib["tests"] == "4" and suite.attrib["errors"] == "0"
    assert suite.attrib["failures"] == str(len(suite.findall("testcase/failure"))) == "1"
    assert suite.attrib["skipped"] == str(len(suite.findall("testcase/skipped"))) == "1"
    failure = suite.find("testcase/failure")
    assert failure is not None and failure.attrib.keys() == {"message", "type"}
    assert "2.31 ms" in failure.attrib["message"] and "limit: at most 2 ms" in (failure.text or "")
    skipped = suite.find("testcase/skipped")
    assert skipped is not None and skipped.attrib["message"].startswith("inconclusive: ")
    names = [(case.attrib["classname"], case.attrib["name"]) for case in cases]
    assert len(set(names)) == 4  # GitLab drops the second of a name
    values = {row.attrib["name"]: row.attrib["value"] for row in suite.iter("property")}
    assert values["verdict"] == "fail" and values["versions numpy"] == "2.0"


def test_junit_of_names_that_xml_cannot_hold(report: Report) -> None:
    verdict = _verdict(FAIL, subject=f"v1.5 {NASTY}\x00\x1b[31m\ud800", reason="a\x07b")
    text = views.junit(report, _judgement(verdict))
    case = ET.fromstring(text.encode()).find(".//testcase")
    assert case is not None
    for value in case.attrib.values():
        assert value == " ".join(value.split())  # xs:token
    assert case.attrib["classname"].count(".") == 1  # of a dot Jenkins makes a package
    assert "<script>" in case.attrib["name"]
