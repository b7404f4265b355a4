"""A figure over many reports, machine by machine, with its change points."""

from __future__ import annotations

import math
from collections.abc import Sequence
from xml.etree.ElementTree import Element

from edgessl.gate import words
from edgessl.gate.history.series import Change, Series
from edgessl.gate.views import svg
from edgessl.gate.views.charts import Chart

POINTS = 300  # the newest reports that are drawn
_HEIGHT = 250
_SPARK = "▁▂▃▄▅▆▇█"


def chart(several: Sequence[Series]) -> Chart:
    """Series of one figure, each measured on another machine, on one axis of reports."""
    first = several[0]
    order = sorted({(p.created, p.report) for series in several for p in series.points})[-POINTS:]
    place = {report: number for number, (_, report) in enumerate(order)}
    drawn = [p for series in several for p in series.points if p.report in place]
    x = svg.Axis(-0.5, max(len(order) - 0.5, 0.5), svg.LEFT, svg.RIGHT)
    y = svg.axis([p.value for p in drawn], _HEIGHT - svg.BOTTOM, svg.TOP + 14, spare=0.1)
    marks: list[Element] = []
    taken: list[float] = []
    for number, series in enumerate(several):
        marks += _series(series, number, place, x, y)
        marks += _steps(series, place, x, taken)
    unit = f", {first.unit}" if first.unit else ""
    caption = f"{first.metric}{unit} of each report, oldest left."
    if any(series.changes for series in several):
        caption += " Dotted: where the level changed, and by how much."
    if len(several) > 1:
        caption += " Machines are not compared with one another."
    total = sum(len(series.points) for series in several)
    if total > len(drawn):
        caption += f" The newest {len(drawn)} of {total} reports are drawn."
    names = _names(several, place)
    picture = svg.plot(
        x, y, _HEIGHT, "report (commit)", marks, f"{first.title}: {caption}", x_ticks=names
    )
    return Chart(first.title, picture, caption)


def spark(series: Series, last: int = 40) -> str:
    """The newest values as a row of small bars, for a terminal."""
    values = [point.value for point in series.points[-last:]]
    low, high = min(values), max(values)
    if high == low:
        return _SPARK[3] * len(values)
    return "".join(_SPARK[round((value - low) / (high - low) * 7)] for value in values)


def change_words(series: Series, change: Change) -> str:
    """``11.0% worse``."""
    share = words.change(series.worse(change))
    return share if math.isfinite(change.ratio) else "no longer 0"


def _series(
    series: Series, number: int, place: dict[int, int], x: svg.Axis, y: svg.Axis
) -> list[Element]:
    kind = f"s{number % 8}"
    points = [point for point in series.points if point.report in place]
    marks = [_level(levels, kind, place, x, y) for levels in _levels(series)]
    if len(points) > 1:
        path = [(x(place[point.report]), y(point.value)) for point in points]
        marks.append(svg.curve(path, f"stroke thin faint {kind}"))
    for point in points:
        said = words.joined(
            (words.with_unit(point.value, series.unit), point.commit[:12], point.created)
        )
        at = (x(place[point.report]), y(point.value))
        marks.append(svg.mark(*at, number, f"fill {kind}", said, 3.2))
    return [mark for mark in marks if mark is not None]


def _levels(series: Series) -> list[tuple[list[int], float]]:
    """The reports between two changes, and their median."""
    if not series.changes:
        return []
    cuts = [0, *(change.at for change in series.changes), len(series.points)]
    values = [series.changes[0].before, *(change.after for change in series.changes)]
    return [
        ([point.report for point in series.points[begin:end]], value)
        for begin, end, value in zip(cuts, cuts[1:], values, strict=False)
    ]


def _level(
    level: tuple[list[int], float], kind: str, place: dict[int, int], x: svg.Axis, y: svg.Axis
) -> Element | None:
    reports, value = level
    shown = [place[report] for report in reports if report in place]
    if not shown:
        return None
    return svg.line(x(shown[0]), y(value), x(shown[-1]), y(value), f"stroke level {kind}")


def _steps(series: Series, place: dict[int, int], x: svg.Axis, taken: list[float]) -> list[Element]:
    marks = []
    for change in series.changes:
        report = series.points[change.at].report
        if report not in place:
            continue
        at = x(place[report] - 0.5)
        marks.append(svg.line(at, svg.TOP + 8, at, _HEIGHT - svg.BOTTOM, "step"))
        if all(abs(at - other) > 92 for other in taken):
            taken.append(at)
            anchor = "end" if at > svg.RIGHT - 45 else "middle"
            marks.append(
                svg.text(at, svg.TOP + 2, change_words(series, change), "step-name", anchor)
            )
    return marks


def _names(several: Sequence[Series], place: dict[int, int]) -> list[svg.Tick]:
    """Short commits at the ends and at changes; ``svg.plot`` leaves out what would overlap."""
    points = {p.report: p for series in several for p in series.points if p.report in place}
    changed = {
        place[series.points[change.at].report]
        for series in several
        for change in series.changes
        if series.points[change.at].report in place
    }
    ordered = sorted(points, key=place.__getitem__)
    wanted = {0, len(ordered) - 1, *changed} if ordered else set()
    return [
        (place[report], points[report].commit[:7] or points[report].created[:10])
        for report in ordered
        if place[report] in wanted
    ]
