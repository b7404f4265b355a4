"""A first budgets.toml, drawn from what was measured: ``edgessl gate --init``."""

from __future__ import annotations

import glob
import json
import math
from collections.abc import Iterator, Sequence

from edgessl.errors import RecipeError
from edgessl.gate import quantities
from edgessl.gate.budget import LIMITS, Budgets, matches
from edgessl.gate.report import Report, Run, Score

_RELATIVE = 0.05  # a change that matters to a user and that minutes of measuring can tell
_LOSS = 0.01  # of a metric's value, where nothing was lost
_FIGURES = ("p50", "p99", "throughput", "cold_start", "memory", "device_memory", "size", "energy")
# what says nothing in a scenario, or is the load's own
_IDLE = {"offline": ("p50", "p99"), "single-stream": ("throughput",), "server": ("throughput",)}
_ONCE = ("cold_start", "size")  # the same in every scenario, and each limit costs certainty
_ROWS = {row.quantity: row for row in LIMITS.values() if row.kind == "absolute"}
_LEAST = [row for row in LIMITS.values() if row.name.startswith("min_")]


def starter(report: Report, headroom: float = 0.2) -> str:
    """The text of a budgets.toml that *report* keeps.

    Args:
        headroom: how much worse than measured the limits are, as a fraction; of a cosine, how
            much its distance from 1 may grow.

    Raises:
        RecipeError: nothing was measured, or *headroom* is not above 0.
    """
    if not 0 < headroom < math.inf:
        raise RecipeError(f"headroom is {headroom:g}; it should be above 0, such as 0.2.")
    lines = [
        f"# Limits drawn from a measurement, with {headroom:.0%} to spare. Give each the value that",
        "# your product needs, and take out what you do not care about.",
        f"confidence = {Budgets.confidence}  # of all verdicts of this file together",
    ]
    seen: set[str] = set()
    for run in report.runs:
        figures = [each for each in _FIGURES if not (each in _ONCE and run.subject in seen)]
        seen.add(run.subject)
        if limits := _of_run(report, run, figures, headroom):
            head = _head(report, run.subject, f"{run.scenario} {run.shape}")
            lines += [*head, *_globs({"scenario": run.scenario, "shape": run.shape}), *limits]
    for subject, data in dict.fromkeys((score.subject, score.data) for score in report.scores):
        scores = [each for each in report.scores if (each.subject, each.data) == (subject, data)]
        if limits := list(_of_scores(scores, headroom)):
            head = _head(report, subject, f"accuracy {data}".strip())
            lines += [*head, *_globs({"data": data}), *limits]
    if "[[budget]]" not in lines:
        raise RecipeError("the report has no figures to limit. Make one with: edgessl bench|eval")
    return "\n".join(lines) + "\n"


def _head(report: Report, subject: str, name: str) -> Iterator[str]:
    several = len(report.subjects) > 1
    yield from ("", "[[budget]]")
    yield f"name = {_quoted(f'{subject}: {name}' if several else name)}"
    device = {"device": str(report.environment.get("device") or "")}
    yield from _globs({**device, "subject": subject} if several else device)


def _globs(names: dict[str, str]) -> Iterator[str]:
    for key, name in names.items():
        if name.strip():
            yield f"{key} = {_quoted(glob.escape(name))}"


def _of_run(report: Report, run: Run, figures: Sequence[str], headroom: float) -> list[str]:
    """A line for each limit, with what was measured behind it."""
    lines, relative = [], []
    for figure in figures:
        row = _ROWS[figure]
        if figure == "size":
            value = quantities.size_mb(report.subject(run.subject))
        else:
            value = quantities.value(run, figure)
        if not value or figure in _IDLE.get(run.scenario, ()):
            continue
        bound = value / (1 + headroom) if row.higher_is_better else value * (1 + headroom)
        lines.append(f"{row.name} = {_rounded(bound)}  # measured: {value:.4g} {row.unit}")
        relative.append(f"{figure} = {_RELATIVE}")
    if lines:
        lines.append("# With --baseline, how much worse than that, without the #:")
        lines.append(f"# relative = {{ {', '.join(relative)} }}")
    return lines


def _of_scores(scores: Sequence[Score], headroom: float) -> Iterator[str]:
    least: dict[str, float] = {}
    drops = {}
    for score in scores:
        row = next((row for row in _LEAST if matches(row.quantity, score.metric)), None)
        if row is not None:
            least[row.name] = min(score.value, least.get(row.name, 1.0))
        elif score.difference is not None and score.metric.strip():
            drops[score.metric] = _drop(score, headroom)
    for name, value in least.items():
        bound = math.floor((1 - (1 - value) * (1 + headroom)) * 1e4) / 1e4
        if bound > 0:
            yield f"{name} = {bound:g}  # measured: {value:.4f}"
    pairs = [f"{_quoted(metric)} = {_rounded(drop)}" for metric, drop in drops.items() if drop]
    if pairs:
        yield f"max_drop = {{ {', '.join(pairs)} }}"


def _drop(score: Score, headroom: float) -> float:
    """The loss that the interval allows for; where that is none, a hundredth of the value."""
    low, high = score.interval or (score.difference or 0.0,) * 2
    worst = -low if score.higher_is_better else high
    return max(worst * (1 + headroom), abs(score.reference_value or score.value) * _LOSS)


def _rounded(value: float) -> str:
    """To three figures."""
    return f"{float(f'{value:.3g}'):g}"


def _quoted(text: str) -> str:
    """As TOML; what cannot be seen becomes ``?``, which fits any letter."""
    seen = "".join(letter if letter.isprintable() else "?" for letter in text)
    return json.dumps(seen, ensure_ascii=False)
