"""How long the gate measures, when it stops, and what looking often costs."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgessl.gate import budget
from edgessl.gate.budget import Budgets
from edgessl.gate.judging.claims import Baseline
from edgessl.gate.judging.sequential import until_clear
from edgessl.gate.plan import Plan
from edgessl.gate.report import Report
from edgessl.gate.verdict import FAIL, INCONCLUSIVE, PASS, Judgement
from tests.measured import Machine, report, score

RELATIVE = "[[budget]]\nrelative = { p50 = 0.05 }"
PLAN = Plan({"new": "new/", "old": "old/"}, shapes=("1x32",))


def rules(tmp_path: Path, text: str = RELATIVE) -> Budgets:
    path = tmp_path / "budgets.toml"
    path.write_text(text, encoding="utf-8")
    return budget.read(path)


def gated(rules: Budgets, machine: Machine, limit_s: float) -> tuple[Judgement, Report]:
    return until_clear(rules, Baseline("old"), [PLAN], machine, limit_s, clock=lambda: machine.now)


def test_a_noisy_case_is_measured_on(tmp_path: Path) -> None:
    machine = Machine({"new": 1.1, "old": 1.0}, luck=0.08)
    judgement, measured = gated(rules(tmp_path), machine, 300)
    assert judgement.outcome == FAIL and len(machine.asked) > 3
    numbers = [visit.number for visit in measured.runs[0].rounds]
    assert numbers == list(range(sum(machine.asked)))
    assert judgement.seconds == sum(machine.asked)  # a second a round


@pytest.mark.parametrize("limit_s", [5, 25, 60])
def test_when_the_time_ends_the_answer_is_open(tmp_path: Path, limit_s: int) -> None:
    machine = Machine({"new": 1.05, "old": 1.0}, luck=0.05)
    judgement, _ = gated(rules(tmp_path), machine, limit_s)
    assert judgement.outcome == INCONCLUSIVE and machine.now <= limit_s
    assert machine.now > 0.7 * limit_s - 2


def test_looking_often_raises_no_false_alarm(tmp_path: Path) -> None:
    """The truth is just within the limit: every look is a chance to be wrong."""
    with_less = rules(tmp_path, f"confidence = 0.9\n{RELATIVE}")
    machine = Machine({"new": 1.0499, "old": 1.0}, luck=0.02)
    outcomes = []
    for _ in range(60):
        machine.now = 0.0
        outcomes.append(gated(with_less, machine, 120)[0].outcome)
    assert len(machine.asked) > 6 * 60
    assert outcomes.count(FAIL) <= 6  # 0.05 of 60 is 3
    assert outcomes.count(PASS) <= 6


def test_only_what_is_open_is_measured_on(tmp_path: Path) -> None:
    text = (
        '[[budget]]\nscenario = "offline"\nthroughput = 1\n'
        '[[budget]]\nname = "near"\nscenario = "single-stream"\np50_ms = 1.0'
    )
    machine = Machine({"new": 1.0}, luck=0.05)
    plans = [
        Plan({"new": "new/"}, scenarios=(scenario,), shapes=("1x32",))
        for scenario in ("offline", "single-stream")
    ]
    judgement, measured = until_clear(
        rules(tmp_path, text), None, plans, machine, 60, clock=lambda: machine.now
    )
    assert [verdict.outcome for verdict in judgement.verdicts] == [PASS, INCONCLUSIVE]
    rounds = {run.scenario: len(run.rounds) for run in measured.runs}
    assert rounds["offline"] < rounds["single-stream"]


def test_what_more_rounds_cannot_tell_is_not_waited_for(tmp_path: Path) -> None:
    text = "[[budget]]\nmin_cosine = 0.99\n[[budget]]\nname = 'slow'\np50_ms = 2"
    scores = report(scores=(score("cosine_mean", 0.99, half=0.01),))
    machine = Machine({"new": 1.0})
    plans = [Plan({"new": "new/"}, shapes=("1x32",))]
    judgement, _ = until_clear(
        rules(tmp_path, text), None, plans, machine, 60, [scores], clock=lambda: machine.now
    )
    assert [verdict.outcome for verdict in judgement.verdicts] == [INCONCLUSIVE, PASS]
    assert machine.asked == [2, 8]
