"""The HTML report: whole, self-contained, safe, and small enough."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from edgessl.gate import quantities, views
from edgessl.gate.history.series import Change, Point, Series
from edgessl.gate.report import Report, Score
from edgessl.gate.verdict import FAIL, PASS, Judgement, Verdict
from edgessl.gate.views import charts, svg
from tests import measured

_VOID = {"meta", "link", "br", "img", "input", "hr"}


class Page(HTMLParser):
    """Checks that tags are closed in order; collects tags, attributes and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str, kind: str = "") -> Iterator[dict[str, str | None]]:
        for name, facts in self.tags:
            if name == tag and kind in (facts.get("class") or "").split(" "):
                yield facts


def _report(*names: str, rounds: int = 3) -> Report:
    rng = np.random.default_rng(0)
    runs = [measured.run(name, rng, rounds, 1.0 + at) for at, name in enumerate(names)]
    scores = tuple(
        Score(name, "cosine_mean", 0.99 + at / 200, 50, "reviews", interval=(0.98, 1.0))
        for at, name in enumerate(names)
    )
    return replace(measured.report(*runs, scores=scores), created="2026-11-20T17:02:11+00:00")


def _judgement(*limits: tuple[str, float, str]) -> Judgement:
    verdicts = tuple(
        Verdict(
            "b", name, bound, "int8", outcome, f"why {name}", 1.0, (0.9, 1.1), "ms",
            "single-stream", "1x32", baseline=1.0,
        )
        for name, bound, outcome in limits
    )  # fmt: skip
    return Judgement(verdicts, 0.99)


def _series(**facts: object) -> Series:
    points = tuple(
        Point(n, f"2026-11-{n + 1:02d}", f"{n:040x}", 2.0 if n < 6 else 2.4, 1.9, 2.5)
        for n in range(10)
    )
    given = {"points": points, "changes": (Change(6, 2.0, 2.4),), "machine": "pi", **facts}
    return Series("int8", "p50", "ms", False, scenario="single-stream", shape="1x32", **given)  # type: ignore[arg-type]


def test_a_gate_in_full() -> None:
    report = _report("int8", "fp32")
    judgement = _judgement(("p99_ms", 1.5, FAIL), ("relative.p50", 0.05, PASS))
    page = Page(views.html([report], judgement, report, [_series()]))
    for heading in ("Limits", "Latency", "Measurements", "Accuracy against latency", "Memory",
                    "History", "Environment", "Baseline"):  # fmt: skip
        assert heading in page.text
    assert "why p99_ms" in page.text and "why relative.p50" not in page.text  # it passed
    assert len(list(page.all("section", "fail"))) == 1
    assert "p99 limit" in page.text and "p50 limit (baseline)" in page.text
    assert "20.0% worse" in page.text  # the change point of the history
    assert len(list(page.all("line", "limit"))) == 2
    assert all(facts["aria-label"] for facts in page.all("svg") if "role" in facts)


def test_nothing_is_loaded_from_elsewhere() -> None:
    text = views.html([_report("int8")], _judgement(("p99_ms", 1.5, FAIL)))
    page = Page(text)
    assert not {tag for tag, _ in page.tags} & {"script", "link", "img", "iframe", "object"}
    for _, facts in page.tags:
        assert not facts.keys() & {"src", "href", "srcset", "action"}
        assert not any(name.startswith("on") for name in facts)
    assert not re.search(r"https?:|url\(|@import", text)


def test_names_are_only_text() -> None:
    nasty = "<script>alert(1)</script>\"'><img src=x onerror=y>"
    report = replace(_report(nasty, "b"), notes=(nasty,), commit=nasty, command=("x", nasty))
    report = replace(report, environment={**report.environment, nasty: nasty, "device": nasty})
    judgement = replace(
        _judgement(("p99_ms", 1.5, FAIL)),
        verdicts=tuple(
            replace(v, subject=nasty, reason=nasty)
            for v in _judgement(("p99_ms", 1.5, FAIL)).verdicts
        ),
    )
    series = _series(
        machine=nasty, points=tuple(replace(p, commit=nasty) for p in _series().points)
    )
    text = views.html([report, report], judgement, report, [series])
    assert "<script" not in text and "<img" not in text
    assert nasty in Page(text).text


@pytest.mark.parametrize(
    "report",
    [
        replace(_report("a", "b"), runs=()),
        replace(_report("a", "b"), scores=()),
        _report("a", rounds=1),
        replace(_report("a"), runs=()),
        measured.report(replace(measured.run("a", np.random.default_rng(0)), rounds=(measured.visit(0, [1.0]),))),
        measured.report(replace(measured.run("a", np.random.default_rng(0)), rounds=(measured.visit(7, [0.0]),))),
    ],
    ids=["scores", "runs", "one round", "one score", "one sample", "a sample of 0"],
)  # fmt: skip
def test_reports_that_lack_something(report: Report) -> None:
    text = views.html([report])
    Page(text)
    assert "nan" not in text.lower().replace("resonance", "") and "inf," not in text
    assert ("Latency</h2>" in text) == bool(report.runs)


def test_accuracy_is_drawn_beside_what_it_was_compared_with() -> None:
    """One subject has a score; that of its reference is known all the same."""
    score = Score("int8", "cosine_mean", 0.997, 50, reference="fp32", reference_value=1.0)
    text = views.html([replace(_report("int8", "fp32"), scores=(score,))])
    assert re.search(r"<title>int8: 0.9970 at (1.0|0.9)", text)
    assert re.search(r"<title>fp32: 1.000000 at (2.0|1.9)", text)
    alone = replace(_report("int8"), scores=(score,))
    assert "Accuracy against latency" not in views.html([alone])


def test_several_reports_are_told_apart() -> None:
    pi = replace(_report("int8"), environment={**measured.HERE, "device": "Raspberry Pi 5"})
    text = Page(views.html([_report("int8"), pi])).text
    assert "int8 (Jetson Orin)" in text and "int8 (Raspberry Pi 5)" in text
    same = Page(views.html([_report("int8"), _report("int8")])).text
    assert "int8 (report 1)" in same and "int8 (report 2)" in same


def test_a_large_report_makes_a_small_page_fast() -> None:
    rng = np.random.default_rng(0)
    rounds = [measured.visit(n, rng.lognormal(0, 0.3, 2000)) for n in range(30)]
    runs = [replace(measured.run(name, rng), rounds=tuple(rounds)) for name in ("a", "b")]
    report = measured.report(*runs)
    began = time.perf_counter()
    text = views.html([report])
    assert time.perf_counter() - began < 5
    assert len(text) < 200_000
    assert "Drawn through 120 points of up to 60,000 samples." in text


def test_the_curve_is_the_distribution() -> None:
    """Of known samples the curve passes where the percentiles are."""
    samples = np.exp(np.random.default_rng(1).normal(0, 0.5, 20_000))
    run = replace(measured.run("a", np.random.default_rng(0)), rounds=(measured.visit(0, samples),))
    chart = charts.latencies("t", [charts.Line("a", 0, run)], [])
    path = re.search(r'd="M([^"]*)"', chart.picture)
    assert path is not None
    points = np.array([[float(x) for x in pair.split()] for pair in path[1].split("L")])
    assert (np.diff(points[:, 0]) >= 0).all() and (np.diff(points[:, 1]) <= 0).all()
    # p50 and p99 were marked by their own computation: the curve goes through the marks
    marks = re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"', chart.picture)
    assert len(marks) == 2
    for x, y in ((float(x), float(y)) for x, y in marks):
        there = np.interp(x, points[:, 0], points[:, 1])
        assert there == pytest.approx(y, abs=1.5)
    value = quantities.value(run, "p99")
    assert value is not None and f"p99 {value:.2f} ms" in chart.picture


@pytest.mark.parametrize(
    "low,high", [(0.9, 1.1), (0.05, 300.0), (1.0, 1.0), (2.0, 5.0), (1e-6, 1e4)]
)
@pytest.mark.parametrize("log", [True, False])
def test_ticks_are_few_round_and_inside(low: float, high: float, log: bool) -> None:
    axis = svg.axis([low, high], 50, 370, log)
    ticks = svg.ticks(axis)
    assert 1 <= len(ticks) <= 7
    assert all(axis.low <= value <= axis.high for value, _ in ticks)
    names = [name for _, name in ticks]
    assert len(set(names)) == len(names)
    for value, name in ticks:
        assert float(name.replace(",", "")) == pytest.approx(value)


def _label_boxes(picture: str) -> Iterator[tuple[float, float, float]]:
    for x, y, anchor, name in re.findall(
        r'<text x="([\d.]+)" y="([\d.]+)" class="tick" text-anchor="(\w+)">([^<]*)', picture
    ):
        if anchor == "middle":
            half = len(name) * 7.5 / 2
            yield float(y), float(x) - half, float(x) + half


@pytest.mark.parametrize("count,changes", [(1, ()), (2, ()), (500, (3, 4, 5, 250, 255, 498))])
def test_history_labels_do_not_overlap(count: int, changes: Sequence[int]) -> None:
    points = tuple(Point(n, f"{n:05d}", f"{n:07d}abc", 1.0 + n % 3, 1.0, 2.0) for n in range(count))
    series = _series(points=points, changes=tuple(Change(at, 1.0, 1.5) for at in changes))
    text = views.html(
        [], history=[series, replace(series, machine="other", points=points[:1], changes=())]
    )
    Page(text)
    boxes = sorted(_label_boxes(text))
    assert boxes and all(0 <= left and right <= svg.WIDTH for _, left, right in boxes)
    for (y1, _, right), (y2, left, _) in zip(boxes, boxes[1:], strict=False):
        assert y1 != y2 or right < left
    assert ("The newest 300 of" in text) == (count > 300)
