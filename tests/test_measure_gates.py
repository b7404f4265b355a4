"""The figures of the gate, on rounds that a test knows: what is replayed, and what is counted."""

from __future__ import annotations

import numpy as np

from edgessl.gate.plan import Plan
from edgessl.gate.report import Report
from examples.figures import gates
from tests.measured import report, run


def recorded(rounds: int = 60) -> Report:
    rng = np.random.default_rng(0)
    weather = np.exp(rng.normal(0, 0.2, rounds))
    slower = {gates.BASE: 1.0, gates.AGAIN: 1.0, "slower_5": 1.05, "slower_10": 1.10}
    return report(*(run(name, rng, rounds, ms, weather) for name, ms in slower.items()))


def test_gates_are_replayed_from_another_round_on_each_and_counted() -> None:
    measured, seconds = recorded(), [4.0] * 60
    found = {
        (subject, limit): gates.case(measured, seconds, subject, limit, limit_s, gates=12)
        for subject, limit, limit_s in gates.CASES
    }
    same, slower = found[gates.AGAIN, 0.05]["rows"], found["slower_10", 0.05]["rows"]
    assert [row["outcome"] for row in same] == ["pass"] * 12
    assert [row["outcome"] for row in slower] == ["fail"] * 12
    for row in same:  # two of the four subjects: half of the time of a round
        assert row["seconds"] == 2.0 * row["rounds"] and row["rounds"] >= 10
    assert sum(row["fixed"] for row in slower) == 12 and not any(row["fixed"] for row in same)


def test_a_replay_goes_on_at_the_beginning_and_knows_what_it_is_asked_for() -> None:
    measured = recorded(20)
    replay = gates.Replay(measured, [1.0] * 20, {"new": gates.AGAIN, "old": gates.BASE})
    replay.start = 15
    plan = Plan({"new": "", "old": ""}, rounds=10, first_round=3)
    new, old = replay(plan).runs
    assert [visit.number for visit in new.rounds] == list(range(3, 13))
    source = next(one for one in measured.runs if one.subject == gates.AGAIN).rounds
    assert new.rounds[0].latency_ns == source[18].latency_ns
    assert new.rounds[2].latency_ns == source[0].latency_ns
    assert new.rounds != old.rounds and replay.now == 5.0


def test_the_intervals_hold_in_the_simulation() -> None:
    rows = gates.coverage(60)
    assert {row["latencies"] for row in rows} == {"heavy-tailed", "bimodal"}
    assert all(row["gate"] > 0.85 for row in rows)


def test_the_tables() -> None:
    measured, seconds = recorded(), [4.0] * 60
    cases = [gates.case(measured, seconds, *case, 3) for case in gates.CASES]
    weather = {"rounds": 60, "gates": cases}
    found = {
        "coverage": gates.coverage(20),
        "calm": weather,
        "loaded": weather,
        "live": [{"outcome": "pass", "seconds": 17.0}],
    }
    text = gates.render(found)
    assert text.count("| again ") == 4 and "1 pass; 17 s" in text and "100.0%" in text
