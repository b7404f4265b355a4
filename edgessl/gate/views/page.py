"""One HTML file that holds everything: for a browser, a phone and a printer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgessl import __version__
from edgessl.errors import require
from edgessl.gate import conditions, quantities, words
from edgessl.gate.budget import LIMITS
from edgessl.gate.history.series import Series
from edgessl.gate.report import Report, Score
from edgessl.gate.verdict import FAIL, INCONCLUSIVE, PASS, Judgement, Verdict
from edgessl.gate.views import charts, rows, svg, timeline
from edgessl.gate.views.charts import Chart, Line

_SIGNS = {PASS: "✓", FAIL: "✗", INCONCLUSIVE: "?"}
_BARS = ("cold_start", "memory", "device_memory", "size")
_CHARTS = 24  # of one kind


@dataclass(frozen=True)
class Entry:
    """A line of a legend; ``key``: SVG."""

    key: str
    label: str
    said: str = ""


@dataclass(frozen=True)
class Card:
    chart: Chart
    legend: tuple[Entry, ...]


@dataclass(frozen=True)
class Shown:
    """A report on the page, and the name of each of its subjects there."""

    report: Report
    names: dict[str, str]
    number: dict[str, int]
    baseline: bool = False

    def line(self, run: Any) -> Line:
        return Line(self.names[run.subject], self.number[run.subject], run, self.baseline)


def html(
    reports: Sequence[Report],
    judgement: Judgement | None = None,
    baseline: Report | None = None,
    history: Sequence[Series] = (),
) -> str:
    """The page. It loads nothing, follows the reader's light or dark setting, and prints on A4.

    Args:
        reports: one, or several that are shown beside each other.
        judgement: verdicts on the first of them.
        history: series that are drawn over time.

    Raises:
        MissingDependency: jinja2 is not installed.
    """
    jinja2 = require("jinja2", "gate", "an HTML report")
    shown = _shown(reports, baseline)
    verdicts = words.ordered(judgement) if judgement else []
    context = {
        "version": __version__,
        "title": _title(reports, judgement),
        "origins": [words.origin(report) for report in reports],
        "signs": _SIGNS,
        "judgement": judgement,
        "headline": words.headline(judgement) if judgement else "",
        "limits_head": rows.LIMITS_HEAD,
        "limits": rows.limits(judgement) if judgement else [],
        "reasons": [f"{v.limit}, {v.subject}: {v.reason}" for v in verdicts if v.outcome != PASS],
        "notes": list(dict.fromkeys(note for report in reports for note in report.notes)),
        "latency": _latency(shown, verdicts),
        "tables": _tables(shown),
        "accuracy": _accuracy(shown),
        "bars": _bars(shown),
        "history": _history(history),
        "places": _places(reports, baseline),
    }
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(
        loader=loader, autoescape=True, trim_blocks=True, undefined=jinja2.StrictUndefined
    )
    return str(environment.get_template("page.html.jinja").render(context))


def _title(reports: Sequence[Report], judgement: Judgement | None) -> str:
    names = list(dict.fromkeys(s.name for report in reports for s in report.subjects))
    kind = "edgessl gate" if judgement else "edgessl report" if reports else "edgessl history"
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return f"{kind}: {', '.join(names[:4])}{more}" if names else kind


def _shown(reports: Sequence[Report], baseline: Report | None) -> list[Shown]:
    """Names that tell subjects of several reports apart, and a colour for each."""
    numbers: dict[str, int] = {}
    found = []
    for report, tag in zip(reports, _tags(reports), strict=True):
        names = {s.name: f"{s.name} ({tag})" if tag else s.name for s in report.subjects}
        number = {s: numbers.setdefault(name, len(numbers)) for s, name in names.items()}
        found.append(Shown(report, names, number))
    if baseline is not None:
        names = {s.name: f"{s.name} (baseline)" for s in baseline.subjects}
        number = {
            s.name: numbers.get(s.name, numbers.setdefault(names[s.name], len(numbers)))
            for s in baseline.subjects
        }
        found.append(Shown(baseline, names, number, baseline=True))
    return found


def _tags(reports: Sequence[Report]) -> list[str]:
    """What tells one report from the others; nothing where there is only one."""
    if len(reports) < 2:
        return ["" for _ in reports]
    ways = (
        [str(report.environment.get("device") or "") for report in reports],
        [str(report.environment.get("host") or "") for report in reports],
        [report.commit[:9] for report in reports],
        [report.created for report in reports],
    )
    for tags in ways:
        if all(tags) and len(set(tags)) == len(tags):
            return tags
    return [f"report {number}" for number in range(1, len(reports) + 1)]


def _latency(shown: Sequence[Shown], verdicts: Sequence[Verdict]) -> list[Card]:
    groups: dict[tuple[str, str], list[Line]] = {}
    for each in shown:
        for run in each.report.runs:
            groups.setdefault((run.scenario, run.shape), []).append(each.line(run))
    found = []
    for (scenario, shape), lines in groups.items():
        limits = [v for v in verdicts if (v.scenario, v.shape) == (scenario, shape)]
        legend = tuple(_entry(line, *_percentiles(line)) for line in lines)
        title = f"{scenario}, {shape}"
        found.append(Card(charts.latencies(title, lines, limits), legend))
        if any(len(line.run.rounds) > 1 for line in lines):
            plain = tuple(_entry(line) for line in lines)
            found.append(Card(charts.rounds(f"{title}: rounds", lines), plain))
    return found[:_CHARTS]


def _percentiles(line: Line) -> list[str]:
    return [
        f"{name} {words.with_unit(value, 'ms')}"
        for name in ("p50", "p99")
        if (value := quantities.value(line.run, name)) is not None
    ]


def _entry(line: Line, *said: str) -> Entry:
    return Entry(svg.key(line.number, line.kind), line.label, ", ".join(said))


def _tables(shown: Sequence[Shown]) -> Iterable[tuple[str, int, list[str], list[list[str]]]]:
    for heading, left, make in (
        ("Measurements", rows.RUNS_LEFT, rows.runs),
        ("Accuracy", rows.SCORES_LEFT, rows.scores),
    ):
        for each in shown:
            head, cells = make(each.report)
            if cells:
                if each.baseline:
                    yield f"{heading} of the baseline", left, head, cells
                else:
                    named = [[each.names[subject], *rest] for subject, *rest in cells]
                    yield heading, left, head, named


def _accuracy(shown: Sequence[Shown]) -> list[Card]:
    """A plot for each score of two or more subjects whose latency is known."""
    groups: dict[tuple[str, str], list[tuple[Line, Score]]] = {}
    for each in shown:
        first = {run.subject: run for run in reversed(each.report.runs)}
        for score in _with_references(each.report.scores):
            if score.subject in first:
                pair = (each.line(first[score.subject]), score)
                groups.setdefault((score.metric, score.data), []).append(pair)
    found = []
    for (metric, data), pairs in groups.items():
        if len(pairs) < 2:
            continue
        title = f"{metric}, {data}" if data else metric
        chart = charts.accuracy(title, metric, pairs, pairs[0][1].higher_is_better)
        legend = tuple(_entry(line, words.score(score.value)) for line, score in pairs)
        found.append(Card(chart, legend))
    return found[:_CHARTS]


def _with_references(scores: Sequence[Score]) -> Iterable[Score]:
    """*scores*, and what is known of the subjects that they were compared with."""
    known = {score.key for score in scores}
    for score in scores:
        yield score
        other, value = score.reference, score.reference_value
        key = (other, score.metric, score.data)
        if value is not None and key not in known:
            known.add(key)
            yield replace(score, subject=other, value=value, interval=None, difference=None)


def _bars(shown: Sequence[Shown]) -> list[tuple[str, str, list[dict[str, str]]]]:
    found = []
    for name in _BARS:
        unit = LIMITS[f"relative.{name}"].unit
        values = [
            (each, subject.name, value)
            for each in shown
            for subject in each.report.subjects
            if (value := _of_subject(each.report, subject.name, name)) is not None
        ]
        most = max((value for _, _, value in values), default=0.0)
        bars = [
            {
                "label": each.names[subject],
                "value": words.with_unit(value, unit),
                "kind": f"s{each.number[subject] % 8}",
                "percent": f"{100 * value / most if most else 0:.1f}",
            }
            for each, subject, value in values
        ]
        if bars:
            title = name.replace("_", " ").capitalize()
            found.append((title, LIMITS[f"relative.{name}"].about, bars))
    return found


def _of_subject(report: Report, subject: str, name: str) -> float | None:
    """Of all that was measured of a subject, whatever the scenario."""
    if name == "size":
        return quantities.size_mb(report.subject(subject))
    runs = [run for run in report.runs if run.subject == subject]
    if not runs:
        return None
    visits = tuple(visit for run in runs for visit in run.rounds)
    every = tuple(replace(visit, number=number) for number, visit in enumerate(visits))
    return quantities.value(replace(runs[0], rounds=every), name)


def _history(history: Sequence[Series]) -> list[Card]:
    groups: dict[tuple[str, ...], list[Series]] = {}
    for series in history:
        groups.setdefault(series.key, []).append(series)
    found = []
    for several in groups.values():
        legend = tuple(
            Entry(
                svg.key(number, f"s{number % 8}"), series.machine, f"{len(series.points)} reports"
            )
            for number, series in enumerate(several)
        )
        found.append(Card(timeline.chart(several), legend))
    return found[:_CHARTS]


def _places(
    reports: Sequence[Report], baseline: Report | None
) -> Iterable[tuple[str, list[tuple[str, str]], str]]:
    for report, tag in zip(reports, _tags(reports), strict=True):
        facts = words.environment(report)
        about = {
            "created": report.created,
            "commit": report.commit,
            "command": " ".join(report.command),
        }
        facts += [(name, value) for name, value in about.items() if value]
        yield f"Environment{f' ({tag})' if tag else ''}", facts, ""
    if baseline is not None:
        differing = conditions.differences(baseline.environment, reports[0].environment)
        lead = f"{words.origin(baseline)}. In its environment "
        lead += f"differ: {'; '.join(differing)}." if differing else "nothing differs."
        yield "Baseline", [], lead
