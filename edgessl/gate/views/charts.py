"""What of a report is drawn: plots as SVG text, each with a line that says what one sees."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from xml.etree import ElementTree as ET
from xml.etree.ElementTree import Element

import numpy as np

from edgessl.gate import quantities, words
from edgessl.gate.report import Round, Run, Score
from edgessl.gate.verdict import Verdict
from edgessl.gate.views import svg

POINTS = 120  # of a curve
ROUNDS = 60  # drawn in a plot
_HEIGHT = 250
_LEVELS = (1.0, 10.0, 50.0, 90.0, 99.0, 99.9)  # percent of the queries; the ends of the scale
_NORMAL = statistics.NormalDist()


@dataclass(frozen=True)
class Line:
    """One run as it is drawn. ``number``: of its subject, which gives colour and shape."""

    label: str
    number: int
    run: Run
    dashed: bool = False  # of the baseline

    @property
    def kind(self) -> str:
        return f"s{self.number % 8}{' dashed' if self.dashed else ''}"


@dataclass(frozen=True)
class Chart:
    """``picture``: SVG. ``caption``: how to read it."""

    title: str
    picture: str
    caption: str


def latencies(title: str, lines: Sequence[Line], limits: Sequence[Verdict]) -> Chart:
    """Cumulative distributions on a logarithmic axis, the tail stretched, limits drawn in."""
    curves = [_distribution(line.run) for line in lines]
    most = max(len(line.run.latencies) for line in lines)
    bounds = _bounds(limits)
    values = [value for ms, _ in curves for value in ms] + [ms for _, ms, _ in bounds]
    x = svg.axis(values, svg.LEFT, svg.RIGHT, log=True)
    y = svg.Axis(_height(_LEVELS[0]), _height(_LEVELS[-1]), _HEIGHT - svg.BOTTOM, svg.TOP)
    marks: list[Element] = []
    for line, (ms, heights) in zip(lines, curves, strict=True):
        points = [(x(value), y(height)) for value, height in zip(ms, heights, strict=True)]
        marks.append(svg.curve(points, f"stroke {line.kind}"))
        for name in ("p50", "p99"):
            value = quantities.value(line.run, name)
            if value is not None:
                at = (x(value), y(_height(100 * quantities.PERCENTILES[name])))
                title_ = f"{line.label}: {name} {words.with_unit(value, 'ms')}"
                marks.append(svg.mark(*at, line.number, f"fill {line.kind}", title_))
    marks += _limit_marks(bounds, x, y)
    levels = [(_height(percent), f"{percent:g}%") for percent in _LEVELS]
    marked = f"Marks: p50 and p99{'; bars: limits' if bounds else ''}."
    caption = f"Share of queries answered within the time, both tails stretched. {marked}"
    if most > POINTS:
        caption += f" Drawn through {POINTS} points of up to {most:,} samples."
    picture = svg.plot(x, y, _HEIGHT, "latency, ms", marks, f"{title}: {caption}", levels)
    return Chart(title, picture, caption)


def rounds(title: str, lines: Sequence[Line]) -> Chart:
    """The median of each round, to see drift, throttling or a bad quarter of a minute."""
    found = [[_spread(visit) for visit in _some(line.run.rounds)] for line in lines]
    values = [value for row in found for spread in row for value in spread[1:]]
    numbers = [spread[0] for row in found for spread in row]
    x = svg.axis(numbers, svg.LEFT, svg.RIGHT)
    y = svg.axis(values, _HEIGHT - svg.BOTTOM, svg.TOP)
    marks: list[Element] = []
    for place, (line, row) in enumerate(zip(lines, found, strict=True)):
        aside = 2.2 * (place - (len(lines) - 1) / 2)
        middles = []
        for number, low, middle, high in row:
            at = x(number) + aside
            middles.append((at, y(middle)))
            marks.append(svg.line(at, y(low), at, y(high), f"stroke thin {line.kind}"))
        marks.append(svg.curve(middles, f"stroke thin faint {line.kind}"))
        for at_x, at_y in middles:
            marks.append(svg.mark(at_x, at_y, line.number, f"fill {line.kind}", size=2.6))
    longest = max(len(line.run.rounds) for line in lines)
    every = f" {ROUNDS} of {longest} rounds are drawn." if longest > ROUNDS else ""
    caption = f"Median latency in ms of each round, with the middle half of its queries.{every}"
    whole = [(value, f"{value:g}") for value, _ in svg.ticks(x) if value == int(value)]
    label = f"{title}: {caption}"
    return Chart(title, svg.plot(x, y, _HEIGHT, "round", marks, label, x_ticks=whole), caption)


def accuracy(
    title: str, name: str, pairs: Sequence[tuple[Line, Score]], higher_is_better: bool
) -> Chart:
    """A score against the median latency, a mark a subject."""
    spots = [
        (line, row, quantities.value(line.run, "p50") or 0.0, words.score_interval(row))
        for line, row in pairs
    ]
    x = svg.axis([ms for _, _, ms, _ in spots], svg.LEFT, svg.RIGHT, log=True, spare=0.15)
    heights = [value for _, row, _, around in spots for value in (row.value, *(around or ()))]
    y = svg.axis(heights, _HEIGHT - svg.BOTTOM, svg.TOP, spare=0.12)
    marks: list[Element] = []
    for line, row, ms, around in spots:
        if around is not None:
            low, high = around
            marks.append(svg.line(x(ms), y(low), x(ms), y(high), f"stroke {line.kind}"))
        said = f"{line.label}: {words.score(row.value)} at {words.with_unit(ms, 'ms')}"
        marks.append(svg.mark(x(ms), y(row.value), line.number, f"fill {line.kind}", said, 6))
    better = "Upper" if higher_is_better else "Lower"
    caption = f"{name} against median latency, with 95 % intervals. {better} left is better."
    picture = svg.plot(x, y, _HEIGHT, "median latency, ms", marks, f"{title}: {caption}")
    return Chart(title, picture, caption)


def _distribution(run: Run) -> tuple[list[float], list[float]]:
    """ms, and the heights at which that share of the queries is drawn; at most ``POINTS``."""
    samples = np.asarray(run.latencies, np.float64) / 1e6
    bottom, top = _height(_LEVELS[0]), _height(_LEVELS[-1])
    if len(samples) <= POINTS:  # a step for each sample
        edges = [
            min(max(_height(100 * rank / len(samples)), bottom), top)
            for rank in range(len(samples) + 1)
        ]
        ms = np.sort(samples).repeat(2).tolist()
        return ms, [edges[(rank + 1) // 2] for rank in range(len(ms))]
    heights = np.linspace(bottom, top, POINTS).tolist()
    return np.quantile(samples, [_NORMAL.cdf(height) for height in heights]).tolist(), heights


def _height(percent: float) -> float:
    """Where *percent* of the queries lies on the scale of a normal distribution."""
    return _NORMAL.inv_cdf(min(max(percent / 100, 1e-9), 1 - 1e-9))


def _bounds(limits: Iterable[Verdict]) -> list[tuple[str, float, str]]:
    """Percentile, the latency in ms that it may have, and what the limit is called."""
    found = {}
    for verdict in limits:
        name = re.fullmatch(r"(?:relative\.)?(p\d+)(?:_ms)?", verdict.limit)
        if name is None or name[1] not in quantities.PERCENTILES:
            continue
        relative = verdict.limit.startswith("relative.")
        if relative and verdict.baseline is None:
            continue
        ms = (verdict.baseline or 0.0) * (1 + verdict.bound) if relative else verdict.bound
        found[name[1], round(ms, 9)] = f"{name[1]} limit{' (baseline)' if relative else ''}"
    return [(name, ms, said) for (name, ms), said in found.items()]


def _limit_marks(
    bounds: Sequence[tuple[str, float, str]], x: svg.Axis, y: svg.Axis
) -> list[Element]:
    """A bar across each percentile at its limit; names beside the outermost bar of a percentile."""
    marks: list[Element] = []
    for name, fraction in quantities.PERCENTILES.items():
        level = y(_height(100 * fraction))
        mine = sorted((ms, said) for percentile, ms, said in bounds if percentile == name)
        for ms, said in mine:
            bar = svg.line(x(ms), level - 13, x(ms), level + 13, "limit")
            ET.SubElement(bar, "title").text = f"{said}: {words.with_unit(ms, 'ms')}"
            marks.append(bar)
        if not mine:
            continue
        first, last = x(mine[0][0]), x(mine[-1][0])
        left = (first + last) / 2 > (svg.LEFT + svg.RIGHT) / 2
        at, anchor = (first - 6, "end") if left else (last + 6, "start")
        # more than two are told apart by their titles
        for (_, said), row in zip(mine, (level - 6, level + 15), strict=False):
            marks.append(svg.text(at, row, said, "limit-name", anchor))
    return marks


def _some(visits: Sequence[Round]) -> Sequence[Round]:
    """At most ``ROUNDS``, evenly drawn."""
    step = max(1, math.ceil(len(visits) / ROUNDS))
    return visits[::step]


def _spread(visit: Round) -> tuple[float, float, float, float]:
    low, middle, high = np.quantile(visit.latency_ns, (0.25, 0.5, 0.75)) / 1e6
    return visit.number, float(low), float(middle), float(high)
