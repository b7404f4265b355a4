"""The gate's loop: how long it measures, when it stops, and what it will not do."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from edgessl.errors import RecipeError
from edgessl.gate import bench, conditions
from edgessl.gate.gating import gate
from edgessl.gate.report import Report
from edgessl.gate.verdict import FAIL, PASS
from tests.measured import HERE, Machine, report, run

RELATIVE = '[[budget]]\nshape = "1x32"\nrelative = { p50 = 0.05 }'
_names = itertools.count()


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conditions, "environment", lambda *_, **__: HERE)


def machine(monkeypatch: pytest.MonkeyPatch, ms: dict[str, float], luck: float) -> Machine:
    found = Machine(ms, luck)
    monkeypatch.setattr(bench, "measure", found)
    return found


def budgets(tmp_path: Path, text: str) -> Path:
    path = tmp_path / f"budgets-{next(_names)}.toml"
    path.write_text(text, encoding="utf-8")
    return path


def bundles(tmp_path: Path, *names: str) -> list[str]:
    for name in names:
        (tmp_path / name).mkdir(exist_ok=True)
    return [str(tmp_path / name) for name in names]


def saved(tmp_path: Path, measured: Report) -> str:
    path = tmp_path / f"report-{next(_names)}.json"
    path.write_text(measured.dumps(), encoding="utf-8")
    return str(path)


def test_a_clear_case_is_settled_at_the_first_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rules = budgets(tmp_path, RELATIVE)
    new, old = bundles(tmp_path, "new", "old")
    for slower, outcome in ((1.0, PASS), (1.2, FAIL)):
        here = machine(monkeypatch, {"new": slower, "baseline": 1.0}, luck=0.01)
        found = gate(rules, [new], baseline=[old])
        assert found.judgement.outcome == outcome
        assert here.asked == [2, 8]  # a trial, and the first look at ten rounds
        assert {r.subject: len(r.rounds) for r in found.report.runs} == {"new": 10, "baseline": 10}


def test_stored_reports(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    weather = np.exp(rng.normal(0, 0.3, 20))
    both = report(run("new", rng, 20, 1.3, weather), run("old", rng, 20, 1.0, weather))
    rules = budgets(tmp_path, RELATIVE)
    assert gate(rules, [saved(tmp_path, both)], baseline=["old"]).judgement.outcome == FAIL
    now, before = (saved(tmp_path, report(run("new", rng, 20, ms))) for ms in (1.3, 1.0))
    found = gate(rules, [now], baseline=[before])
    assert found.judgement.outcome == FAIL and found.baseline is not None


def test_what_cannot_be_judged_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, {"new": 1.0, "baseline": 1.0}, luck=0.01)
    rng = np.random.default_rng(0)
    new, old = bundles(tmp_path, "new", "old")
    timed = saved(tmp_path, report(run("new", rng)))
    elsewhere = saved(tmp_path, report(run("new", rng), versions={"numpy": "1.0"}))
    rules = budgets(tmp_path, RELATIVE)
    cases: list[tuple[list[str], list[str], str]] = [
        ([], [], "nothing to judge"),
        (["nowhere"], [], "'nowhere' is neither a report nor a bundle"),
        ([timed], [new], "cannot be compared with a bundle that is measured now"),
        ([new, timed], [old], "give reports or bundles"),
        ([new], [old, timed], "one bundle, or reports, and not both"),
        ([timed, elsewhere], [timed], "numpy"),
        ([new], [], "--baseline BUNDLE"),
    ]
    for things, baseline, said in cases:
        with pytest.raises(RecipeError) as error:
            gate(rules, things, baseline=baseline)
        assert said in str(error.value)
