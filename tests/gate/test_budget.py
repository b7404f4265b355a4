"""budgets.toml: every limit arrives, what is wrong is named, and no text does anything else."""

from __future__ import annotations

import importlib
import json
import math
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgessl.errors import RecipeError
from edgessl.gate import budget, budget_schema
from edgessl.gate.budget import LIMITS, Budget, Budgets, Limit

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FULL = """
confidence = 0.95
job_noise = "20%"

[[budget]]
name = "one text"
device = "jetson-*"
subject = "minilm*"
scenario = "single-stream"
shape = "1x32"
data = "sts*"
p50_ms = 1
p90_ms = 1.5
p95_ms = 1.75
p99_ms = 2.0
cold_start_ms = 900
memory_mb = 300
device_memory_mb = 500
size_mb = 25
energy_mj = 4.5
throughput = 1_000
min_cosine = 0.99
min_cosine_p1 = 0.98
min_cosine_min = 0.9
min_neighbours = 0.95
max_drop = { "sts.spearman" = 0.5, accuracy = 1 }

[budget.relative]
p50 = 0.05
p90 = "5%"
p95 = "7.5 %"
p99 = 0.1
throughput = 0.05
cold_start = 0.2
memory = 0.1
device_memory = 0.1
size = 0.01
energy = 0.1

[[budget]]
p99_ms = 2.0
"""
ONE = "[[budget]]\n"


def read(folder: Path, text: str | bytes) -> Budgets:
    path = folder / "budgets.toml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return budget.read(path)


def test_every_limit_has_a_key(tmp_path: Path) -> None:
    found = read(tmp_path, FULL)
    path = str(tmp_path / "budgets.toml")
    full, second = found.budgets
    assert found == Budgets(path, (full, second), confidence=0.95, job_noise=0.2)
    assert second == Budget("budget 2", (Limit("absolute", "p99_ms", 2.0),))
    assert replace(full, limits=()) == Budget(
        "one text", (), "jetson-*", "minilm*", "single-stream", "1x32", "sts*"
    )
    assert {limit.called: limit.bound for limit in full.limits} == {
        "p50_ms": 1,
        "p90_ms": 1.5,
        "p95_ms": 1.75,
        "p99_ms": 2,
        "cold_start_ms": 900,
        "memory_mb": 300,
        "device_memory_mb": 500,
        "size_mb": 25,
        "energy_mj": 4.5,
        "throughput": 1000,
        "min_cosine": 0.99,
        "min_cosine_p1": 0.98,
        "min_cosine_min": 0.9,
        "min_neighbours": 0.95,
        "max_drop.sts.spearman": 0.5,
        "max_drop.accuracy": 1,
        "relative.p50": 0.05,
        "relative.p90": 0.05,
        "relative.p95": 0.075,
        "relative.p99": 0.1,
        "relative.throughput": 0.05,
        "relative.cold_start": 0.2,
        "relative.memory": 0.1,
        "relative.device_memory": 0.1,
        "relative.size": 0.01,
        "relative.energy": 0.1,
    }
    rows = [budget.known(limit) for limit in full.limits]
    assert {id(row) for row in rows} == {id(row) for row in LIMITS.values()}
    assert all(
        (row.kind, row.name) == (limit.kind, limit.name)
        for row, limit in zip(rows, full.limits, strict=True)
    )
    assert all(type(limit.bound) is float for limit in full.limits)


def test_what_is_read_by_default(tmp_path: Path) -> None:
    found = read(tmp_path, ONE + "size_mb = 25")
    assert (found.confidence, found.job_noise) == (0.99, 0.03)
    assert found.budgets[0] == Budget("budget 1", (Limit("absolute", "size_mb", 25),))
    assert read(tmp_path, b"\xef\xbb\xbf" + b"[[budget]]\nsize_mb = 25") == found  # with a BOM


def test_which_way_is_better() -> None:
    higher = {name for name, row in LIMITS.items() if row.higher_is_better}
    assert higher == {
        "throughput",
        "relative.throughput",
        "min_cosine",
        "min_cosine_p1",
        "min_cosine_min",
        "min_neighbours",
        "max_drop",
    }


@pytest.mark.parametrize(
    ("pattern", "environment", "fits"),
    [
        ("*", {}, True),
        ("*", {"device": None, "host": None}, True),
        ("jetson-*", {"device": "Jetson-Orin", "host": "x"}, True),
        ("JETSON-*", {"device": "x", "host": "jetson-1"}, True),
        ("jetson-?", {"device": "jetson-12", "host": "jetson"}, False),
        ("jetson", {}, False),
    ],
)
def test_for_device(pattern: str, environment: dict[str, Any], fits: bool) -> None:
    assert budget.for_device(Budget("b", (), device=pattern), environment) is fits


def test_matches() -> None:
    assert budget.matches("1x*", "1x32") and budget.matches("MiniLM-*", "minilm-INT8")
    assert budget.matches(LIMITS["min_neighbours"].quantity, "neighbours@10")
    assert not budget.matches("1x3", "1x32")
    assert not budget.matches("offline\n", "offline")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"no budgets\. Each begins with a line \[\[budget\]\]"),
        ("# nothing\n", "no budgets"),
        ("confidence = 0.9", "no budgets"),
        ("budget = []", "no budgets"),
        ("[budget]\np50_ms = 1", "no budgets"),
        ("budget = [3]", r"\[\[budget\]\] 1 is 3; it should be a table"),
        ("p50_ms = 1", r"p50_ms stands before the first line \[\[budget\]\]"),
        ("[relative]\np50 = 0.1", r"relative stands before the first line \[\[budget\]\]"),
        ("[[budgets]]\np50_ms = 1", "unknown key 'budgets'. Did you mean 'budget'?"),
        (ONE, r"\[\[budget\]\] 1 has no limits"),
        (ONE + "name = 'x'\nrelative = {}", r"\[\[budget\]\] 1 \('x'\) has no limits"),
        (ONE + "p50_ms = 1\n" + ONE + "p95ms = 1", r"2: unknown key 'p95ms'\. .*mean 'p95_ms'"),
        (ONE + "p50 = 1", r"unknown key 'p50'\. Did you mean 'p50_ms'\? Keys: name, device"),
        (ONE + "zzzzzz = 1", r"unknown key 'zzzzzz'\. Keys: name, device"),
        (ONE + "relative = { p50_ms = 0.1 }", r"relative: unknown key 'p50_ms'\. .*mean 'p50'"),
        (ONE + "relative = 0.05", "relative is 0.05; it should be a table"),
        (ONE + "relative = { p50 = 5 }", r"relative\.p50 is 5; write 5 % as 0\.05"),
        (ONE + "relative = { p50 = '120%' }", r"relative\.p50 is 1\.2; write 5 %"),
        (
            ONE + "relative = { p50 = '5' }",
            r"""relative\.p50 is '5'; write 5 % as 0\.05 or "5%"\.""",
        ),
        (ONE + "relative = { p50 = '-5%' }", r"relative\.p50 is '-5%'; write 5 %"),
        (ONE + "relative = { p50 = '0%' }", r"relative\.p50 is 0; it should be above 0"),
        (ONE + 'relative = { p50 = "5%\\n" }', r"relative\.p50 is '5%\\n'; write 5 %"),
        (ONE + "p50_ms = '1'", "p50_ms is '1'; it should be a number"),
        (ONE + "p50_ms = true", "p50_ms is True; it should be a number"),
        (ONE + "p50_ms = [1]", r"p50_ms is \[1\]; it should be a number"),
        (ONE + "p50_ms = 1979-05-27", "p50_ms is datetime.*; it should be a number"),
        (ONE + "p50_ms = nan", "p50_ms is nan; it should be above 0 and finite"),
        (ONE + "p50_ms = inf", "p50_ms is inf; it should be above 0"),
        (ONE + "p50_ms = 1e999", "p50_ms is inf; it should be above 0"),
        (ONE + f"p50_ms = 1{'0' * 400}", "p50_ms is inf; it should be above 0"),
        (ONE + f"p50_ms = 0x{'f' * 5000}", "p50_ms is inf; it should be above 0"),
        (ONE + f"p50_ms = [0x{'f' * 5000}]", "p50_ms is a very large number; it should be a num"),
        (ONE + "p50_ms = -1", "p50_ms is -1; it should be above 0"),
        (ONE + "throughput = 0", "throughput is 0; it should be above 0"),
        (ONE + "min_cosine = 1.5", "min_cosine is 1.5, more than 1"),
        (ONE + "max_drop = 0.5", "max_drop is 0.5; it should be a table"),
        (ONE + "max_drop = { accuracy = 0.0 }", r"max_drop\.accuracy is 0; it should be above 0"),
        (ONE + "max_drop = { '' = 1 }", r"max_drop is ''; it should be text"),
        (ONE + "max_drop.sts.spearman = 1", r'max_drop\.sts: quote a metric .* "sts\.spearman"'),
        (ONE + "p50_ms = 1\nname = 3", "name is 3; it should be text"),
        (ONE + "p50_ms = 1\nname = ' '", "name is ' '; it should be text"),
        (ONE + 'p50_ms = 1\nname = "a\\nb"', r"name is 'a\\nb'; it should be text, on one line"),
        (ONE + "p50_ms = 1\nshape = 8", "shape is 8; it should be text"),
        (ONE + "p50_ms = 1\nscenario = 'singlestream'", r"no scenario .*mean 'single-stream'\?"),
        (ONE + "p50_ms = 1\nscenario = 'batch*'", "Scenarios: single-stream, multi-stream"),
        (2 * (ONE + "p50_ms = 1\nname = 'x'\n"), r"\[\[budget\]\] 2: an earlier one is called 'x'"),
        (ONE + "p50_ms = 1\nname = 'budget 2'\n" + ONE + "p50_ms = 1", "2: an earlier one is"),
        ("confidence = 1\n" + ONE + "p50_ms = 1", "confidence is 1; it should be at least 0.8"),
        ("confidence = 0.5\n" + ONE + "p50_ms = 1", "confidence is 0.5; it should be at least 0.8"),
        ("confidence = '99%'\n" + ONE + "p50_ms = 1", "confidence is '99%'; it should be a number"),
        ("job_noise = 10\n" + ONE + "p50_ms = 1", "job_noise is 10; write 5 %"),
        (ONE + "p50_ms = 1\np50_ms = 2", "not TOML: "),
        (ONE + "p50_ms = \n", r"not TOML: .*line 2"),
        (ONE + f"p50_ms = {'9' * 5000}", r"budgets.toml"),
        ("a = " + "[" * 100_000, r"not TOML: "),
        (b"\xff\xfe", r"not UTF-8 text \(byte 0\)"),
    ],
)
def test_refused(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(RecipeError, match=message) as caught:
        read(tmp_path, text)
    assert "budgets.toml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_not_a_file(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"nothing.toml': No such file or directory\."):
        budget.read(tmp_path / "nothing.toml")
    with pytest.raises(RecipeError, match=r"': Is a directory\."):
        budget.read(tmp_path)
    with pytest.raises(RecipeError, match="null"):
        budget.read(Path("a\0b"))


# what is found in such files, and what breaks parsers
_PIECES = st.sampled_from(
    [*"[]{}=\"'.,#\n \\%-+_0123456789", "[[budget]]\n", "[budget]", "nan", "-inf", "1e400", "true"]
    + ["p99_ms", "relative", "max_drop", "'5%'", "0x" + "f" * 5000, "1979-05-27", "{a=1}", "\0"]
)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_no_text_gives_anything_but_budgets_or_one_line(tmp_path: Path, data: Any) -> None:
    text = data.draw(st.sampled_from([FULL, ONE + "p50_ms = 1\n", ""]))
    for _ in range(data.draw(st.integers(0, 4))):
        start = data.draw(st.integers(0, len(text)))
        length = data.draw(st.integers(0, 12))
        new = data.draw(st.one_of(_PIECES, st.text(st.characters(exclude_categories=["Cs"]))))
        text = text[:start] + new + text[start + length :]
    _check(tmp_path, text.encode())


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(content=st.binary(max_size=60))
def test_nor_do_any_bytes(tmp_path: Path, content: bytes) -> None:
    _check(tmp_path, content)


def test_nor_does_a_file_that_is_cut_short(tmp_path: Path) -> None:
    for end in range(0, len(FULL), 3):
        _check(tmp_path, FULL[:end].encode())


def _check(folder: Path, content: bytes) -> None:
    try:
        found = read(folder, content)
    except RecipeError as err:
        assert str(err).isprintable() or "not TOML" in str(err)
        return
    limits = [limit for row in found.budgets for limit in row.limits]
    assert limits and all(row.limits for row in found.budgets)
    assert all(math.isfinite(limit.bound) and limit.bound > 0 for limit in limits)
    assert len({row.name for row in found.budgets}) == len(found.budgets)
    assert 0.8 <= found.confidence < 1 and 0 < found.job_noise <= 1


def test_the_schema_in_the_package_is_the_one_of_the_table() -> None:
    file = Path(budget.__file__).with_name("budgets.schema.json")
    assert file.read_text(encoding="utf-8") == budget_schema.text()


_VALUES = [
    "1",
    "0.5",
    "0",
    "-1",
    "2",
    "true",
    "'5%'",
    "'5'",
    "''",
    "'x'",
    "{}",
    "{ p50 = 0.1 }",
] + [
    "[1]",
    "{ 'sts.spearman' = 0.5 }",
    "{ p50 = '5%' }",
    "{ p50 = 2 }",
    "{ p50 = '5' }",
    "'single-stream'",
]
_KEYS = [*LIMITS, *budget.GLOBS, "name", "relative", "unknown"]


def test_the_schema_accepts_what_the_reader_accepts(tmp_path: Path) -> None:
    validator = importlib.import_module("jsonschema").Draft7Validator
    validator.check_schema(budget_schema.schema())
    check = validator(budget_schema.schema())
    texts = [FULL, "", "confidence = 0.9", "[budget]\np50_ms = 1", "[[budgets]]", ONE]
    texts += [f"confidence = {c}\n{ONE}p50_ms = 1" for c in (0.7, 0.8, 0.999, 1, "'0.9'")]
    texts += [f"job_noise = {n}\n{ONE}p50_ms = 1" for n in (0, 0.1, 1, 2, "'5%'", "'5'")]
    texts += [f"{ONE}{key} = {value}" for key in _KEYS if "." not in key for value in _VALUES]
    texts += [f"{ONE}size_mb = 1\n{key} = {value}" for key in budget.GLOBS for value in _VALUES]
    verdicts = []
    for text in texts:
        if "scenario = 'x'" in text or "scenario = '5" in text:
            continue  # a name that a schema cannot know to be none
        try:
            read(tmp_path, text)
            accepted = True
        except RecipeError:
            accepted = False
        assert check.is_valid(json.loads(json.dumps(tomllib.loads(text)))) == accepted, text
        verdicts.append(accepted)
    assert 60 < sum(verdicts) < len(verdicts) - 60


def test_the_docs_have_every_key() -> None:
    text = (Path(__file__).parents[2] / "docs" / "gate.md").read_text(encoding="utf-8")
    text = re.sub(r"(?s)```.*?```", "", text)
    named = {word for part in re.findall(r"`([^`]+)`", text) for word in part.split()}
    assert {row.name for row in LIMITS.values()} | set(budget.GLOBS) <= named
