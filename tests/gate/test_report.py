"""Reports: what was measured comes back as it was; whatever else a file holds is one clear line."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgessl.errors import RecipeError
from edgessl.gate import report
from edgessl.gate.report import Report, Round, Run, Score, Subject

SMALL = Report(
    environment={"device": "Jetson Orin", "host": "nano", "cores": 6},
    subjects=(
        Subject("ours", "ours/", 25_000_000, "d1", "v1", "bert", "text", "onnx", "int8"),
        Subject("factory", "model.py:make"),
    ),
    runs=(
        Run(
            "ours",
            "single-stream",
            "1x32",
            (
                Round(0, (1_000_000, 1_100_000, 5_000_000), 3, 7_200_000, 900_000_000, 120.5),
                Round(1, (1_000_001,), 1, 1_000_100, None, None, 512.0, 4.25, {"load": 0.5}),
            ),
            {"threads": 2},
            {"provider": "CPU"},
        ),
        Run("factory", "offline", "8", (Round(0, (0, 7), 16, 10),)),
    ),
    scores=(
        Score("ours", "cosine_mean", 0.998, 500, "sts", "ab12", interval=(0.997, 0.999)),
        Score("ours", "sts.spearman", 0.82, 500, difference=-0.001, reference_value=0.821),
    ),
    created="2026-11-20T12:00:00Z",
    commit="abc",
    command=("edgessl", "bench", "ours/"),
    notes=("throttled in round 1", "Grüße, 日本"),
)
DATA: dict[str, Any] = json.loads(SMALL.dumps())


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text(SMALL.dumps(), encoding="utf-8")
    assert report.read(path) == SMALL
    assert report.loads(SMALL.dumps()) == SMALL
    assert SMALL.runs[0].latencies == [1_000_000, 1_100_000, 5_000_000, 1_000_001]


def test_a_file_cut_short_anywhere_is_refused() -> None:
    text = SMALL.dumps().rstrip("\n")
    for end in range(len(text)):
        with pytest.raises(RecipeError, match="^nano.json: "):
            report.loads(text[:end], "nano.json")


def test_not_a_file(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"cannot be read: No such file or directory\."):
        report.read(tmp_path / "none.json")
    with pytest.raises(RecipeError, match=r"cannot be read: Is a directory\."):
        report.read(tmp_path)
    text = SMALL.dumps().encode()
    (tmp_path / "cut.json").write_bytes(text[: text.index("日".encode()) + 1])
    with pytest.raises(RecipeError, match=r"cannot be read: not a text file\."):
        report.read(tmp_path / "cut.json")
    with pytest.raises(RecipeError, match="cannot be read"):
        report.read(Path("a\0b"))


@pytest.mark.parametrize(
    ("version", "said"), [(2, "2"), (0, "0"), (None, "None"), ("1", "'1'"), (True, "True")]
)
def test_another_schema_version_is_refused_by_name(version: object, said: str) -> None:
    text = json.dumps({**DATA, "schema_version": version})
    with pytest.raises(RecipeError, match=f"report version {said}, this edgessl reads 1"):
        report.loads(text)


@pytest.mark.parametrize(
    "text", ["{}", "[]", "3", "null", '"x"', '{"kind": "other"}', "", "[" * 9999]
)
def test_json_that_is_no_report(text: str) -> None:
    with pytest.raises(RecipeError, match="^x.json: "):
        report.loads(text, "x.json")


def changed(path: tuple[str | int, ...], value: object) -> str:
    data = copy.deepcopy(DATA)
    place: Any = data
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return json.dumps(data)


ROUND = ("runs", 0, "rounds", 0)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (
            (*ROUND, "latency_ns"),
            [1, math.nan],
            r"runs\[0\]\.rounds\[0\]\.latency_ns\[1\] is nan; it should be a whole number",
        ),
        ((*ROUND, "latency_ns"), [math.inf], r"latency_ns\[0\] is inf; it should be a whole"),
        (
            (*ROUND, "latency_ns"),
            [-5],
            r"1x32, round 0 has a latency of \[-5\] ns: the clock went backwards",
        ),
        ((*ROUND, "latency_ns"), [1.5], r"latency_ns\[0\] is 1\.5; it should be a whole"),
        ((*ROUND, "latency_ns"), [True], r"latency_ns\[0\] is True; it should be a whole"),
        ((*ROUND, "latency_ns"), ["1"], r"latency_ns\[0\] is '1'; it should be a whole"),
        ((*ROUND, "latency_ns"), [10**400], r"latency_ns\[0\] is 10000.*; it should be a whole"),
        ((*ROUND, "latency_ns"), [], "has no samples"),
        ((*ROUND, "latency_ns"), 5, "latency_ns is 5; it should be a list"),
        ((*ROUND, "latency_ns"), "12", "latency_ns is '12'; it should be a list"),
        ((*ROUND, "busy_ns"), 0, "took 0 ns"),
        ((*ROUND, "busy_ns"), math.nan, "busy_ns is nan; it should be a whole number"),
        ((*ROUND, "busy_ns"), 10**400, "busy_ns is 1000.*; it should be a whole number"),
        ((*ROUND, "items"), 0, "has 0 items"),
        ((*ROUND, "items"), 2.5, "items is 2.5; it should be a whole number"),
        ((*ROUND, "items"), 10**400, "items is 1000.*; it should be a whole number"),
        ((*ROUND, "number"), "0", "number is '0'; it should be a whole number"),
        ((*ROUND, "number"), -1, "round -1"),
        ((*ROUND, "number"), 1, "round 1 is there twice"),
        ((*ROUND, "memory_mb"), -1, "has memory_mb -1"),
        ((*ROUND, "memory_mb"), math.inf, "memory_mb is inf; it should be a finite number"),
        ((*ROUND, "energy_mj"), True, "energy_mj is True; it should be a finite number"),
        ((*ROUND, "cold_start_ns"), "9", "cold_start_ns is '9'; it should be a whole number"),
        ((*ROUND, "conditions"), [], "not laid out as a report"),
        ((*ROUND, "what"), 1, "not laid out as a report .*what"),
        (("runs", 0, "rounds"), [], "has no rounds"),
        (("runs", 0, "rounds"), {}, r"runs\[0\]\.rounds is {}; it should be a list"),
        (("runs", 0, "rounds"), None, "not laid out as a report"),
        (("runs", 0, "subject"), "theirs", "names a subject that the report does not have"),
        (("runs", 0, "subject"), 3, "not laid out as a report"),
        (("runs", 0, "subject"), [], "not laid out as a report"),
        (("runs", 0, "facts"), 3, "not laid out as a report"),
        (("runs", 1), DATA["runs"][0], "ours / single-stream / 1x32 is there twice"),
        (("runs",), {"a": 1}, "not laid out as a report"),
        (("runs",), None, "not laid out as a report"),
        (("subjects", 1), DATA["subjects"][0], "nano.json: ours is there twice"),
        (("subjects", 0, "size_bytes"), "25", "size_bytes is '25'; it should be a whole number"),
        (("subjects", 0, "size_bytes"), -25, "subject 'ours' has -25 bytes"),
        (("subjects", 0, "name"), None, "not laid out as a report"),
        (("subjects", 0, "name"), "a\nb", r"subject 'a\\nb' has no name that can be shown"),
        (("subjects", 0, "path"), "\ud800", r"subjects\[0\]\.path is .*; it should be text"),
        (("environment", "loads"), [1, math.nan], r"environment\.loads\[1\] is nan"),
        (("subjects",), [3], "not laid out as a report"),
        (("environment",), [], "not laid out as a report"),
        (("environment",), None, "not laid out as a report"),
        (("scores", 0, "value"), math.nan, r"scores\[0\]\.value is nan; it should be a finite"),
        (("scores", 0, "value"), "0.9", "value is '0.9'; it should be a finite number"),
        (("scores", 0, "value"), 10**400, "value is 1000.*; it should be a finite number"),
        (("scores", 0, "interval"), [0.1], r"interval is \[0\.1\]; it should be a list of 2"),
        (("scores", 0, "interval"), [0.1, 0.2, 0.3], "not laid out as a report"),
        (("scores", 0, "interval"), [0.9, 0.1], "has the interval 0.9 to 0.1"),
        (
            ("scores", 0, "interval"),
            [0.1, math.inf],
            r"interval\[1\] is inf; it should be a finite",
        ),
        (("scores", 0, "items"), 0, "has 0 items"),
        (("scores", 0, "higher_is_better"), 0, "not laid out as a report"),
        (("scores", 0, "subject"), "theirs", "names a subject that the report does not have"),
        (("scores", 1), DATA["scores"][0], "ours / cosine_mean / sts is there twice"),
        (("notes",), "throttled", "not laid out as a report"),
        (("notes",), [1], "not laid out as a report"),
        (("command",), 3, "not laid out as a report"),
        (("created",), 3, "not laid out as a report"),
        (("more",), 3, "not laid out as a report .*more"),
    ],
)
def test_refused(path: tuple[str | int, ...], value: object, message: str) -> None:
    with pytest.raises(RecipeError, match=message) as caught:
        report.loads(changed(path, value), "nano.json")
    assert str(caught.value).startswith("nano.json: ")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


@pytest.mark.parametrize("name", ["environment", "subjects"])
def test_what_every_report_has(name: str) -> None:
    data = {key: value for key, value in DATA.items() if key != name}
    with pytest.raises(RecipeError, match=f"not laid out as a report .*{name}"):
        report.loads(json.dumps(data))


def test_what_a_report_may_leave_out() -> None:
    kept = {name: DATA[name] for name in ("kind", "schema_version", "environment", "subjects")}
    assert report.loads(json.dumps(kept)) == Report(SMALL.environment, SMALL.subjects)


_ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.sampled_from([10**400, -(10**30), math.nan, math.inf, -math.inf, 1e308, 1e99, 5e-324, ""]),
    st.floats(),
    st.text(max_size=4),
    st.lists(st.integers(-2, 2), max_size=3),
    st.dictionaries(st.sampled_from(["name", "number", "x"]), st.integers(), max_size=2),
)


def _paths(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    inner: list[tuple[str | int, Any]] = []
    if isinstance(value, dict):
        inner = list(value.items())
    elif isinstance(value, list):
        inner = list(enumerate(value))
    return [path, *(p for step, child in inner for p in _paths(child, (*path, step)))]


@settings(max_examples=250, deadline=None)
@given(data=st.data())
def test_json_changed_anywhere_is_a_report_or_refused(data: Any) -> None:
    value = copy.deepcopy(DATA)
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from(_paths(value)[1:]))
        place: Any = value
        for step in path[:-1]:
            place = place[step]
        if data.draw(st.booleans()):
            place[path[-1]] = data.draw(_ODD)
        else:
            del place[path[-1]]
    _report_or_refused(json.dumps(value))


@settings(max_examples=100, deadline=None)
@given(start=st.integers(0, len(SMALL.dumps())), length=st.integers(0, 9), new=st.text(max_size=4))
def test_text_changed_anywhere_is_a_report_or_refused(start: int, length: int, new: str) -> None:
    text = SMALL.dumps()
    _report_or_refused(text[:start] + new + text[start + length :])


def _report_or_refused(text: str) -> None:
    """What is accepted can be worked with: written, read again, merged with itself."""
    try:
        found = report.loads(text, "nano.json")
    except RecipeError as err:
        assert str(err).startswith("nano.json: ") and len(str(err)) < 400
        return
    assert report.loads(found.dumps()) == found
    for run in found.runs:
        assert all(type(sample) is int and sample >= 0 for sample in run.latencies)
        assert math.isfinite(sum(visit.items / visit.busy_ns for visit in run.rounds))
        assert found.subject(run.subject).name == run.subject
    assert all(math.isfinite(score.value) for score in found.scores)
    merged = report.merge([found, found])
    report.check(merged)
    assert [len(run.rounds) for run in merged.runs] == [2 * len(run.rounds) for run in found.runs]


def test_rounds_that_are_merged_go_on_counting() -> None:
    run = SMALL.runs[0]
    shifted = tuple(replace(visit, number=visit.number + 2) for visit in run.rounds)
    later = replace(SMALL, runs=(replace(run, rounds=shifted),))
    for second in (SMALL, later):  # counted from 0 again, or on from the first
        merged = report.merge([SMALL, second])
        assert [visit.number for visit in merged.runs[0].rounds] == [0, 1, 2, 3]
        assert merged.runs[0].rounds[2].latency_ns == run.rounds[0].latency_ns


def test_two_bundles_of_one_name_are_not_merged() -> None:
    other = replace(
        SMALL, subjects=(replace(SMALL.subjects[0], digest="d2", path="theirs/"),), runs=()
    )
    with pytest.raises(RecipeError, match="two different bundles are called 'ours'.*NAME=PATH"):
        report.merge([SMALL, replace(other, scores=())])


def test_newer_scores_replace_older_ones() -> None:
    newer = replace(SMALL.scores[0], value=0.5)
    later = replace(SMALL, runs=(), scores=(newer,), notes=("throttled in round 1", "b"))
    merged = report.merge([SMALL, later])
    assert merged.scores == (newer, SMALL.scores[1])
    assert merged.notes == (*SMALL.notes, "b")


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("environment", "machine"), 3, "environment.machine is no object"),
        (("scores", 0, "facts"), {"quantiles": 3}, "cosine_mean / sts has quantiles that are none"),
        (("scores", 0, "facts"), {"quantiles": {"a": 1}}, "has quantiles that are none"),
        (("scores", 0, "facts"), {"quantiles": {"0.5": "a"}}, "has quantiles that are none"),
        (("scores", 0, "facts"), {"quantiles": {"nan": 1}}, "has quantiles that are none"),
        (("scores", 0, "value"), 1e200, "value is 1e.200; it should be a finite number"),
    ],
)
def test_what_a_judge_could_not_read_is_refused(
    path: tuple[str | int, ...], value: object, message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        report.loads(changed(path, value))
