"""``edgessl gate`` as a user types it: exit codes, files, one clear line."""

from __future__ import annotations

import json
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest

from edgessl import cli
from edgessl.gate import bench, conditions
from edgessl.gate.report import Report
from tests.commands import edgessl
from tests.measured import HERE, Machine, report, run

Printed = pytest.CaptureFixture[str]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(conditions, "environment", lambda *_, **__: HERE)
    return tmp_path


def budgets(text: str) -> None:
    Path("budgets.toml").write_text(text, encoding="utf-8")


def saved(name: str, measured: Report) -> str:
    Path(name).write_text(measured.dumps(), encoding="utf-8")
    return name


@pytest.mark.parametrize(
    ("limit", "code", "word"), [(1.2, 0, "PASS"), (0.8, 1, "FAIL"), (1.0, 5, "INCONCLUSIVE")]
)
def test_exit_codes(folder: Path, capsys: Printed, limit: float, code: int, word: str) -> None:
    budgets(f"[[budget]]\np50_ms = {limit}")
    stored = saved("report.json", report(run("new", np.random.default_rng(0))))
    assert cli.run(["gate", "-b", "budgets.toml", stored]) == code
    out = capsys.readouterr().out.splitlines()
    assert out[1].startswith(word.lower()) and out[-1].startswith(word) and len(out) == 4
    assert cli.run(["gate", "-b", "budgets.toml", stored, "--json", "--fast"]) == code % 5
    found = json.loads(capsys.readouterr().out)
    assert found["outcome"] == word.lower() and found["exit_code"] == code % 5
    assert found["verdicts"][0]["limit"] == "p50_ms"


def test_unknown_bounds_are_null_in_json(folder: Path, capsys: Printed) -> None:
    budgets("[[budget]]\np99_ms = 100")
    stored = saved("report.json", report(run("new", np.random.default_rng(0), rounds=3)))
    assert cli.run(["gate", "-b", "budgets.toml", stored, "--json"]) == 5
    (verdict,) = json.loads(capsys.readouterr().out)["verdicts"]
    assert verdict["interval"][1] is None


def test_bundles_are_measured_and_every_view_is_written(
    folder: Path, capsys: Printed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "measure", Machine({"pr": 1.3, "baseline": 1.0}))
    Path("pr").mkdir()
    Path("main").mkdir()
    budgets("[[budget]]\nrelative = { p50 = 0.05 }")
    views = ["--html", "gate.html", "--markdown", "gate.md", "--junit", "gate.xml"]
    command = ["gate", "-b", "budgets.toml", "pr", "--baseline", "main", "-o", "gate.json", "-q"]
    assert cli.run([*command, *views]) == 1
    assert "% worse (" in capsys.readouterr().out
    assert ElementTree.parse("gate.xml").getroot().find(".//failure") is not None
    assert "fail" in Path("gate.md").read_text() and "<html" in Path("gate.html").read_text()
    # what was kept can be judged again, in a moment
    assert cli.run(["gate", "-b", "budgets.toml", "gate.json", "--baseline", "baseline"]) == 1
    assert cli.run([*command, "--overwrite"]) == 1
    assert cli.run(command) == 2
    assert "gate.json exists" in capsys.readouterr().err


def test_init_writes_budgets_that_the_report_keeps(folder: Path, capsys: Printed) -> None:
    stored = saved("report.json", report(run("new", np.random.default_rng(0), rounds=40)))
    assert cli.run(["gate", "--init", "budgets.toml", stored]) == 0
    assert cli.run(["gate", "-b", "budgets.toml", stored]) == 0
    assert cli.run(["gate", "--init", "budgets.toml", stored]) == 2
    assert "budgets.toml exists" in capsys.readouterr().err


def test_wrong_use_is_one_line(folder: Path, capsys: Printed) -> None:
    budgets("[[budget]]\np50_sm = 1")
    stored = saved("report.json", report(run("new", np.random.default_rng(0))))
    Path("half.json").write_text(Path(stored).read_text()[:500])
    for arguments, said in (
        (["gate", stored], "no budgets: give --budget"),
        (["gate", "-b", "budgets.toml", stored], "Did you mean 'p50_ms'?"),
        (["gate", "-b", "nowhere.toml", stored], "nowhere.toml"),
        (["gate", "-b", "budgets.toml", "half.json"], "p50_sm"),
        (["gate", "-b", "budgets.toml", stored, "--max-minutes", "0"], "--max-minutes"),
        (["gate", "--init", "b.toml", "half.json"], "cut short, or not JSON"),
    ):
        assert cli.run(arguments) == 2
        errors = capsys.readouterr().err.strip().splitlines()
        assert len(errors) == 1 and said in errors[0]


def test_a_stored_report_is_judged_in_a_moment(folder: Path) -> None:
    """A report of thirty rounds of two thousand calls, in a process of its own."""
    rng = np.random.default_rng(0)
    one = run("new", rng, rounds=30)
    many = tuple(
        type(visit)(visit.number, visit.latency_ns * 50, 2000, visit.busy_ns * 50)
        for visit in one.rounds
    )
    stored = saved("report.json", report(type(one)("new", "single-stream", "1x32", many)))
    budgets("[[budget]]\np50_ms = 1.5\np99_ms = 2.5")
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        assert edgessl("gate", "-b", "budgets.toml", stored, cwd=folder).returncode == 0
        seconds.append(time.perf_counter() - began)
    assert min(seconds) < 2.0  # on a busy machine; alone it is half a second
