"""Series out of a store: only what was measured under the same conditions lies on one line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgessl.errors import RecipeError, nearest
from edgessl.gate import conditions
from edgessl.gate.history import changes, store
from edgessl.gate.history.series import Change, Point, Series

_KEY = ("subject", "scenario", "shape", "data", "metric")


def series(
    path: Path,
    metric: str = "p50",
    subject: str = "",
    scenario: str = "",
    shape: str = "",
    data: str = "",
) -> list[Series]:
    """Every series of *metric* in the store, with its changes; empty arguments mean any.

    A report whose environment or settings differ from those of a series begins another one
    (``edgessl.gate.conditions.differences``).

    Raises:
        RecipeError: nothing of that kind is in the store (names what is); and as
            ``store.figures``.
    """
    asked = dict(zip(_KEY, (subject, scenario, shape, data, metric), strict=True))
    wanted = {name: value for name, value in asked.items() if value}
    rows = store.figures(path, wanted)
    if not rows:
        raise RecipeError(_nothing(path, wanted))
    groups: dict[tuple[str, ...], list[list[dict[str, Any]]]] = {}
    for row in rows:
        row["environment"] = json.loads(row["environment"])
        lines = groups.setdefault(tuple(row[name] for name in _KEY), [])
        alike = next((line for line in lines if not _differences(line[-1], row)), None)
        if alike is None:
            lines.append([row])
        else:
            alike.append(row)
    return [_series(line, lines[0][0]) for lines in groups.values() for line in lines]


def _differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Why figures of the two do not compare. A size is the same everywhere."""
    if one["metric"] == "size":
        return []
    found = conditions.differences(one["environment"], other["environment"])
    if one["settings"] != other["settings"]:
        found = [*found, f"settings {other['settings']}, before {one['settings']}"]
    return found


def _series(line: Sequence[dict[str, Any]], first: dict[str, Any]) -> Series:
    points = tuple(
        Point(*(row[name] for name in ("report", "created", "commit", "value", "low", "high")))
        for row in line
    )
    row = line[-1]
    known = [str(row["environment"].get(name) or "") for name in ("device", "host")]
    return Series(
        **{name: row[name] for name in _KEY},
        unit=row["unit"],
        higher_is_better=bool(row["higher_is_better"]),
        points=points,
        machine=", ".join(filter(None, known)) or "unknown machine",
        differs=tuple(_differences(first, line[0])),
        environment=row["environment"],
        changes=changes.find(
            [point.value for point in points], changes.LEAST if row["unit"] else 0
        ),
    )


def _nothing(path: Path, wanted: dict[str, str]) -> str:
    """Names the first thing asked for that no report has, and what there is instead."""
    every = store.figures(path, {})
    if not every:
        return f"{path} is empty. Add reports with: edgessl history add {path} REPORT"
    for name, value in wanted.items():
        there = sorted({str(row[name]) for row in every if row[name]})
        if value not in there:
            return (
                f"{path} has no {name} {value!r}.{nearest(value, there)} "
                f"There is: {', '.join(there) or 'none'}."
            )
    said = ", ".join(f"{name} {value!r}" for name, value in wanted.items())
    return f"{path} has nothing with {said} together."


def newest(found: Sequence[Series]) -> list[Series]:
    """Of the series of each figure, the one that the newest report is in."""
    latest: dict[tuple[str, ...], Series] = {}
    for one in found:
        other = latest.get(one.key)
        if other is None or _end(one) > _end(other):
            latest[one.key] = one
    return list(latest.values())


def worsened(one: Series, last: int, worse: float) -> list[Change]:
    """Changes among its *last* reports that are for the worse by more than *worse*, a fraction."""
    begin = len(one.points) - last
    return [change for change in one.changes if change.at >= begin and one.worse(change) > worse]


def _end(one: Series) -> tuple[str, int]:
    point = one.points[-1]
    return (point.created, point.report)
