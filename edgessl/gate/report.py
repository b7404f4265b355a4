"""The noun ``Report``: raw samples and where they were taken, as JSON. All else is a view of it."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from edgessl.errors import RecipeError
from edgessl.gate import layout

KIND = "edgessl-report"
SCHEMA_VERSION = 1
_GROUPS = ("machine", "clock", "power", "versions")  # of an environment, see ``conditions``


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
            version, or samples that cannot be (NaN, infinite, negative, none at all). One line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as err:  # not UTF-8, a name that can be none
        reason = getattr(err, "strerror", None) or "not a text file"
        raise RecipeError(f"report {str(path)!r} cannot be read: {reason}.") from err
    return loads(text, str(path))


def loads(text: str, name: str = "report") -> Report:
    """As ``read``, of the JSON text; *name* is for messages."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as err:
        raise RecipeError(
            f"{name}: cut short, or not JSON ({err}). Measure again with: edgessl bench"
        ) from err
    if not isinstance(data, dict) or data.get("kind") != KIND:
        raise RecipeError(f"{name}: not a report of edgessl. Make one with: edgessl bench|eval")
    version = data.get("schema_version")
    if type(version) is not int or version != SCHEMA_VERSION:
        raise RecipeError(
            f"{name}: report version {layout.shown(version)}, this edgessl reads "
            f"{SCHEMA_VERSION}. Use the edgessl that wrote it, or measure again."
        )
    try:
        del data["kind"], data["schema_version"]
        report = layout.build(Report, data)
    except (ValueError, RecursionError) as err:
        raise RecipeError(f"{name}: not laid out as a report ({err}). Measure again.") from err
    check(report, name)
    return report


def check(report: Report, name: str = "report") -> None:
    """Refuse what no measurement can have given.

    Raises:
        RecipeError: says which run or score, and what is wrong with it.
    """
    known = {subject.name for subject in report.subjects}
    names = [(subject.name,) for subject in report.subjects]
    keys = [run.key for run in report.runs] + [score.key for score in report.scores]
    for key, times in Counter([*names, *keys]).items():
        _check(times == 1, f"{name}: {' / '.join(key)}", "is there twice")
    for group in _GROUPS:
        _check(
            isinstance(report.environment.get(group, {}), dict),
            f"{name}: environment.{group}",
            "is no object",
        )
    for subject in report.subjects:
        fine = subject.name.isprintable() and bool(subject.name.strip())
        where = f"{name}: subject {subject.name!r}"
        _check(fine, where, "has no name that can be shown")
        size = subject.size_bytes
        _check(size is None or size >= 0, where, f"has {size} bytes")
    for run in report.runs:
        where = f"{name}: {' / '.join(run.key)}"
        _check(run.subject in known, where, "names a subject that the report does not have")
        _check(bool(run.rounds), where, "has no rounds")
        for number, times in Counter(visit.number for visit in run.rounds).items():
            _check(number >= 0, where, f"has a round {number}")
            _check(times == 1, f"{where}, round {number}", "is there twice")
        for visit in run.rounds:
            _check_round(visit, f"{where}, round {visit.number}")
    for score in report.scores:
        where = f"{name}: {' / '.join(score.key)}"
        _check(score.subject in known, where, "names a subject that the report does not have")
        numbers = [score.value, *(score.interval or ())]
        numbers += [x for x in (score.reference_value, score.difference) if x is not None]
        _check(all(map(_number, numbers)), where, f"is no number: {numbers}")
        low, high = score.interval or (0, 0)
        _check(low <= high, where, f"has the interval {low} to {high}")
        _check(score.items > 0, where, f"has {score.items} items")
        quantiles = score.facts.get("quantiles", {})
        fine = isinstance(quantiles, dict) and all(map(_number, quantiles.values()))
        _check(fine and all(map(_probability, quantiles)), where, "has quantiles that are none")


def _check_round(visit: Round, at: str) -> None:
    _check(bool(visit.latency_ns), at, "has no samples")
    impossible = [x for x in visit.latency_ns if type(x) is not int or x < 0]
    _check(
        not impossible,
        at,
        f"has a latency of {impossible[:1]} ns: the clock went backwards, or the file was changed",
    )
    _check(_number(visit.busy_ns) and visit.busy_ns > 0, at, f"took {visit.busy_ns!r} ns")
    _check(type(visit.items) is int and visit.items > 0, at, f"has {visit.items!r} items")
    for unit in ("cold_start_ns", "memory_mb", "device_memory_mb", "energy_mj"):
        value = getattr(visit, unit)
        fine = value is None or (_number(value) and value >= 0)
        _check(fine, at, f"has {unit} {value!r}")


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


def _probability(text: str) -> bool:
    try:
        return 0 <= float(text) <= 1
    except ValueError:
        return False


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
