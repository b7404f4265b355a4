"""What a reader is warned of."""

from __future__ import annotations

from typing import Any

import pytest

from edgessl.gate.measuring import notes
from edgessl.gate.report import Round, Run


def run(first: dict[str, Any], last: dict[str, Any], **facts: Any) -> Run:
    middle = {"throttled": {"count": 0}}
    rounds = [Round(n, (1,), 1, 1, conditions=c) for n, c in enumerate((first, middle, last))]
    return Run("a", "server", "1", tuple(rounds), {"qps": 9.5}, facts)


CALM = {"busy_s": 100.0, "stolen_s": 5.0, "throttled": {"count": 7}}


@pytest.mark.parametrize(
    ("last", "facts", "said"),
    [
        (CALM, {}, []),
        ({}, {}, []),
        (CALM | {"throttled": {"count": 8}}, {}, ["the processor was slowed down"]),
        (CALM | {"throttled": {"flags": 0x4}}, {}, ["the processor was slowed down"]),
        (CALM | {"throttled": {"flags": 0x50000}}, {}, []),  # it was, some time since boot
        (CALM | {"gpu": [{"throttled": 0x1}]}, {}, []),  # idle
        (CALM | {"gpu": [{}, {"throttled": 0x44}]}, {}, ["the GPU was slowed down"]),
        (CALM | {"busy_s": 190.0, "stolen_s": 15.0}, {}, ["other virtual machines took 10%"]),
        (CALM | {"busy_s": 190.0, "stolen_s": 5.1}, {}, []),
        (CALM, {"unsteady_rounds": 2}, ["a / server / 1: not steady after warming up in 2 of 3"]),
        (CALM, {"overloaded_rounds": 1}, ["a / server / 1: overloaded in 1 of 3 rounds: 9.5 quer"]),
    ],
)
def test_notes(last: dict[str, Any], facts: dict[str, Any], said: list[str]) -> None:
    found = notes.of([run(CALM, last, **facts)], {})
    assert [line[: len(start)] for line, start in zip(found, said, strict=True)] == said


def test_the_environments_own_come_first_and_nothing_twice() -> None:
    hot = run(CALM, CALM | {"throttled": {"count": 9}})
    assert notes.of([hot, hot], {"unknown": ["no clocks here"]}) == [
        "no clocks here",
        "the processor was slowed down while measuring: too hot, or too little power",
    ]
