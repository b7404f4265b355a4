"""``edgessl report`` and ``edgessl history`` as a user runs them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgessl import cli
from edgessl.gate.report import Report, Score
from tests import measured
from tests.commands import edgessl


def _report(number: int = 0, ms: float = 1.0, name: str = "int8") -> Report:
    run = measured.run(name, np.random.default_rng(number), 3, ms, luck=0.003)
    return replace(
        measured.report(run), created=f"2026-11-{number + 1:02d}T00:00:00", commit=f"{number:040x}"
    )


def _scores(name: str = "int8") -> Report:
    made = measured.report(scores=(Score(name, "cosine_mean", 0.99, 50),), versions={"numpy": "1"})
    return replace(made, created="2026-11-20T00:00:00")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, with some reports."""
    (tmp_path / "bench.json").write_text(_report().dumps())
    (tmp_path / "eval.json").write_text(_scores().dumps())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_report_in_a_process_of_its_own(here: Path) -> None:
    """Tables on stdout, files where asked for, and no torch needed."""
    found = edgessl(
        "report", "bench.json", "--html", "r.html", "--markdown", "r.md", without=["torch"]
    )
    assert found.returncode == 0, found.stderr
    assert found.stdout.splitlines()[0].split()[:3] == ["subject", "scenario", "shape"]
    assert (here / "r.html").read_text().startswith("<!DOCTYPE html>")
    assert (here / "r.md").read_text().startswith("**edgessl** Jetson Orin")
    assert {path.name for path in here.iterdir()} == {"bench.json", "eval.json", "r.html", "r.md"}


def test_reports_that_complete_each_other_are_one(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["report", "eval.json", "bench.json", "--json"]) == 0
    (both,) = json.loads(capsys.readouterr().out)
    assert both["runs"][0]["p50"] == pytest.approx(1.0, rel=0.1)
    assert both["scores"][0]["value"] == 0.99 and "latency_ns" not in str(both)
    assert both["environment"]["versions"] == {"numpy": "2.0"}  # where times were taken
    assert cli.run(["report", "bench.json", "bench.json", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 2  # the same figure twice: side by side


@pytest.mark.parametrize(
    "arguments,said",
    [
        (["bench.json", "--html", "."], ". is a directory; name a file in it"),
        (["bench.json", "--html", "no/r.html"], "there is no directory"),
        (["absent.json"], "'absent.json' cannot be read: No such file"),
        (["bench.json", "--htm", "r.html"], "Did you mean '--html'?"),
    ],
)
def test_report_mistakes(
    here: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert cli.run(["report", *arguments]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_views_are_written_through_links_and_to_streams(here: Path) -> None:
    (here / "real.html").write_text("old")
    (here / "link.html").symlink_to("real.html")
    assert cli.run(["report", "bench.json", "--html", "link.html", "--markdown", "/dev/null"]) == 0
    assert (here / "link.html").is_symlink() and "<html" in (here / "real.html").read_text()
    assert Path("/dev/null").is_char_device()


def _history(here: Path, slow_from: int) -> list[str]:
    names = []
    for number in range(16):
        names.append(f"{number:02d}.json")
        text = _report(number, 1.0 if number < slow_from else 1.2).dumps()
        (here / names[-1]).write_text(text)
    return names


def test_history_from_adding_to_checking(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = _history(here, slow_from=10)
    assert cli.run(["history", "add", "h.sqlite", *names]) == 0
    assert "h.sqlite has 16 reports" in capsys.readouterr().out
    assert cli.run(["history", "add", "h.sqlite", names[0], "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "store": "h.sqlite",
        "added": [1],
        "reports": 16,
    }
    assert cli.run(["history", "show", "h.sqlite", "--html", "h.html"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "int8, single-stream 1x32, p50 on Jetson Orin, orin-1, 16 reports"
    assert len(lines[1]) == 16 and lines[1][0] < lines[1][-1]
    (marked,) = [line for line in lines if "<-" in line]
    assert "% worse: " in marked and marked.split()[2] == "11"
    assert "% worse" in (here / "h.html").read_text()
    assert cli.run(["history", "check", "h.sqlite"]) == 1
    assert capsys.readouterr().out.startswith("worse  int8, single-stream 1x32, p50: ")
    assert cli.run(["history", "check", "h.sqlite", "--worse", "0.3"]) == 0
    capsys.readouterr()
    assert cli.run(["history", "check", "h.sqlite", "--last", "6", "--json"]) == 1
    (change,) = json.loads(capsys.readouterr().out)["changes"]
    assert change["report"] == 11 and change["worse"] == pytest.approx(0.2, abs=0.02)
    assert cli.run(["history", "check", "h.sqlite", "--last", "5"]) == 0


def test_history_that_is_too_short_says_so(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["history", "add", "h.sqlite", "bench.json"]) == 0
    capsys.readouterr()
    assert cli.run(["history", "check", "h.sqlite"]) == 0
    assert "1 of the 6 reports" in capsys.readouterr().out


def test_history_mistakes(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, said in (
        (["shw", "h.sqlite"], "Did you mean 'show'?"),
        (["show", "h.sqlite"], "no history at 'h.sqlite'"),
        (["add", "h.sqlite", "bench.json", "absent.json"], "'absent.json' cannot be read"),
        (["add", "bench.json", "eval.json"], "bench.json is damaged, or no history at all"),
    ):
        assert cli.run(["history", *arguments]) == 2
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1
    assert not (here / "h.sqlite").exists()  # all or nothing
