"""Series out of a store: what lies on one line, and what does not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgessl.errors import RecipeError
from edgessl.gate.history import query, store
from edgessl.gate.report import Report, Score
from tests import measured


def _report(number: int, ms: float = 1.0, settings: Any = None, **environment: Any) -> Report:
    rng = np.random.default_rng(number)
    run = replace(measured.run("a", rng, 3, ms, luck=0.003), settings=settings or {"threads": 2})
    score = Score("a", "sts", 0.82, 9, "stsb")
    made = measured.report(run, scores=(score,), **environment)
    return replace(made, created=f"2026-11-{number + 1:02d}T00:00:00", commit=f"{number:040x}")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "history.sqlite"


def test_a_change_is_found_in_the_order_of_time(path: Path) -> None:
    for number in np.random.default_rng(0).permutation(20):  # jobs end in any order
        store.append(path, _report(int(number), 1.0 if number < 12 else 1.2))
    (series,) = query.series(path)
    assert [point.commit for point in series.points] == [f"{n:040x}" for n in range(20)]
    (change,) = series.changes
    assert change.at == 12 and change.ratio == pytest.approx(0.2, abs=0.02)
    assert series.worse(change) == change.ratio
    (rate,) = query.series(path, "throughput")
    assert rate.worse(rate.changes[0]) == pytest.approx(1 - 1 / 1.2, abs=0.02)  # fewer are worse
    assert (rate.unit, series.unit) == ("items/s", "ms")


def test_another_machine_is_another_series(path: Path) -> None:
    pi = {"device": "Raspberry Pi 5", "machine": {"model": "Raspberry Pi 5"}}
    for number in range(16):
        # twice as slow there: no change of the code
        store.append(path, _report(number, 2.0, **pi) if number % 2 else _report(number))
    first, second = query.series(path)
    assert (len(first.points), len(second.points)) == (8, 8)
    assert first.changes == second.changes == ()
    assert first.differs == () and "Raspberry Pi 5" in second.differs[0]
    assert second.machine == "Raspberry Pi 5, orin-1"


def test_other_versions_and_settings_begin_a_series_and_hosts_do_not(path: Path) -> None:
    store.append(path, _report(0))
    store.append(path, _report(1, host="orin-2"))
    store.append(path, _report(2, versions={"numpy": "2.1"}))
    store.append(path, _report(3, settings={"threads": 1}))
    old, new, threads = query.series(path)
    assert (len(old.points), len(new.points), len(threads.points)) == (2, 1, 1)
    assert "numpy" in new.differs[0] and "threads" in threads.differs[0]
    (size,) = query.series(path, "size")  # the same everywhere
    assert len(size.points) == 4


def test_what_is_asked_for_and_not_there_is_named(path: Path) -> None:
    store.append(path, _report(0))
    with pytest.raises(RecipeError, match=r"no metric 'p59'. Did you mean 'p99'\?"):
        query.series(path, "p59")
    with pytest.raises(RecipeError, match="no subject 'b'.* There is: a"):
        query.series(path, subject="b")
    with pytest.raises(RecipeError, match="nothing with .*metric 'sts' together"):
        query.series(path, "sts", scenario="single-stream")
    (scores,) = query.series(path, "sts", data="stsb")
    assert scores.title == "a, stsb, sts"


def test_worsened_looks_at_the_newest_reports_only(path: Path) -> None:
    for number in range(24):
        store.append(path, _report(number, 1.0 if number < 12 else 1.2))
    (series,) = query.series(path)
    (change,) = query.worsened(series, last=12, worse=0.05)
    assert change.at == 12
    assert query.worsened(series, last=11, worse=0.05) == []
    assert query.worsened(series, last=24, worse=0.25) == []
    (rate,) = query.series(path, "throughput")
    assert len(query.worsened(rate, last=24, worse=0.1)) == 1


def test_newest_is_the_series_of_the_last_report(path: Path) -> None:
    for number, version in enumerate(("2.0", "2.1", "2.0")):
        store.append(path, _report(number, versions={"numpy": version}))
    (newest,) = query.newest(query.series(path))
    assert newest.environment["versions"] == {"numpy": "2.0"} and len(newest.points) == 2
