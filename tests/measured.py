"""Reports as a machine would give them, drawn from distributions that the test knows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from edgessl.gate.plan import Plan
from edgessl.gate.report import Report, Round, Run, Score, Subject

HERE: dict[str, Any] = {"device": "Jetson Orin", "host": "orin-1", "versions": {"numpy": "2.0"}}


def visit(number: int, ms: Any, **figures: Any) -> Round:
    """A round with calls of so many milliseconds."""
    latency = tuple(int(x * 1e6) for x in np.atleast_1d(ms))
    busy = max(1, sum(latency))
    return Round(number, latency, items=len(latency), busy_ns=busy, **figures)


def run(
    name: str,
    rng: np.random.Generator,
    rounds: int = 20,
    ms: float = 1.0,
    weather: Any = 1.0,
    luck: float = 0.01,
    first: int = 0,
) -> Run:
    """A single stream: calls of about *ms*, a process's *luck* (standard deviation, as a fraction)
    drawn each round, and the *weather* of each round, which all subjects share."""
    made = []
    for number, sky in enumerate(np.broadcast_to(weather, rounds)):
        scale = ms * sky * np.exp(rng.normal(0, luck))
        calls = scale * np.exp(rng.normal(0, 0.05, 40))
        made.append(visit(first + number, calls, cold_start_ns=200_000_000, memory_mb=90.0))
    return Run(name, "single-stream", "1x32", tuple(made))


def report(*runs: Run, scores: tuple[Score, ...] = (), **environment: Any) -> Report:
    names = dict.fromkeys([r.subject for r in runs] + [s.subject for s in scores])
    subjects = tuple(Subject(name, f"bundles/{name}", 20_000_000, digest=name) for name in names)
    return Report({**HERE, **environment}, subjects, runs, scores)


class Machine:
    """Stands in for ``edgessl.gate.bench.measure``: knows how slow each subject really is.

    ``weather``: standard deviation of what all subjects of a round share; ``luck``: of what they
    do not. ``asked``: how many rounds each plan wanted. ``now``: a round takes a second.
    """

    def __init__(self, ms: Mapping[str, float], luck: float = 0.01, weather: float = 0.2) -> None:
        self.ms, self.luck, self.weather = ms, luck, weather
        self.rng = np.random.default_rng(0)
        self.asked: list[int] = []
        self.now = 0.0

    def __call__(self, plan: Plan, steps: Any = None, each: Any = None) -> Report:
        self.asked.append(plan.rounds)
        self.now += plan.rounds
        weather = np.exp(self.rng.normal(0, self.weather, plan.rounds))
        runs = []
        for scenario in plan.scenarios:
            for shape in plan.shapes or ("1x32",):
                for name in plan.subjects:
                    made = run(
                        name,
                        self.rng,
                        plan.rounds,
                        self.ms[name],
                        weather,
                        self.luck,
                        plan.first_round,
                    )
                    runs.append(replace(made, scenario=scenario, shape=shape))
        return report(*runs)


def score(metric: str, value: float, difference: float | None = None, half: float = 0.1) -> Score:
    """Of ``new``, with the quantiles that a bootstrap of a flat distribution would give."""
    center = value if difference is None else difference
    tails = (0.001, 0.005, 0.025, 0.5, 0.975, 0.995, 0.999)
    quantiles = {str(tail): center + (tail - 0.5) * 2 * half for tail in tails}
    return Score(
        "new",
        metric,
        value,
        100,
        "texts",
        difference=difference,
        facts={"quantiles": quantiles},
    )
