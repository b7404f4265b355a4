"""A verdict as a comment on a pull request: Markdown as GitHub and GitLab show it."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Sequence

from edgessl import tables
from edgessl.gate import conditions, words
from edgessl.gate.report import Report
from edgessl.gate.verdict import FAIL, INCONCLUSIVE, PASS, Judgement, Verdict
from edgessl.gate.views import rows

LIMIT = 65_536  # characters that GitHub takes
_ROOM = LIMIT - 1_536  # for what a bot puts around it
_SIGNS = {PASS: "✅", FAIL: "❌", INCONCLUSIVE: "❔"}
_CELL = 200  # characters of one name
_LINES = 60  # of notes, and of what differs


def markdown(
    report: Report, judgement: Judgement | None = None, baseline: Report | None = None
) -> str:
    """The verdict in one line, the limits, and folded up all that was measured and where.

    Stays below GitHub's 65,536 characters: limits that were kept are left out first, then details,
    then further limits; it says so.
    """
    folded = [*_measured(report), *_environment(report, baseline)]
    if judgement is None:
        return _fitted([f"**edgessl** {_text(words.origin(report))}"], folded)
    verdicts = words.ordered(judgement)
    if reasons := _reasons(verdicts):
        folded.insert(0, reasons)
    top = f"{_SIGNS[judgement.outcome]} **edgessl gate** {_text(words.headline(judgement))}"
    count = _most(len(verdicts), lambda shown: len(top) + len(_limits(verdicts, shown)) + 2)
    return _fitted([top, _limits(verdicts, count)], folded)


def _most(total: int, length: Callable[[int], int]) -> int:
    """The largest number of rows, up to *total*, of which the *length* still fits."""
    low, high = 0, total
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if length(middle) <= _ROOM else (low, middle - 1)
    return low


def _limits(verdicts: Sequence[Verdict], shown: int) -> str:
    """A table of the first *shown*, which are the ones that need a look, and what is left out."""
    head = ("", *rows.LIMITS_HEAD[1:])
    cells = []
    for verdict in verdicts[:shown]:
        outcome, *rest = rows.of_verdict(verdict)
        cells.append([f"{_SIGNS[outcome]} {outcome}", *map(_text, rest)])
    table = tables.markdown(head, cells, rows.LIMITS_LEFT)
    left = verdicts[shown:]
    if not left:
        return table
    counts = [
        f"{count} {outcome}"
        for outcome in words.OUTCOMES
        if (count := sum(verdict.outcome == outcome for verdict in left))
    ]
    return f"{table}\n\nToo long for a comment: {', '.join(counts)} left out of this table."


def _fitted(parts: list[str], folded: Sequence[str]) -> str:
    """*parts* and as many of *folded* as there is room for."""
    left_out = 0
    for block in folded:
        if sum(map(len, parts)) + 2 * len(parts) + len(block) <= _ROOM:
            parts.append(block)
        else:
            left_out += 1
    if left_out:
        parts.append("Too long for a comment: details left out; the HTML report has them.")
    return "\n\n".join(parts) + "\n"


def _reasons(verdicts: Sequence[Verdict]) -> str:
    lines = [
        f"- {verdict.outcome}: {_text(verdict.reason)}"
        for verdict in verdicts
        if verdict.outcome != PASS and verdict.reason
    ]
    return _fold("Why", _list(lines)) if lines else ""


def _measured(report: Report) -> list[str]:
    found = []
    for title, some, make, left in (
        ("Measurements", report.runs, rows.runs, rows.RUNS_LEFT),
        ("Accuracy", report.scores, rows.scores, rows.SCORES_LEFT),
    ):
        if some:
            head, cells = make(report)
            found.append(
                _fold(title, tables.markdown(head, [list(map(_text, row)) for row in cells], left))
            )
    return found


def _environment(report: Report, baseline: Report | None) -> list[str]:
    lines = [f"- {_text(name)}: {_text(value)}" for name, value in words.environment(report)]
    lines += [f"- note: {_text(note)}" for note in report.notes]
    found = [_fold(f"Environment: {_text(words.origin(report))}", _list(lines))]
    if baseline is not None:
        found_here = conditions.differences(baseline.environment, report.environment)
        differing = [f"- {_text(line)}" for line in found_here]
        said = _list(differing) if differing else "Nothing differs."
        title = f"Baseline: {_text(words.origin(baseline))}"
        found.append(_fold(title, f"What differs in its environment:\n\n{said}"))
    return found


def _list(lines: Sequence[str]) -> str:
    more = len(lines) - _LINES
    return "\n".join([*lines[:_LINES], *([f"- and {more} more"] if more > 0 else [])])


def _fold(title: str, body: str) -> str:
    return f"<details><summary>{title}</summary>\n\n{body}\n\n</details>"


def _text(text: str) -> str:
    """*text* as nothing but text: no markup, table cell border, mention or reference."""
    short = " ".join(text.split())
    short = short if len(short) <= _CELL else f"{short[: _CELL - 3]}..."
    escaped = html.escape(short, quote=False)
    escaped = re.sub(r"([\\`*_\[\]|~])", r"\\\1", escaped)
    # A zero-width space: a name that looks like a user's must not call for him.
    return re.sub(r"([@#])(?=\w)", "\\1\u200b", escaped)
