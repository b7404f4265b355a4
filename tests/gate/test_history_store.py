"""The store of reports: nothing is lost, nothing is there twice, and damage is said in one line."""

from __future__ import annotations

import os
import resource
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest

from edgessl.errors import OutputError, RecipeError
from edgessl.gate.history import store
from edgessl.gate.report import Report, Score
from tests import measured


def _report(number: int = 0) -> Report:
    rng = np.random.default_rng(number)
    score = Score("a", "sts.spearman", 0.82, 9, "stsb")
    made = measured.report(measured.run("a", rng, 4), scores=(score,))
    return replace(made, created=f"2026-11-20T{number:02d}:00:00", commit=f"{number:040x}")


def _append(path: Path, numbers: list[int]) -> None:
    for number in numbers:
        store.append(path, _report(number))


def test_reports_come_back_whole(tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite"
    assert [store.append(path, _report(n)) for n in (0, 1)] == [1, 2]
    assert store.report(path, 2) == _report(1)
    with pytest.raises(RecipeError, match="no report 7"):
        store.report(path, 7)
    assert os.listdir(tmp_path) == ["history.sqlite"]


def test_the_same_report_is_stored_once(tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite"
    assert store.append(path, _report()) == store.append(path, _report()) == 1
    assert store.count(path) == 1
    assert store.append(path, replace(_report(), notes=("hot",))) == 2


def test_figures_are_those_of_the_report(tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite"
    for number in (5, 3):  # put in out of order
        store.append(path, _report(number))
    rows = store.figures(path, {"metric": "p50"})
    assert [row["commit"] for row in rows] == [f"{n:040x}" for n in (3, 5)]  # by time
    samples = _report(3).runs[0].latencies
    assert rows[0]["value"] == pytest.approx(float(np.median(samples)) / 1e6)
    medians = [float(np.median(visit.latency_ns)) / 1e6 for visit in _report(3).runs[0].rounds]
    assert (rows[0]["low"], rows[0]["high"]) == pytest.approx((min(medians), max(medians)))
    (score,) = store.figures(path, {"metric": "sts.spearman", "data": "stsb"})[:1]
    assert (score["value"], score["unit"]) == (0.82, "")
    (size,) = store.figures(path, {"metric": "size"})[:1]
    assert (size["value"], size["unit"], size["scenario"]) == (20.0, "MB", "")
    assert store.figures(path, {"subject": "'; DROP TABLE report; --"}) == []


def test_four_processes_append_at_once(tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite"
    shares = [list(range(begin, 20, 4)) + [0] for begin in range(4)]  # report 0 by all of them
    with ProcessPoolExecutor(4, mp_context=get_context("fork")) as pool:
        list(pool.map(_append, [path] * 4, shares))
    assert store.count(path) == 20
    assert {row["commit"] for row in store.figures(path, {"metric": "p50"})} == {
        f"{n:040x}" for n in range(20)
    }


def test_a_killed_append_leaves_the_store_whole(tmp_path: Path) -> None:
    """Killed with pages on the disk that were not committed: the next one undoes them."""
    path = tmp_path / "history.sqlite"
    store.append(path, _report(0))
    child = f"""
import sqlite3, time
database = sqlite3.connect({str(path)!r}, isolation_level=None)
database.execute("PRAGMA cache_size = 1")  # so that pages are written before the commit
database.execute("BEGIN IMMEDIATE")
for number in range(2000):
    database.execute(
        'INSERT INTO report (sha256, created, "commit", environment, content) '
        "VALUES (?, '', '', '', ?)", (str(number), bytes(2000)))
print("written", flush=True)
time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", child], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None and process.stdout.readline() == "written\n"
        assert path.stat().st_size > 2_000_000
        assert path.with_name("history.sqlite-journal").exists()
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert store.count(path) == 1
    assert store.append(path, _report(1)) == 2
    assert store.report(path, 1) == _report(0)
    assert path.stat().st_size < 1_000_000


def test_a_full_disk_leaves_the_store_as_it_was(tmp_path: Path) -> None:
    """A limit on the size of files stands in for the disk."""
    path = tmp_path / "history.sqlite"
    store.append(path, _report(0))
    before = path.read_bytes()
    size, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before), hard))
    try:
        rng = np.random.default_rng(0)
        rounds = tuple(measured.visit(n, rng.lognormal(0, 1, 9000)) for n in range(3))
        large = replace(_report(1), runs=(replace(_report(1).runs[0], rounds=rounds),))
        with pytest.raises(OutputError, match="cannot write .*history.sqlite: .*it is as it was"):
            store.append(path, large)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    assert store.count(path) == 1 and store.report(path, 1) == _report(0)


def test_a_store_in_use_is_waited_for_and_then_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "history.sqlite"
    store.append(path, _report(0))
    monkeypatch.setattr(store, "_WAIT_S", 0.2)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    began = time.monotonic()
    with pytest.raises(OutputError, match="in use by another process"):
        store.append(path, _report(1))
    assert 0.15 < time.monotonic() - began < 5
    other.close()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: b"not a database" * 100,
        lambda data: data[: len(data) // 2],
        lambda data: data[:4096] + b"\xff" * (len(data) - 4096),
    ],
    ids=["text", "cut short", "overwritten"],
)
def test_a_damaged_store_is_one_line(tmp_path: Path, spoil: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "history.sqlite"
    _append(path, list(range(6)))
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(RecipeError, match="is damaged, or no history at all") as caught:
        store.figures(path, {})
        store.report(path, 1)
    assert "\n" not in str(caught.value)


def test_other_stores_are_refused(tmp_path: Path) -> None:
    newer = tmp_path / "newer.sqlite"
    store.append(newer, _report())
    with closing(sqlite3.connect(newer)) as database:
        database.execute("PRAGMA user_version = 2")
    with pytest.raises(RecipeError, match="history version 2, this edgessl knows 1"):
        store.append(newer, _report(1))
    foreign = tmp_path / "foreign.sqlite"
    with closing(sqlite3.connect(foreign)) as database:
        database.execute("CREATE TABLE report (x)")
    with pytest.raises(RecipeError, match="not a history of edgessl"):
        store.append(foreign, _report())
    with pytest.raises(RecipeError, match="not a history of edgessl"):
        store.count(foreign)
    with pytest.raises(RecipeError, match="no history at"):
        store.count(tmp_path / "absent.sqlite")
    assert not (tmp_path / "absent.sqlite").exists()
    with pytest.raises(OutputError, match="cannot write"):
        store.append(tmp_path / "absent" / "history.sqlite", _report())
