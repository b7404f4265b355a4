"""The noun ``Report``: raw samples and where they were taken, as JSON. All else is a view of it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from edgessl.errors import RecipeError

KIND = "edgessl-report"
SCHEMA_VERSION = 1

_Row = TypeVar("_Row")


@dataclass(frozen=True)
class Subject:
    """What was measured: a bundle, or any Python callable (``FILE.py:FACTORY``)."""

    name: str
    path: str  # as it was given
    size_bytes: int | None = None  # of all files of the bundle
    digest: str = ""  # of the manifest: two bundles with the same are the same, byte for byte
    variant: str = ""
    family: str = ""
    task: str = ""
    target: str = ""
    precision: str = ""


@dataclass(frozen=True)
class Round:
    """One visit of one subject, in a fresh process of its own.

    ``number``: visits of other subjects with the same number were interleaved with this one.
    ``latency_ns``: of each query, in order, whole nanoseconds. ``items``: how many texts, images,
    ... all queries had; ``busy_ns``: wall time in which they were done.
    ``cold_start_ns``: from the start of the process to its first vector.
    ``energy_mj``: millijoules an item. ``conditions``: what the machine was like meanwhile
    (``edgessl.gate.conditions.now``).
    """

    number: int
    latency_ns: tuple[int, ...]
    items: int
    busy_ns: int
    cold_start_ns: int | None = None
    memory_mb: float | None = None  # peak resident, 10**6 bytes
    device_memory_mb: float | None = None
    energy_mj: float | None = None
    conditions: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Run:
    """All rounds of one subject in one scenario with inputs of one shape.

    ``scenario``: ``single-stream``, ``multi-stream``, ``offline`` or ``server`` (MLPerf's words).
    ``shape``: ``"1x32"`` (items a query x tokens), ``"8"`` (items a query), or ``"corpus"``.
    ``settings``: what the session was opened with. ``facts``: what really ran, and figures that
    are of the whole run (``flops_per_item``, ``peak_flops``, ``peak_share``).
    """

    subject: str
    scenario: str
    shape: str
    rounds: tuple[Round, ...]
    settings: dict[str, Any] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str, str]:
        return (self.subject, self.scenario, self.shape)

    @property
    def latencies(self) -> list[int]:
        """Nanoseconds of every query of every round."""
        return [sample for visit in self.rounds for sample in visit.latency_ns]


@dataclass(frozen=True)
class Score:
    """One accuracy figure of one subject.

    ``metric``: ``cosine_mean``, ``cosine_p1``, ``cosine_min``, ``neighbours@10``,
    ``sts.spearman``, ``retrieval.ndcg@10``, ... ``difference``: value minus the reference's value
    on the same items, ``interval``: its 95 % interval (paired bootstrap). For metrics that are
    already a comparison with the reference (cosine, neighbours) ``reference_value`` is that of
    identical vectors.
    """

    subject: str
    metric: str
    value: float
    items: int
    data: str = ""  # name of the data set
    data_sha256: str = ""
    higher_is_better: bool = True
    interval: tuple[float, float] | None = None  # of ``difference``, or of ``value`` without one
    reference: str = ""  # name of the subject it was compared with
    reference_value: float | None = None
    difference: float | None = None
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str, str]:
        return (self.subject, self.metric, self.data)


@dataclass(frozen=True)
class Report:
    """``environment``: what ``edgessl.gate.conditions.environment`` returned."""

    environment: dict[str, Any]
    subjects: tuple[Subject, ...]
    runs: tuple[Run, ...] = ()
    scores: tuple[Score, ...] = ()
    created: str = ""  # ISO 8601, UTC
    commit: str = ""  # of the repository that the command ran in
    command: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()  # what a reader should know: throttling, missing meters, ...

    def dumps(self) -> str:
        """The report as JSON text; samples are written whole."""
        data = {"kind": KIND, "schema_version": SCHEMA_VERSION, **asdict(self)}
        return json.dumps(data, ensure_ascii=False, allow_nan=False) + "\n"

    def subject(self, name: str) -> Subject:
        return next(subject for subject in self.subjects if subject.name == name)


def read(path: Path) -> Report:
    """Read a report.

    Raises:
        RecipeError: no such file, not JSON or cut short, not a report, a report of another schema
            version, or samples that cannot be (NaN, infinite, negative, none at all).
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as err:
        reason = getattr(err, "strerror", None) or "not a text file"
        raise RecipeError(f"report {str(path)!r} cannot be read: {reason}.") from err
    return loads(text, str(path))


def loads(text: str, name: str = "report") -> Report:
    """As ``read``, of the JSON text; *name* is for messages."""
    try:
        data = json.loads(text)
    except ValueError as err:
        raise RecipeError(
            f"{name}: cut short, or not JSON ({err}). Measure again with: edgessl bench"
        ) from err
    if not isinstance(data, dict) or data.get("kind") != KIND:
        raise RecipeError(f"{name}: not a report of edgessl. Make one with: edgessl bench|eval")
    if data.get("schema_version") != SCHEMA_VERSION:
        raise RecipeError(
            f"{name}: report version {data.get('schema_version')}, this edgessl reads "
            f"{SCHEMA_VERSION}. Use the edgessl that wrote it, or measure again."
        )
    try:
        report = _from_json(data)
    except (KeyError, TypeError, ValueError, AttributeError) as err:
        raise RecipeError(f"{name}: not laid out as a report ({err}). Measure again.") from err
    check(report, name)
    return report


def check(report: Report, name: str = "report") -> None:
    """Refuse what no measurement can have given.

    Raises:
        RecipeError: says which run or score, and what is wrong with it.
    """
    known = {subject.name for subject in report.subjects}
    for run in report.runs:
        where = f"{name}: {' / '.join(run.key)}"
        _check(run.subject in known, where, "names a subject that the report does not have")
        _check(bool(run.rounds), where, "has no rounds")
        for visit in run.rounds:
            at = f"{where}, round {visit.number}"
            _check(bool(visit.latency_ns), at, "has no samples")
            for sample in visit.latency_ns:
                _check(
                    type(sample) is int and sample >= 0,
                    at,
                    f"has a latency of {sample!r} ns: the clock went backwards, or the file was "
                    "changed",
                )
            _check(_number(visit.busy_ns) and visit.busy_ns > 0, at, f"took {visit.busy_ns!r} ns")
            _check(type(visit.items) is int and visit.items > 0, at, f"has {visit.items!r} items")
            for unit in ("cold_start_ns", "memory_mb", "device_memory_mb", "energy_mj"):
                value = getattr(visit, unit)
                fine = value is None or (_number(value) and value >= 0)
                _check(fine, at, f"has {unit} {value!r}")
    keys = [run.key for run in report.runs] + [score.key for score in report.scores]
    for key in keys:
        _check(keys.count(key) == 1, f"{name}: {' / '.join(key)}", "is there twice")
    for score in report.scores:
        where = f"{name}: {' / '.join(score.key)}"
        _check(score.subject in known, where, "names a subject that the report does not have")
        numbers = [score.value, *(score.interval or ())]
        numbers += [x for x in (score.reference_value, score.difference) if x is not None]
        _check(all(map(_number, numbers)), where, f"is no number: {numbers}")


def merge(reports: Sequence[Report]) -> Report:
    """One report of several of the same machine: rounds are put after one another, and newer
    scores replace older ones. The caller sees to it that their environments agree."""
    first, *others = reports
    subjects = {subject.name: subject for subject in first.subjects}
    runs = {run.key: run for run in first.runs}
    scores = {score.key: score for score in first.scores}
    notes = dict.fromkeys(first.notes)
    for other in others:
        for subject in other.subjects:
            before = subjects.setdefault(subject.name, subject)
            if before.digest != subject.digest:
                raise RecipeError(
                    f"two different bundles are called {subject.name!r} in these reports: "
                    f"{before.path} and {subject.path}. Give one another name: NAME=PATH."
                )
        for run in other.runs:
            known = runs.get(run.key)
            runs[run.key] = (
                run
                if known is None
                else replace(
                    known, rounds=_numbered((*known.rounds, *run.rounds), len(known.rounds))
                )
            )
        scores.update((score.key, score) for score in other.scores)
        notes.update(dict.fromkeys(other.notes))
    return replace(
        first,
        subjects=tuple(subjects.values()),
        runs=tuple(runs.values()),
        scores=tuple(scores.values()),
        notes=tuple(notes),
    )


def _numbered(rounds: tuple[Round, ...], before: int) -> tuple[Round, ...]:
    """Numbers that go on where the first *before* rounds stop, unless they do already."""
    last = max(visit.number for visit in rounds[:before])
    shift = max(0, last + 1 - min(visit.number for visit in rounds[before:]))
    later = tuple(replace(visit, number=visit.number + shift) for visit in rounds[before:])
    return rounds[:before] + later


def _check(fine: bool, where: str, problem: str) -> None:
    if not fine:
        raise RecipeError(f"{where} {problem}. Measure again.")


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _from_json(data: Mapping[str, Any]) -> Report:
    fields = {name: value for name, value in data.items() if name not in ("kind", "schema_version")}
    fields["subjects"] = _rows(data["subjects"], lambda row: Subject(**row))
    fields["runs"] = _rows(data.get("runs", ()), _run)
    fields["scores"] = _rows(data.get("scores", ()), _score)
    for name in ("command", "notes"):
        fields[name] = tuple(data.get(name, ()))
    return Report(**fields)


def _rows(data: Any, make: Callable[[Mapping[str, Any]], _Row]) -> tuple[_Row, ...]:
    return tuple(make(row) for row in data)


def _run(data: Mapping[str, Any]) -> Run:
    rounds = (Round(**{**row, "latency_ns": tuple(row["latency_ns"])}) for row in data["rounds"])
    return Run(**{**data, "rounds": tuple(rounds)})


def _score(data: Mapping[str, Any]) -> Score:
    interval = data.get("interval")
    return Score(**{**data, "interval": None if interval is None else (interval[0], interval[1])})
